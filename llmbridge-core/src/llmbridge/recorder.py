"""Many callers, one writer: calls are written in batches, and each caller is released by its commit."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from uuid import UUID

from .errors import LLMBridgeError, RecordRejectedError, StorageClosedError, StorageError, StorageUnavailableError
from .schemas import CallRecord
from .storage.types import MAX_BATCH, RecordResult

#: Most records that wait for the writer; further callers wait for room.
MAX_PENDING = 10_000

_FIRST_PAUSE = 0.05
_LONGEST_PAUSE = 1.0

Write = Callable[[Sequence[CallRecord]], Awaitable[RecordResult]]
Waiting = tuple[CallRecord, "asyncio.Future[None]"]


class Recorder:
    """Writes calls through `write`, one batch at a time.

    There is no linger: while one batch is committed the next one forms. `patience` is for how many seconds a
    batch is tried again, with the same ids, while the store is unavailable.
    """

    def __init__(self, write: Write, *, patience: float) -> None:
        self._write = write
        self._patience = patience
        self._waiting: deque[Waiting] = deque()
        self._room = asyncio.Semaphore(MAX_PENDING)
        self._writer: asyncio.Task[None] | None = None
        self._closed = False
        self._unsettled = 0

    async def record(self, call: CallRecord) -> None:
        """Return when `call` is committed. A caller that is cancelled leaves its call in the queue.

        :raises RecordRejectedError: the store can never hold this call
        :raises StorageError: the call is not known to be stored
        """
        await self._room.acquire()
        if self._closed:
            self._room.release()
            raise StorageClosedError("the books are closed")
        committed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((call, committed))
        if self._writer is None:
            self._writer = asyncio.create_task(self._run(), name="llmbridge-recorder")
        await committed

    async def close(self) -> None:
        """Take no more calls and wait until all that were taken are committed or given up."""
        self._closed = True
        while self._writer is not None:
            await asyncio.wait([self._writer])

    def abandon(self) -> int:
        """Stop writing, tell every caller that still waits, and return how many there were."""
        left = self._unsettled
        if self._writer is not None:
            self._writer.cancel()
        return left

    async def _run(self) -> None:
        batch: list[Waiting] = []
        try:
            while self._waiting:
                batch = [self._waiting.popleft() for _ in range(min(MAX_BATCH, len(self._waiting)))]
                self._unsettled = len(batch) + len(self._waiting)
                for _ in batch:
                    self._room.release()
                await self._settle(batch, asyncio.get_running_loop().time() + self._patience)
        except BaseException as error:
            stopped = StorageUnavailableError(f"the recorder was stopped ({type(error).__name__}) before the commit")
            _fail([*batch, *self._waiting], stopped)
            for _ in self._waiting:
                self._room.release()
            self._waiting.clear()
            raise
        finally:
            self._writer = None
            self._unsettled = 0

    async def _settle(self, batch: list[Waiting], deadline: float) -> None:
        """Commit a batch; where the store rejects it, only the callers of the rejected calls fail: those that it
        names, else those that halving finds."""
        try:
            result = await self._commit([call for call, _ in batch], deadline)
        except RecordRejectedError as error:
            for part in _without(batch, error):
                await self._settle(part, deadline)
        except LLMBridgeError as error:
            _fail(batch, error)
        except Exception as error:
            failure = StorageError(f"recording failed: {type(error).__name__}")
            failure.__cause__ = error
            _fail(batch, failure)
        else:
            _release(batch, frozenset(result.expired))

    async def _commit(self, calls: Sequence[CallRecord], deadline: float) -> RecordResult:
        pause = _FIRST_PAUSE
        while True:
            try:
                return await self._write(calls)
            except StorageUnavailableError:
                wait = pause * random.uniform(0.5, 1.0)  # noqa: S311  jitter needs no secrecy
                if self._closed or asyncio.get_running_loop().time() + wait > deadline:
                    raise
                await asyncio.sleep(wait)
                pause = min(2 * pause, _LONGEST_PAUSE)


def _without(batch: list[Waiting], error: RecordRejectedError) -> list[list[Waiting]]:
    """Fail the callers of what was rejected, as far as that is known; what is left, to be tried again."""
    named = [waiting for waiting in batch if waiting[0].id in error.ids]
    if named:
        _fail(named, error)
        rest = [waiting for waiting in batch if waiting[0].id not in error.ids]
        return [rest] if rest else []
    if len(batch) == 1:
        _fail(batch, error)
        return []
    middle = len(batch) // 2
    return [batch[:middle], batch[middle:]]


def _release(batch: Sequence[Waiting], expired: frozenset[UUID]) -> None:
    for call, committed in batch:
        if call.id in expired:
            _fail([(call, committed)], RecordRejectedError("the call lies in days that were purged", ids=(call.id,)))
        elif not committed.done():
            committed.set_result(None)


def _fail(batch: Sequence[Waiting], error: LLMBridgeError) -> None:
    for _, committed in batch:
        if not committed.done():
            committed.set_exception(error)
