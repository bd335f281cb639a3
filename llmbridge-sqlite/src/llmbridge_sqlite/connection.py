"""Connections to SQLite, each on a thread of its own; the only module that knows aiosqlite.

Whatever a connection does for a call is one function, which runs wholly on its thread: one hop, nothing in between
that a cancellation could cut, and no transaction that waits for the event loop. aiosqlite has no method that runs a
function, but its public `factory=` makes the connection ours, and its public `execute_fetchall` hands what it is
given to that connection's `execute` and returns what `fetchall` gives.

One such hop takes some 50 microseconds, 30 of them on the event loop, where one through a `ThreadPoolExecutor` takes 80
and 55; what keeps a cancelled caller from cutting it takes 30 more. A batch of 64 calls shares one, at about a
microsecond a call. Statement by statement, as aiosqlite is mostly used, each of them would take a hop.
"""

from __future__ import annotations

import asyncio
import random
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar, cast

from llmbridge.storage import StorageRefusedError
from llmbridge.storage.toolkit.shielded import ended

from . import files
from .errors import primary_code, translate
from .path import MEMORY, Location

if TYPE_CHECKING:
    import aiosqlite

T = TypeVar("T")

#: How long a statement waits for a lock, and how long it pauses between two looks at it.
BUSY_SECONDS = 30.0
_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.001, 0.05


class Claim:
    """Who decides about a job: its thread, that it goes on, or a cancelled caller, that it does not."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._is_taken = self._is_left = False

    def take(self) -> None:
        """The job goes on, unless its caller has left."""
        with self._lock:
            self.look()
            self._is_taken = True

    def leave(self) -> bool:
        """The caller leaves; whether he leaves a job that will never go on."""
        with self._lock:
            self._is_left = True
            return not self._is_taken

    def look(self) -> None:
        """End a job that has done nothing yet, if its caller has left."""
        if self._is_left:
            raise _AbandonedError


class Connection(sqlite3.Connection):
    """A connection whose `execute` takes a function as well: it runs with the connection and leaves no transaction
    open, however it ends.

    It waits for locks by itself. Nothing can end SQLite's own waiting, which would keep the thread busy long after the
    caller has left.
    """

    #: Of the job that runs, as long as it has committed nothing.
    claim: Claim | None = None

    def execute(self, statement: Any, parameters: Any = (), /) -> Any:
        if isinstance(statement, str):
            return self._run(statement, parameters)
        try:
            return _Answer(statement(self))
        finally:
            self.claim = None
            if self.in_transaction:
                self.rollback()

    def _run(self, statement: str, parameters: Any) -> sqlite3.Cursor:
        deadline, pause = None, _SHORTEST_PAUSE
        while True:
            try:
                cursor = super().execute(statement, parameters)
            except sqlite3.OperationalError as error:
                deadline = deadline or time.monotonic() + BUSY_SECONDS
                if primary_code(error) != sqlite3.SQLITE_BUSY or time.monotonic() + pause > deadline:
                    raise
            else:
                if statement == "COMMIT":
                    self.claim = None
                return cursor
            if self.claim is not None:
                self.claim.look()
            time.sleep(random.uniform(pause / 2, pause))  # noqa: S311  spreads contenders, keeps no secret
            pause = min(2 * pause, _LONGEST_PAUSE)


class _Answer:
    def __init__(self, value: Any) -> None:
        self._value = value

    def fetchall(self) -> Any:
        return self._value


class ConnectionThread:
    """A connection on its thread, which runs one function at a time, in the order in which they came.

    When a cancelled caller gets its CancelledError, its function has run wholly or will never run.
    """

    def __init__(self, database: aiosqlite.Connection, location: Location, opened: Sequence[files.Identity]) -> None:
        self._database = database
        self._location = location
        self._opened = opened
        #: The write-ahead log, once it is there.
        self._log: files.Identity | None = None

    @classmethod
    async def open(cls, location: Location, mode: str, prepare: Callable[[Connection], None]) -> ConnectionThread:
        """Connect in SQLite's mode `rw`, which makes a file that is missing, or `ro`; then `prepare` the connection.
        When that fails, or the caller is cancelled, nothing stays open."""
        claim = Claim()
        faults: list[Exception] = []
        opened: list[files.Identity] = []
        threads: list[threading.Thread] = []
        made: list[Connection] = []

        def connect(*args: Any, **options: Any) -> Connection:
            """Never fails, since aiosqlite's thread could then outlive the loop to which it reports its end."""
            threads.append(threading.current_thread())
            connection = None
            try:
                location.create()
                if location.path is not None:
                    opened.append(files.opening(location.path))
                connection = Connection(*args, **(options | {"check_same_thread": False}))
                made.append(connection)
                connection.claim = claim
                prepare(connection)
                connection.claim = None
            except Exception as error:
                faults.append(error)
            if connection is None:
                made.append(connection := Connection(MEMORY, check_same_thread=False))
            return connection

        try:
            thread = cls(await _started(location.uri(mode), connect), location, opened)
        except asyncio.CancelledError:  # aiosqlite ends its thread, and leaves the connection to us
            claim.leave()
            while not threads or threads[0].is_alive():
                with suppress(asyncio.CancelledError):
                    await asyncio.sleep(_SHORTEST_PAUSE)
            for connection in made:
                connection.close()
            _closed(opened)
            raise
        for fault in faults:
            await thread.close()
            if isinstance(fault, sqlite3.Error | OSError):
                raise translate(fault, str(location)) from fault
            raise fault
        return thread

    async def read(self, work: Callable[[Connection], T]) -> T:
        """Run `work` in one snapshot of the database, which has everything that was committed before this call."""
        claim = Claim()

        def snapshot(connection: Connection) -> T:
            claim.take()
            connection.execute("BEGIN")
            result = work(connection)
            connection.execute("COMMIT")
            return result

        return await self._hand_over(snapshot, claim, settles=False)

    async def write(self, work: Callable[[Connection], T]) -> T:
        """Run `work` in one transaction, which holds the lock for writing from its beginning. A caller cancelled
        before it has the lock has written nothing; one cancelled later is held until it is decided."""
        claim = Claim()

        def transaction(connection: Connection) -> T:
            claim.look()
            connection.execute("BEGIN IMMEDIATE")
            claim.take()
            self._check_place()
            result = work(connection)
            connection.execute("COMMIT")
            return result

        return await self._hand_over(transaction, claim, settles=True)

    async def run(self, work: Callable[[Connection], T]) -> T:
        """Run `work`, which begins and ends its own transactions. A caller cancelled before it has begun, or while it
        waits for its first lock, has done nothing; one cancelled later is held until it has ended."""
        claim = Claim()

        def begun(connection: Connection) -> T:
            claim.take()
            return work(connection)

        return await self._hand_over(begun, claim, settles=True)

    async def _hand_over(self, job: Callable[[Connection], T], claim: Claim, *, settles: bool) -> T:
        """Wait for `job` on its thread."""

        def claimed(connection: Connection) -> T:
            connection.claim = claim
            return job(connection)

        call = asyncio.ensure_future(self._call(claimed))
        try:
            return await asyncio.shield(call)
        except asyncio.CancelledError:
            if not claim.leave() and settles:
                await ended(call)
            else:
                call.add_done_callback(_take_note)
            raise

    async def _call(self, job: Callable[[Connection], T]) -> T:
        try:
            return cast("T", await self._database.execute_fetchall(cast("str", job)))
        except (sqlite3.Error, OSError, OverflowError, UnicodeError) as error:
            raise translate(error, str(self._location)) from error

    def _check_place(self) -> None:
        """Refuse to write into a file that was deleted or replaced, or without its log: the commit would succeed, and
        be gone."""
        path = self._location.path
        if path is None:
            return
        name, log = str(path), files.identity_of(f"{path}-wal")
        is_in_place = all(files.identity_of(path) == file for file in self._opened)
        if is_in_place and self._log is not None and log != self._log:
            name, is_in_place = f"{path}-wal", False
        if not is_in_place:
            raise StorageRefusedError(
                f"{name} was deleted or replaced while the SQLite database was open; close the database and open it "
                "again"
            )
        self._log = log

    async def close(self) -> None:
        """Close the connection and end its thread, after the jobs that were handed over before."""
        try:
            await self._database.close()
        finally:
            _closed(self._opened)


def _closed(opened: Sequence[files.Identity]) -> None:
    for file in opened:
        files.closed(file)


def _take_note(call: asyncio.Future[Any]) -> None:
    """Its caller has left, and nobody else is told how it ended."""
    if not call.cancelled():
        call.exception()


class _AbandonedError(Exception):
    """The caller was cancelled before the job did anything; nobody waits for this."""


def switch_to_wal(connection: Connection) -> bool:
    """Make the file's journal a write-ahead log; False where its file system cannot have one."""
    (mode,) = connection.execute("PRAGMA journal_mode").fetchone()
    if mode not in ("wal", "memory"):
        (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
    return mode in ("wal", "memory")


async def _started(uri: str, factory: Callable[..., Connection]) -> aiosqlite.Connection:
    """An aiosqlite connection whose thread does not keep the interpreter from exiting.

    aiosqlite's threads are no daemons, so one connection never closed would hang the exit for ever. A thread
    inherits this from the thread that makes it, which works on every aiosqlite without touching its insides.
    """
    import aiosqlite

    made: list[aiosqlite.Connection] = []

    def make() -> None:
        made.append(aiosqlite.connect(uri, uri=True, timeout=0, isolation_level=None, factory=cast("Any", factory)))

    maker = threading.Thread(target=make, daemon=True)
    maker.start()
    maker.join()
    return await made[0]
