"""Connections to SQLite, each on its own thread. No other module uses aiosqlite.

Each operation is one function that runs completely on the thread of its connection. So it costs one switch of threads,
a cancellation cannot interrupt it, and no transaction waits for the event loop. aiosqlite has no method that runs a
function. But its public argument `factory=` lets us use a connection class of our own, and its public method
`execute_fetchall` passes its argument to `execute` of that connection and returns the result of `fetchall`.

One switch takes about 50 microseconds, 30 of them on the event loop; with a `ThreadPoolExecutor` it is 80 and 55. The
protection against cancellation takes 30 more. A batch of 64 calls needs one switch, about a microsecond for each call.
The usual way of aiosqlite, one statement at a time, needs one switch for each statement.
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

#: Seconds that a statement waits for a lock, and that it pauses between two attempts.
BUSY_SECONDS = 30.0
_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.001, 0.05


class Cancellation:
    """Whether an operation is cancelled. Its thread and its caller share this object, so that either the thread starts
    the operation or the caller cancels it, never both."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._is_started = self._is_cancelled = False

    def start(self) -> None:
        """Start the operation, after which it cannot be cancelled any more.

        :raises _CancelledError: the caller has cancelled it
        """
        with self._lock:
            self.check()
            self._is_started = True

    def cancel(self) -> bool:
        """Cancel the operation, and return whether that came before its start."""
        with self._lock:
            self._is_cancelled = True
            return not self._is_started

    def check(self) -> None:
        """Check that the operation is not cancelled.

        :raises _CancelledError: it is
        """
        if self._is_cancelled:
            raise _CancelledError


class Connection(sqlite3.Connection):
    """A connection whose `execute` also takes a function, and calls it with the connection. If the function leaves a
    transaction open, that is rolled back.

    The connection waits for locks itself. SQLite's own waiting cannot be interrupted, so it would occupy the thread
    long after the caller was cancelled.
    """

    #: That of the running operation, as long as the operation has committed nothing.
    cancellation: Cancellation | None = None

    def execute(self, statement: Any, parameters: Any = (), /) -> Any:
        if isinstance(statement, str):
            return self._run(statement, parameters)
        try:
            return _Result(statement(self))
        finally:
            self.cancellation = None
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
                    self.cancellation = None
                return cursor
            if self.cancellation is not None:
                self.cancellation.check()
            time.sleep(random.uniform(pause / 2, pause))  # noqa: S311  spreads contenders, keeps no secret
            pause = min(2 * pause, _LONGEST_PAUSE)


class _Result:
    """A value in the form of a cursor, since aiosqlite calls `fetchall`."""

    def __init__(self, value: Any) -> None:
        self._value = value

    def fetchall(self) -> Any:
        return self._value


class ConnectionThread:
    """The thread of a connection. It runs one function at a time, in the order of the calls.

    When a cancelled caller gets its CancelledError, its function has run completely or will never run.
    """

    def __init__(self, database: aiosqlite.Connection, location: Location, opened: Sequence[files.Identity]) -> None:
        self._database = database
        self._location = location
        self._opened = opened
        #: The write-ahead log, as soon as it exists.
        self._log: files.Identity | None = None

    @classmethod
    async def open(cls, location: Location, mode: str, prepare: Callable[[Connection], None]) -> ConnectionThread:
        """Connect in SQLite's mode `rw`, which creates a missing file, or `ro`, and call `prepare` with the connection.
        If that fails, or the caller is cancelled, nothing stays open."""
        cancellation = Cancellation()
        faults: list[Exception] = []
        opened: list[files.Identity] = []
        threads: list[threading.Thread] = []
        made: list[Connection] = []

        def connect(*args: Any, **options: Any) -> Connection:
            """Connect, and keep errors in `faults`. If this function raised, aiosqlite's thread could outlive the event
            loop that it reports to."""
            threads.append(threading.current_thread())
            connection = None
            try:
                location.create()
                if location.path is not None:
                    opened.append(files.register(location.path))
                connection = Connection(*args, **(options | {"check_same_thread": False}))
                made.append(connection)
                connection.cancellation = cancellation
                prepare(connection)
                connection.cancellation = None
            except Exception as error:
                faults.append(error)
            if connection is None:
                made.append(connection := Connection(MEMORY, check_same_thread=False))
            return connection

        try:
            thread = cls(await _started(location.uri(mode), connect), location, opened)
        except asyncio.CancelledError:  # aiosqlite ends its thread but does not close the connection
            cancellation.cancel()
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
        cancellation = Cancellation()

        def snapshot(connection: Connection) -> T:
            cancellation.start()
            connection.execute("BEGIN")
            result = work(connection)
            connection.execute("COMMIT")
            return result

        return await self._hand_over(snapshot, cancellation, wait_if_started=False)

    async def write(self, work: Callable[[Connection], T]) -> T:
        """Run `work` in one transaction, which holds the write lock from its beginning. If the caller is cancelled
        before the transaction has the lock, nothing is written; if it is cancelled later, it waits for the end."""
        cancellation = Cancellation()

        def transaction(connection: Connection) -> T:
            cancellation.check()
            connection.execute("BEGIN IMMEDIATE")
            cancellation.start()
            self._check_files()
            result = work(connection)
            connection.execute("COMMIT")
            return result

        return await self._hand_over(transaction, cancellation, wait_if_started=True)

    async def run(self, work: Callable[[Connection], T]) -> T:
        """Run `work`, which begins and ends its own transactions. If the caller is cancelled before the start, or while
        `work` waits for its first lock, nothing is done; if it is cancelled later, it waits for the end."""
        cancellation = Cancellation()

        def started(connection: Connection) -> T:
            cancellation.start()
            return work(connection)

        return await self._hand_over(started, cancellation, wait_if_started=True)

    async def _hand_over(
        self, job: Callable[[Connection], T], cancellation: Cancellation, *, wait_if_started: bool
    ) -> T:
        """Run `job` on the thread and wait for it."""

        def cancellable(connection: Connection) -> T:
            connection.cancellation = cancellation
            return job(connection)

        call = asyncio.ensure_future(self._call(cancellable))
        try:
            return await asyncio.shield(call)
        except asyncio.CancelledError:
            if not cancellation.cancel() and wait_if_started:
                await ended(call)
            else:
                call.add_done_callback(_retrieve_exception)
            raise

    async def _call(self, job: Callable[[Connection], T]) -> T:
        try:
            return cast("T", await self._database.execute_fetchall(cast("str", job)))
        except (sqlite3.Error, OSError, OverflowError, UnicodeError) as error:
            raise translate(error, str(self._location)) from error

    def _check_files(self) -> None:
        """Check that neither the file nor its write-ahead log was deleted or replaced. A commit would succeed then, and
        its rows would be lost.

        :raises StorageRefusedError: one of them was
        """
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
        """Close the connection and end its thread, after the functions that were passed before."""
        try:
            await self._database.close()
        finally:
            _closed(self._opened)


def _closed(opened: Sequence[files.Identity]) -> None:
    for file in opened:
        files.unregister(file)


def _retrieve_exception(call: asyncio.Future[Any]) -> None:
    """Retrieve the exception of an operation whose caller was cancelled, so that asyncio does not log it."""
    if not call.cancelled():
        call.exception()


class _CancelledError(Exception):
    """The caller was cancelled before the operation did anything. No caller gets this exception."""


def switch_to_wal(connection: Connection) -> bool:
    """Switch the file to a write-ahead log, and return False if its file system does not support one."""
    (mode,) = connection.execute("PRAGMA journal_mode").fetchone()
    if mode not in ("wal", "memory"):
        (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
    return mode in ("wal", "memory")


async def _started(uri: str, factory: Callable[..., Connection]) -> aiosqlite.Connection:
    """Return an aiosqlite connection whose thread does not prevent the interpreter from exiting.

    aiosqlite's threads are not daemon threads, so a connection that is never closed would block the exit. A thread
    inherits this property from the thread that creates it; this works with every version of aiosqlite.
    """
    import aiosqlite

    made: list[aiosqlite.Connection] = []

    def make() -> None:
        made.append(aiosqlite.connect(uri, uri=True, timeout=0, isolation_level=None, factory=cast("Any", factory)))

    maker = threading.Thread(target=make, daemon=True)
    maker.start()
    maker.join()
    return await made[0]
