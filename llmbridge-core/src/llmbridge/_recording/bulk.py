"""Bulk recording: writes many calls that were made elsewhere, in batches and at the speed of the database."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from .._shared.redaction import redact
from ..errors import ConstraintError, RecordRejectedError, StorageUnavailableError
from ..schemas import CallRecord
from ..storage.types import MAX_BATCH, RecordResult
from .bisection import divide
from .settlement import EXPIRED

#: Seconds between two attempts at a batch while the database is away, doubled from the first to the last.
_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 5.0
#: Most rejections that a report describes.
_MOST_REJECTIONS = 100

#: A call as a record, or as fields of `record_api_call`.
Given = CallRecord | Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Rejection:
    """A call that was not stored: its `position` among the calls that were given, from 0, and the `reason`."""

    position: int
    reason: str


@dataclass(frozen=True, slots=True)
class RecordReport:
    """Result of `record_api_calls`, or its state so far.

    `committed` calls were stored, `duplicates` had been stored before under the same id. `rejected` calls were not
    stored: their values can never be, their days were purged, or a constraint of the database refuses them.
    `rejections` describes the first 100 of them.
    """

    committed: int = 0
    duplicates: int = 0
    rejected: int = 0
    rejections: tuple[Rejection, ...] = ()


class BulkWriter:
    """Writes calls in batches. While one batch is committed, the next one is built.

    :param prepare: called before each batch is built: opens the database, and loads prices
    :param build: makes the record of a call
    :param write: stores a batch in one transaction
    :param timeout: seconds for which a batch is tried again while the database is away
    :param progress: called after each batch with the report so far
    """

    def __init__(
        self,
        *,
        prepare: Callable[[], Awaitable[None]],
        build: Callable[[Mapping[str, Any]], CallRecord],
        write: Callable[[Sequence[CallRecord]], Awaitable[RecordResult]],
        timeout: float,
        progress: Callable[[RecordReport], object] | None,
    ) -> None:
        self._prepare = prepare
        self._build = build
        self._write = write
        self._timeout = timeout
        self._progress = progress
        self._committed = self._duplicates = self._rejected = 0
        self._rejections: list[Rejection] = []

    @property
    def report(self) -> RecordReport:
        """The state so far."""
        return RecordReport(self._committed, self._duplicates, self._rejected, tuple(self._rejections))

    async def run(self, calls: Iterable[Given] | AsyncIterable[Given], batch: int) -> RecordReport:
        """Write the calls and return the report.

        :raises StorageError: the database failed; the calls of the batches before are stored
        :raises TypeError: what was given is neither a CallRecord nor fields of one
        """
        if not 1 <= batch <= MAX_BATCH:
            raise ValueError(f"batch is {batch}; it must be from 1 to {MAX_BATCH}")
        writing: asyncio.Task[None] | None = None
        position = 0
        try:
            async for chunk in _chunks(calls, batch):
                await self._prepare()
                records = self._records(chunk, position)
                position += len(chunk)
                if writing is not None:
                    await writing
                writing = asyncio.create_task(self._write_batch(records), name="llmbridge-bulk")
                await asyncio.sleep(0)  # the batch is on its way before the next one is built
            if writing is not None:
                await writing
        except BaseException:
            if writing is not None:  # a batch that was begun is not left behind
                writing.cancel()
                await asyncio.wait([writing])
            raise
        return self.report

    def _records(self, chunk: Sequence[Given], start: int) -> list[tuple[int, CallRecord]]:
        records = []
        for position, given in enumerate(chunk, start):
            try:
                records.append((position, self._build(_fields(given))))
            except RecordRejectedError as error:
                self._reject(position, error)
        return records

    async def _write_batch(self, batch: list[tuple[int, CallRecord]]) -> None:
        """Commit a batch without the calls that cannot be stored."""
        parts = [batch] if batch else []
        while parts:
            part = parts.pop()
            try:
                result = await self._commit([record for _, record in part])
            except (RecordRejectedError, ConstraintError) as error:
                refused, rest = divide(part, error.ids, _id)
                for position, _ in refused:
                    self._reject(position, error)
                parts += rest
            else:
                self._committed += result.inserted
                self._duplicates += result.duplicates
                for position, record in part:
                    if record.id in result.expired:
                        self._reject(position, EXPIRED)
        if self._progress is not None:
            self._progress(self.report)

    async def _commit(self, calls: Sequence[CallRecord]) -> RecordResult:
        until = time.monotonic() + self._timeout
        pause = _FIRST_PAUSE
        while True:
            try:
                return await self._write(calls)
            except StorageUnavailableError:
                if time.monotonic() + pause > until:
                    raise
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _reject(self, position: int, reason: Exception | str) -> None:
        self._rejected += 1
        if len(self._rejections) < _MOST_REJECTIONS:
            self._rejections.append(Rejection(position, redact(str(reason))))


def _id(numbered: tuple[int, CallRecord]) -> UUID:
    return numbered[1].id


def _fields(given: Given) -> Mapping[str, Any]:
    if isinstance(given, CallRecord):
        return given.model_dump(exclude_unset=True)
    if isinstance(given, Mapping):
        return given
    raise TypeError(f"record_api_calls() takes CallRecords and dicts of their fields, not {type(given).__name__}")


async def _chunks(calls: Iterable[Given] | AsyncIterable[Given], size: int) -> AsyncIterator[list[Given]]:
    chunk: list[Given] = []
    if isinstance(calls, AsyncIterable):
        async for call in calls:
            chunk.append(call)
            if len(chunk) == size:
                yield chunk
                chunk = []
    else:
        for call in calls:
            chunk.append(call)
            if len(chunk) == size:
                yield chunk
                chunk = []
    if chunk:
        yield chunk
