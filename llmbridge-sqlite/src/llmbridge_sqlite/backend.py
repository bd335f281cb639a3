"""Storage backend for SQLite: the methods of the contract, each on one of two connections and in one transaction."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Any, TypeVar

from llmbridge.storage import (
    MAX_BATCH,
    CallPage,
    CallQuery,
    CallRecord,
    CostChange,
    InvalidStorageURLError,
    LLMModel,
    MigrationReport,
    ModelPrice,
    RecordResult,
    SchemaStatus,
    SQLAccess,
    StorageError,
    StorageRefusedError,
    TotalsPage,
    TotalsReport,
    TotalsRow,
    UpsertResult,
    UsageQuery,
    UsageRow,
)
from llmbridge.storage.toolkit.lifecycle import LifecycleBackend
from llmbridge.storage.toolkit.maintenance import check_by_day, in_slices

from . import calls as call_rows
from . import erase, purge, reprice, rollups, schema, sql_access, totals_check, totals_copy, usage
from . import models as model_rows
from .codec import to_micros
from .connection import Connection, ConnectionThread, switch_to_wal
from .path import Location
from .preflight import inspect
from .rollup_statements import DAY

logger = logging.getLogger("llmbridge.sqlite")

T = TypeVar("T")

#: How many unfolded calls start a fold, normally and when the database is closed. Every query sums unfolded calls.
FOLD_AFTER = 8_192
_FOLD_AT_CLOSE = 256
#: Seconds that a fold may delay the closing. Calls that are left are folded later.
_CLOSE_SECONDS = 2.0

_SYNCHRONOUS = {"full": "PRAGMA synchronous = FULL", "normal": "PRAGMA synchronous = NORMAL"}


class SQLiteBackend(LifecycleBackend, SQLAccess):
    """Calls, models and prices in a SQLite file, or in memory with the path `:memory:`.

    All writes share one connection and wait up to 30 seconds for other processes. Reads have a read-only connection. A
    file that this user may not write to can be read; what would change it raises StorageRefusedError.

    :param path: `~` stands for the home folder
    :param synchronous: `full`: every commit survives a power failure; `normal`: a power failure may lose the last
        commits, but never damages the file
    :param fold_after: how many calls may wait before they are folded into rollups, in the background
    :raises InvalidStorageURLError: the path or `synchronous` is invalid
    """

    def __init__(
        self, path: str | os.PathLike[str], *, synchronous: str = "full", fold_after: int = FOLD_AFTER
    ) -> None:
        if synchronous not in _SYNCHRONOUS:
            raise InvalidStorageURLError(f"invalid synchronous={synchronous!r}: use full or normal")
        self._location = Location.of(path)
        self._file = str(self._location)
        super().__init__(f"the SQLite database {self._file}")
        self._synchronous = synchronous
        self._writer: ConnectionThread
        self._reader: ConnectionThread
        self._is_read_only = False
        self._has_warned = False
        self._fold_after = fold_after
        self._folding: asyncio.Task[None] | None = None
        self._unfolded = 0

    def __repr__(self) -> str:
        return f"SQLiteBackend({self._file!r})"

    async def _open(self) -> None:
        opened: list[ConnectionThread] = []
        self._is_read_only = await asyncio.to_thread(self._location.can_only_be_read)
        try:
            if not self._is_read_only:
                opened.append(await ConnectionThread.open(self._location, "rw", self._prepare_writer))
            if self._location.path is not None:
                opened.append(await ConnectionThread.open(self._location, "ro", rollups.prepare))
            await self._warn_of_upstream(opened[0])
        except BaseException:
            for thread in reversed(opened):
                await thread.close()
            raise
        self._writer, self._reader = opened[0], opened[-1]

    async def _finish(self) -> None:
        """Fold for at most `_CLOSE_SECONDS`. Calls that are left are folded when the database is used again."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_SECONDS):
                if self._folding is not None:
                    await self._folding
                if self._unfolded >= min(self._fold_after, _FOLD_AT_CLOSE):
                    await self.fold_totals()

    async def _close(self) -> None:
        try:
            if self._reader is not self._writer:
                await self._reader.close()
        finally:
            # The last connection copies the write-ahead log into the file when it is closed, so it must be writable.
            await self._writer.close()

    def _prepare_writer(self, connection: Connection) -> None:
        rollups.prepare(connection)
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute(_SYNCHRONOUS[self._synchronous])
        if schema.status(connection, schema.shipped(), self._file).writable and not switch_to_wal(connection):
            raise StorageRefusedError(
                f"the SQLite database {self._file} cannot have a write-ahead log on its file system; "
                "put it on a local disk"
            )

    async def _warn_of_upstream(self, writer: ConnectionThread) -> None:
        found = await writer.run(partial(inspect, where=self._file))
        if found.upstream and not self._has_warned:
            self._has_warned = True
            logger.warning(
                "the SQLite database %s has the tables models and api_calls of llmbridge-py 0.2; they are not changed, "
                "and new calls are stored in other tables",
                self._file,
            )

    async def _write(self, work: Callable[[Connection], T]) -> T:
        def checked(connection: Connection) -> T:
            schema.check_writable(connection, schema.shipped(), self._file)
            return work(connection)

        self._check_connected()
        if self._is_read_only:
            raise StorageRefusedError(
                f"the SQLite database {self._file} can only be read: this user may not write to the file or to its "
                "folder; give the user the right to write to both"
            )
        return await self._writer.write(checked)

    async def _write_in_slices(self, work: Callable[[Connection], tuple[int, bool]]) -> int:
        return await in_slices(partial(self._write, work))

    async def _read(self, work: Callable[[Connection], T]) -> T:
        self._check_connected()
        return await self._reader.read(work)

    async def apply_migrations(self, path: str | os.PathLike[str] | None = None) -> MigrationReport:
        """Apply the migrations of this distribution, as the contract says; `path` is ignored."""
        self._check_connected()
        return await self._writer.run(partial(schema.apply, migrations=schema.shipped(), where=self._file))

    async def schema_status(self) -> SchemaStatus:
        status = await self._read(partial(schema.status, migrations=schema.shipped(), where=self._file))
        return replace(status, read_only=self._is_read_only)

    async def upsert_models(self, models: Sequence[LLMModel]) -> UpsertResult:
        return await self._write(partial(model_rows.upsert_models, models=models))

    async def list_models(
        self, provider: str | None = None, model_name: str | None = None, active_only: bool = True
    ) -> list[LLMModel]:
        return await self._read(
            partial(model_rows.list_models, provider=provider, model_name=model_name, active_only=active_only)
        )

    async def retire_models(self, keys: Sequence[tuple[str, str]], at: datetime) -> int:
        return await self._write(partial(model_rows.retire_models, keys=keys, at=at))

    async def set_prices(self, prices: Sequence[ModelPrice]) -> None:
        await self._write(partial(model_rows.set_prices, prices=prices))

    async def list_prices(self, provider: str | None = None, model_name: str | None = None) -> list[ModelPrice]:
        return await self._read(partial(model_rows.list_prices, provider=provider, model_name=model_name))

    async def record_calls(self, calls: Sequence[CallRecord]) -> RecordResult:
        if len(calls) > MAX_BATCH:
            raise ValueError(f"{len(calls)} calls in one batch: pass at most {MAX_BATCH}")
        result, self._unfolded = await self._write(partial(_record, calls=calls, where=self._file))
        if self._unfolded >= self._fold_after and self._folding is None:
            self._folding = asyncio.create_task(self._fold_in_background())
        return result

    async def _fold_in_background(self) -> None:
        """Fold while callers continue. If it fails, the calls are folded after a later batch."""
        try:
            await self.fold_totals(self._fold_after)
        except StorageError as error:
            logger.debug("calls in %s were not folded into rollups, which happens later: %s", self._file, error)
        finally:
            self._folding = None

    async def fold_totals(self, least: int = 1) -> None:
        """Fold all calls that are not folded yet, if they are at least `least`. This also happens automatically, and
        changes no result."""
        await self._write_in_slices(partial(rollups.fold, least=least))
        self._unfolded = 0

    async def list_calls(self, query: CallQuery) -> CallPage:
        return await self._read(partial(call_rows.select, query=query))

    async def summarize_usage(self, query: UsageQuery) -> list[UsageRow]:
        return await self._read(partial(usage.summarize, query=query))

    async def purge_calls(self, before: datetime) -> int:
        day = to_micros(before.replace(hour=0, minute=0, second=0, microsecond=0))

        async def purged() -> int:
            await self.fold_totals()  # so that the transaction that purges has few calls left to fold
            await self._write(partial(purge.move_watermark, to=day))
            return await self._write_in_slices(purge.delete)

        return await self._tasks.to_its_end(purged())

    async def reprice_calls(self, changes: Sequence[CostChange]) -> int:
        return await self._write(partial(reprice.reprice, changes=changes))

    async def read_totals(self, cursor: str | None = None) -> TotalsPage:
        return await self._read(partial(totals_copy.read_totals, cursor=cursor))

    async def write_totals(self, rows: Sequence[TotalsRow], watermark: datetime | None) -> None:
        to = None if watermark is None else to_micros(watermark)
        await self._write(partial(totals_copy.write_totals, rows=rows, watermark=to))

    async def erase_user(self, origin: str, id_at_origin: str) -> int:
        return await self._tasks.to_its_end(
            self._write_in_slices(partial(erase.erase, origin=origin, user=id_at_origin))
        )

    async def compact(self) -> int:
        """As the contract says, by VACUUM, which takes as much free space as the file has."""

        def run(connection: Connection) -> int:
            schema.check_writable(connection, schema.shipped(), self._file)
            return purge.compact(connection)

        self._check_connected()
        return await self._tasks.to_its_end(self._writer.run(run))

    async def check_totals(self, repair: bool = False) -> TotalsReport:
        """Compare the folded calls of each day with the rollups of the day, as the contract says."""
        run = self._write if repair else self._read

        async def next_day(start: int) -> int | None:
            return await self._read(partial(totals_check.next_day, start=start))

        async def check(day: int) -> TotalsReport:
            return await run(partial(totals_check.check_day, day=day, repair=repair))

        async def whole() -> TotalsReport:
            ahead = await run(partial(purge.future_watermark, repair=repair))
            report = await check_by_day(next_day, check, first=totals_check.FIRST, day=DAY)
            return replace(report, future_watermark=ahead)

        return await self._tasks.to_its_end(whole())

    async def ping(self) -> None:
        await self._read(lambda connection: connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchall())

    async def execute(self, query: str, *args: Any) -> None:
        await self._run_statement(query, args, sql_access.nothing)

    async def fetch_one(self, query: str, *args: Any) -> dict[str, Any] | None:
        return await self._run_statement(query, args, sql_access.first)

    async def fetch_all(self, query: str, *args: Any) -> list[dict[str, Any]]:
        return await self._run_statement(query, args, sql_access.every)

    async def fetch_value(self, query: str, *args: Any) -> Any:
        return await self._run_statement(query, args, sql_access.value)

    async def execute_and_return_id(self, query: str, *args: Any) -> int:
        return await self._run_statement(query, args, sql_access.new_id)

    async def _run_statement(self, query: str, args: tuple[Any, ...], read: Callable[[Any], T]) -> T:
        self._check_connected()
        return await self._writer.run(partial(sql_access.run, query=query, args=args, read=read))


def _record(connection: Connection, calls: Sequence[CallRecord], where: str) -> tuple[RecordResult, int]:
    """Store the calls whose day is not purged. Return the result, and how many calls are not folded yet."""
    now = rollups.state(connection)
    in_time, late = purge.split(calls, now.watermark)
    result = call_rows.insert(connection, in_time, where)
    return replace(result, expired=late), rollups.last(connection) - now.folded
