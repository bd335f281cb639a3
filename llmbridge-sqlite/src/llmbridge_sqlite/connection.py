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
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, cast

from llmbridge.storage import StorageRefusedError
from llmbridge.storage.tasks import ended

from . import files
from .faults import primary_code, translate
from .location import MEMORY, Location

if TYPE_CHECKING:
    import aiosqlite

T = TypeVar("T")

#: How long a statement waits for a lock, and how long opening repeats what does not wait by itself.
BUSY_SECONDS = 30.0


class Session(sqlite3.Connection):
    """A connection whose `execute` takes a function as well: it runs with the connection and leaves no transaction
    open, however it ends."""

    def execute(self, statement: Any, parameters: Any = (), /) -> Any:
        if isinstance(statement, str):
            return super().execute(statement, parameters)
        try:
            return _Answer(statement(self))
        finally:
            if self.in_transaction:
                self.rollback()


class _Answer:
    def __init__(self, value: Any) -> None:
        self._value = value

    def fetchall(self) -> Any:
        return self._value


class Channel:
    """A connection on its thread, which runs one function at a time, in the order in which they came.

    When a cancelled caller gets its CancelledError, its function has run wholly or will never run.
    """

    def __init__(self, database: aiosqlite.Connection, location: Location, opened: Sequence[files.Identity]) -> None:
        self._database = database
        self._location = location
        self._opened = opened

    @classmethod
    async def open(cls, location: Location, mode: str, prepare: Callable[[Session], None]) -> Channel:
        """Connect in SQLite's mode `rw`, which makes a file that is missing, or `ro`; then `prepare` the connection.
        When that fails nothing stays open."""

        faults: list[Exception] = []
        opened: list[files.Identity] = []

        def connect(*args: Any, **options: Any) -> Session:
            """Never fails, since aiosqlite's thread could then outlive the loop to which it reports its end."""
            session = None
            try:
                location.create()
                if location.path is not None:
                    opened.append(files.opening(location.path))
                session = Session(*args, **options)
                _patiently(partial(prepare, session))
            except Exception as error:
                faults.append(error)
            return session or Session(MEMORY)

        channel = cls(await _unstarted(location.uri(mode), connect), location, opened)
        for fault in faults:
            await channel.close()
            if isinstance(fault, sqlite3.Error | OSError):
                raise translate(fault, str(location)) from fault
            raise fault
        return channel

    async def read(self, work: Callable[[Session], T]) -> T:
        """Run `work` in one snapshot of the database, which has everything that was committed before this call."""
        claim = threading.Lock()

        def snapshot(session: Session) -> T:
            _go_on(claim)
            session.execute("BEGIN")
            result = work(session)
            session.execute("COMMIT")
            return result

        return await self._hand_over(snapshot, claim, settles=False)

    async def write(self, work: Callable[[Session], T]) -> T:
        """Run `work` in one transaction, which holds the lock for writing from its beginning. A caller cancelled
        before it has the lock has written nothing; one cancelled later is held until it is decided."""
        claim = threading.Lock()

        def transaction(session: Session) -> T:
            session.execute("BEGIN IMMEDIATE")
            _go_on(claim)
            self._check_place()
            result = work(session)
            session.execute("COMMIT")
            return result

        return await self._hand_over(transaction, claim, settles=True)

    async def run(self, work: Callable[[Session], T]) -> T:
        """Run `work`, which begins and ends its own transactions. A caller cancelled before it has begun has done
        nothing; one cancelled later is held until it has ended."""
        claim = threading.Lock()

        def begun(session: Session) -> T:
            _go_on(claim)
            return work(session)

        return await self._hand_over(begun, claim, settles=True)

    async def _hand_over(self, job: Callable[[Session], T], claim: threading.Lock, *, settles: bool) -> T:
        """Wait for `job` on its thread. Whoever takes `claim` first decides: the thread, that the job goes on, or a
        cancelled caller, that it does not."""
        call = asyncio.ensure_future(self._call(job))
        try:
            return await asyncio.shield(call)
        except asyncio.CancelledError:
            if not claim.acquire(blocking=False) and settles:
                await ended(call)
            else:
                call.add_done_callback(_take_note)
            raise

    async def _call(self, job: Callable[[Session], T]) -> T:
        try:
            return cast("T", await self._database.execute_fetchall(cast("str", job)))
        except (sqlite3.Error, OSError, OverflowError, UnicodeError) as error:
            raise translate(error, str(self._location)) from error

    def _check_place(self) -> None:
        """Refuse to write into a file that was deleted or replaced: the commit would succeed, and be gone."""
        path = self._location.path
        if path is not None and not all(files.is_in_place(file, path) for file in self._opened):
            raise StorageRefusedError(
                f"the SQLite database {path} was deleted or replaced while it was open; close the books and open them "
                "again"
            )

    async def close(self) -> None:
        """Close the connection and end its thread, after the jobs that were handed over before."""
        try:
            await self._database.close()
        finally:
            for file in self._opened:
                files.closed(file)


def _take_note(call: asyncio.Future[Any]) -> None:
    """Its caller has left, and nobody else is told how it ended."""
    if not call.cancelled():
        call.exception()


class _AbandonedError(Exception):
    """The caller was cancelled before the job began; nobody waits for this."""


def _go_on(claim: threading.Lock) -> None:
    if not claim.acquire(blocking=False):
        raise _AbandonedError


def switch_to_wal(session: Session) -> bool:
    """Make the file's journal a write-ahead log; False where its file system cannot have one. SQLite does not wait
    for locks here, so this belongs into `prepare`, which is repeated."""
    (mode,) = session.execute("PRAGMA journal_mode").fetchone()
    if mode not in ("wal", "memory"):
        (mode,) = session.execute("PRAGMA journal_mode = WAL").fetchone()
    return mode in ("wal", "memory")


def _unstarted(uri: str, factory: Callable[..., Session]) -> aiosqlite.Connection:
    """An aiosqlite connection whose thread does not keep the interpreter from exiting.

    aiosqlite's threads are no daemons, so one connection never closed would hang the exit for ever. A thread
    inherits this from the thread that makes it, which works on every aiosqlite without touching its insides.
    """
    import aiosqlite

    made: list[aiosqlite.Connection] = []

    def make() -> None:
        made.append(
            aiosqlite.connect(uri, uri=True, timeout=BUSY_SECONDS, isolation_level=None, factory=cast("Any", factory))
        )

    maker = threading.Thread(target=make, daemon=True)
    maker.start()
    maker.join()
    return made[0]


def _patiently(step: Callable[[], None]) -> None:
    deadline = time.monotonic() + BUSY_SECONDS
    for pause in _pauses():
        try:
            return step()
        except sqlite3.OperationalError as error:
            if primary_code(error) != sqlite3.SQLITE_BUSY or time.monotonic() + pause > deadline:
                raise
        time.sleep(pause)
    return None


def _pauses() -> Iterable[float]:
    longest = 0.01
    while True:
        yield random.uniform(longest / 2, longest)  # noqa: S311  spreads contenders, keeps no secret
        longest = min(longest * 2, 0.5)
