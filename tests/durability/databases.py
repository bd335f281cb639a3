"""The databases that faults are injected into, and the checks after each fault."""

from __future__ import annotations

import asyncio
import gc
import os
import sqlite3
import threading
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

from llmbridge import LLMDatabase
from llmbridge._recording.spool import Spool
from llmbridge.schemas import CallRecord
from llmbridge.storage import CallQuery, StorageBackend, UsageQuery
from llmbridge.storage.reference import summarize
from llmbridge.testing.comparison import assert_same
from llmbridge_postgres import PostgreSQLBackend
from llmbridge_sqlite import SQLiteBackend

from ..support.postgres_server import Server
from .programs.calls import number_of, numbered
from .programs.stores import backend

#: Queries that read every rollup and the calls themselves.
QUERIES = (
    UsageQuery(),
    UsageQuery(group_by=("origin", "id_at_origin", "provider", "model_name", "status")),
    UsageQuery(filters={"id_at_origin": ("user-1",)}, group_by=("model_name",)),
)


#: Seconds in which anything happens that is to happen, on a busy machine too; after a few more the test run takes a
#: test for one that hangs.
LONG = 200


def spooled(spool: Spool) -> set[int]:
    """The numbers of the calls that wait in the folder of a spool."""
    files = [spool.find(file.name) for file in spool.files()]
    return {number_of(found.record.id) for file in files for found in file.oldest(10**6) if found.record is not None}


class DatabaseUnderTest:
    """One store and the spool beside it."""

    def __init__(self, url: str, home: Path) -> None:
        home.mkdir()
        self.threads = set(threading.enumerate())
        self.url = url
        self.home = home
        self.spool_dir = home / "spool"
        target = self.backend().target
        assert target is not None
        self.spool = Spool(target, self.spool_dir)

    def spooled(self) -> set[int]:
        """The numbers of the calls that wait on this machine, in whichever file."""
        return spooled(self.spool)

    def backend(self) -> SQLiteBackend | PostgreSQLBackend:
        return backend(self.url)

    def open(self, **options: Any) -> LLMDatabase:
        """Return the database as an application opens it."""
        return LLMDatabase(backend=self.backend(), **{"spool_dir": self.spool_dir, "record_timeout": LONG, **options})

    def check_integrity(self) -> None:
        """Check the database with its own tools."""

    def still_open(self) -> list[str]:
        """Return what this process has open of the database."""
        return []

    async def settle(self) -> None:
        """Wait until the database has ended the statements of processes that have ended."""


class SQLiteUnderTest(DatabaseUnderTest):
    def __init__(self, home: Path) -> None:
        self.path = home / "calls.db"
        super().__init__(f"sqlite:///{self.path}", home)

    def check_integrity(self) -> None:
        with closing(sqlite3.connect(self.path)) as file:
            assert file.execute("PRAGMA integrity_check").fetchall() == [("ok",)]

    def still_open(self) -> list[str]:
        opened = []
        for descriptor in os.listdir("/proc/self/fd"):
            try:
                opened.append(os.readlink(f"/proc/self/fd/{descriptor}"))
            except FileNotFoundError:
                continue
        return [file for file in opened if file.startswith(str(self.home))]


class PostgreSQLUnderTest(DatabaseUnderTest):
    """A new database of a server, which a proxy at another `port` may stand in front of."""

    def __init__(self, server: Server, database: str, home: Path, *, port: int | None = None) -> None:
        self._server = server
        self._database = database
        before = f"postgresql://postgres@127.0.0.1:{port}/{database}?sslmode=disable"
        super().__init__(server.database_url(database) if port is None else before, home)

    def check_integrity(self) -> None:
        """Check that the table and the index of the ids agree."""
        (row,) = self._server.run(
            "SELECT count(*) AS calls, count(DISTINCT id) AS ids FROM llmbridge.llmbridge_calls",
            database=self._database,
        )
        assert row["calls"] == row["ids"]

    def still_open(self) -> list[str]:
        return [f"connection {pid}" for pid in self._server.backends(self._database)]

    async def settle(self) -> None:
        """Wait for the server: it ends a statement, and may commit it, before it notices that the client has gone."""
        async with asyncio.timeout(LONG):
            while await asyncio.to_thread(self.still_open):
                await asyncio.sleep(0.01)


async def check(
    tested: DatabaseUnderTest,
    acknowledged: Iterable[int],
    attempted: Iterable[int] | None = None,
    *,
    set_aside: int = 0,
    timeout: float = LONG,
) -> set[int]:
    """Check what must be true after any fault. Return the numbers of the stored calls, once the spool is empty.

    Every acknowledged call is in the database or in the spool, unchanged and once. No other calls are stored than those
    `attempted` (None: any calls may be). As many are `set_aside` as could not be stored. The sums equal a scan, and the
    database is not damaged. Spooled calls are recorded at the next start, within
    `timeout` seconds, once they are adopted if they waited for a database that was not made yet. Nothing stays open.
    """
    acknowledged = set(acknowledged)
    await tested.settle()
    stored = await _stored(tested, attempted)
    spooled = tested.spooled()
    assert tested.spool.counts().set_aside == set_aside
    missing = acknowledged - stored - spooled
    assert not missing, f"{len(missing)} of {len(acknowledged)} acknowledged calls are gone: {sorted(missing)[:10]}"
    if spooled:
        async with tested.open() as db:
            status = await db.spool_status()
            if status is not None and status.to_adopt:  # they waited before there was a database
                await db.adopt_spool(tested.spool.path.name)
            async with asyncio.timeout(timeout):
                while tested.spool.counts().waiting:
                    await asyncio.sleep(0.01)
        stored = await _stored(tested, attempted)
        assert spooled <= stored, f"{len(spooled - stored)} calls were lost on their way from the spool"
    await _check_nothing_leaks(tested)
    return stored


async def _stored(tested: DatabaseUnderTest, attempted: Iterable[int] | None) -> set[int]:
    """The numbers of the calls in the store, which are as they were recorded, and whose sums equal a scan, before and
    after those that wait are folded."""
    backend = tested.backend()
    async with backend:
        await backend.apply_migrations()
        calls = await _every_call(backend)
        assert_same(calls, [numbered(number_of(call.id)) for call in calls])
        await _check_sums(backend, calls)
        await backend.fold_totals()
        await _check_sums(backend, calls)
    await asyncio.to_thread(tested.check_integrity)
    numbers = [number_of(call.id) for call in calls]
    assert len(numbers) == len(set(numbers)), "a call is there twice"
    if attempted is not None:
        assert set(numbers) <= set(attempted)
    return set(numbers)


async def _check_sums(backend: SQLiteBackend | PostgreSQLBackend, calls: list[CallRecord]) -> None:
    for question in QUERIES:
        assert_same(await backend.summarize_usage(question), summarize(calls, question))
    totals = await backend.check_totals()
    assert not totals.wrong, totals


async def _every_call(backend: StorageBackend) -> list[CallRecord]:
    calls: list[CallRecord] = []
    after = None
    while True:
        page = await backend.list_calls(CallQuery(limit=1000, after=after))
        calls += page.calls
        after = page.next
        if after is None:
            return calls


async def _check_nothing_leaks(tested: DatabaseUnderTest) -> None:
    """Check that no file, connection or thread is left open. Some end a moment after their user."""
    gc.collect()
    for _ in range(6000):
        threads = [thread.name for thread in set(threading.enumerate()) - tested.threads]
        left = [
            *await asyncio.to_thread(tested.still_open),
            *(name for name in threads if not name.startswith("asyncio_")),  # of the event loop's own
        ]
        if not left:
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"this is left open: {left}")
