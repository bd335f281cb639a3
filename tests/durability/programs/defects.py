"""Defects that the tests of this folder must find, each as small as a careless change."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

from llmbridge._recording import batch_writer, spool_file
from llmbridge._recording.batch_writer import BatchWriter
from llmbridge._recording.bounded_queue import PendingCall
from llmbridge._recording.rescue import Rescue
from llmbridge._recording.settlement import Settlement
from llmbridge._recording.spool_file import SpoolFile
from llmbridge._recording.spool_replay import SpoolReplay
from llmbridge._shared import files
from llmbridge.errors import StorageUnavailableError
from llmbridge.schemas import CallRecord, RecordStatus
from llmbridge.storage import RecordResult
from llmbridge_postgres import calls as postgres_calls
from llmbridge_postgres import rollups as postgres_totals
from llmbridge_sqlite import backend as sqlite_backend
from llmbridge_sqlite import connection as sqlite_connection
from llmbridge_sqlite import rollups as sqlite_totals

PATCHES: dict[str, Callable[[], None]] = {}


def apply(name: str | None) -> None:
    """Give this process a defect."""
    if name is not None:
        PATCHES[name]()


@contextmanager
def applied(name: str) -> Iterator[None]:
    """Give this process a defect for a while."""
    places: list[Any] = [
        BatchWriter,
        SpoolReplay,
        Settlement,
        batch_writer,
        spool_file,
        sqlite_connection.Connection,
        postgres_calls,
    ]
    before = [dict(vars(place)) for place in places]
    apply(name)
    try:
        yield
    finally:
        for place, was in zip(places, before, strict=True):
            for attribute in vars(place).keys() - was.keys():
                delattr(place, attribute)
            for attribute, value in was.items():
                if vars(place)[attribute] is not value:
                    setattr(place, attribute, value)


def patch(function: Callable[[], None]) -> Callable[[], None]:
    PATCHES[function.__name__] = function
    return function


@patch
def acknowledge_before_commit() -> None:
    enqueue = BatchWriter._enqueue

    def at_once(self: BatchWriter, call: CallRecord, since: float | None) -> asyncio.Future[RecordStatus]:
        enqueue(self, call, since)
        told: asyncio.Future[RecordStatus] = asyncio.get_running_loop().create_future()
        told.set_result("committed")
        return told

    BatchWriter._enqueue = at_once  # type: ignore[method-assign]


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@patch
def killed_while_folding() -> None:
    """No defect, but the end that the next one would not survive."""
    _fold_in_halves(is_one_transaction=True)


@patch
def totals_outside_the_transaction() -> None:
    _fold_in_halves(is_one_transaction=False)


def _fold_in_halves(*, is_one_transaction: bool) -> None:
    """Folding dies between its halves: on SQLite the calls are in the totals and wait to be folded all the same, on
    PostgreSQL they are in neither."""
    fold = sqlite_totals.fold

    class Dying:
        """A connection on which folding ends before the mark of what is folded."""

        def __init__(self, connection: sqlite3.Connection) -> None:
            self._connection = connection

        def execute(self, statement: str, *parameters: Any) -> sqlite3.Cursor:
            if "SET folded" in statement:
                if not is_one_transaction:
                    self._connection.execute("COMMIT")
                _die()
            return self._connection.execute(statement, *parameters)

    def fold_and_die(connection: Any, least: int = 1) -> tuple[int, bool]:
        return fold(Dying(connection), least)  # type: ignore[arg-type]

    async def close_and_die(connection: Any, lots: Sequence[int]) -> None:
        if await connection.fetch(postgres_totals._CLOSE_LOTS, list(lots)):
            if not is_one_transaction:
                await connection.driver_connection.execute("COMMIT")
            _die()

    sqlite_totals.fold = fold_and_die
    postgres_totals.fold = close_and_die


@patch
def duplicate_counted() -> None:
    """Every batch is folded at once, by the ids of what was to be recorded."""
    record = sqlite_backend._record

    def record_and_fold(connection: Any, calls: Sequence[CallRecord], where: str) -> tuple[RecordResult, int]:
        result, _ = record(connection, calls, where)
        ids = ", ".join(f"X'{call.id.hex}'" for call in calls)
        first = f"SELECT MIN(number) FROM llmbridge_calls WHERE id IN ({ids})"
        connection.execute(f"UPDATE llmbridge_state SET folded = ({first}) - 1")
        sqlite_totals.fold_all(connection)
        return result, 0

    sqlite_backend._record = record_and_fold


@patch
def deferred_begin() -> None:
    execute = sqlite_connection.Connection.execute

    def deferred(self: Any, statement: Any, parameters: Any = (), /) -> Any:
        if statement != "BEGIN IMMEDIATE":
            return execute(self, statement, parameters)
        begun = execute(self, "BEGIN")
        execute(self, "SELECT COUNT(*) FROM llmbridge_calls").fetchall()
        return begun

    sqlite_connection.Connection.execute = deferred  # type: ignore[method-assign]


@patch
def synchronous_off_called_full() -> None:
    sqlite_backend._SYNCHRONOUS["full"] = "PRAGMA synchronous = OFF"


@patch
def spool_not_synced() -> None:
    prepare = spool_file._prepare

    def careless(file: sqlite3.Connection) -> None:
        prepare(file)
        file.execute("PRAGMA synchronous = OFF")

    spool_file._prepare = careless


@patch
def folders_not_synced() -> None:
    files._sync_folder = lambda folder: None


@patch
def unsorted_keys() -> None:
    postgres_calls.sorted = list  # type: ignore[attr-defined]


@patch
def no_migration_lock() -> None:
    from llmbridge_postgres import schema

    schema._TRY_LOCK = schema._TRY_LOCK.replace("pg_try_advisory_xact_lock", "num_nonnulls")


@patch
def dropped_future() -> None:
    settle = Settlement.settle

    def all_but_one(self: Settlement, pending: Sequence[PendingCall], outcome: RecordStatus) -> None:
        settle(self, pending[:-1] if len(pending) > 3 else pending, outcome)

    Settlement.settle = all_but_one  # type: ignore[method-assign]


@patch
def cancelled_caller_takes_others_along() -> None:
    enqueue = BatchWriter._enqueue

    def tied(self: BatchWriter, call: CallRecord, since: float | None) -> asyncio.Future[RecordStatus]:
        def take_along(future: asyncio.Future[RecordStatus]) -> None:
            if future.cancelled() and self._queue:
                self._queue.take(1)[0].settled.set_result("committed")

        settled = enqueue(self, call, since)
        settled.add_done_callback(take_along)
        return settled

    BatchWriter._enqueue = tied  # type: ignore[method-assign]


@patch
def poison_takes_its_batch_along() -> None:
    def all_of_it(part: Sequence[Any], named: Any, id_of: Any) -> tuple[list[Any], list[list[Any]]]:
        return list(part), []

    batch_writer.divide = all_of_it


@patch
def spool_not_replayed() -> None:
    SpoolReplay.begin = lambda self: None  # type: ignore[method-assign]


@patch
def removed_before_the_commit() -> None:
    move = SpoolReplay._move

    async def hastily(self: SpoolReplay, file: SpoolFile, found: Sequence[Any]) -> None:
        await self._on_thread(file.remove, [one.position for one in found])
        await move(self, file, found)

    SpoolReplay._move = hastily  # type: ignore[method-assign]


@patch
def sent_again_under_another_id() -> None:
    commit = BatchWriter._commit

    async def renamed(self: BatchWriter, part: list[PendingCall]) -> RecordResult:
        write = self._write
        tried = False

        async def write_again(calls: Sequence[CallRecord]) -> RecordResult:
            nonlocal tried
            if tried:
                calls = [call.model_copy(update={"id": uuid4()}) for call in calls]
            tried = True
            return await write(calls)

        self._write = write_again
        try:
            return await commit(self, part)
        finally:
            self._write = write

    BatchWriter._commit = renamed  # type: ignore[method-assign]


@patch
def left_in_memory_at_the_end() -> None:
    def tell(self: BatchWriter, error: BaseException) -> None:
        self._settlement.fail(self._unsettled(), StorageUnavailableError("the batch writer was stopped"))

    BatchWriter._on_stop = tell  # type: ignore[method-assign]
    Rescue._save_rest = lambda *_: None  # type: ignore[method-assign]
