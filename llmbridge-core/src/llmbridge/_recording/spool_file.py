"""Durable on-disk queue in a SQLite file, for calls that could not be written to their database.

Every operation opens the file, commits and closes it again, so that a process that dies or forks leaves nothing open.
Operations block while the disk works: an event loop runs them on a thread.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self

from pydantic import ValidationError

from .._shared.files import check_private, exists, make_private_file
from .._shared.paths import SPOOL_VARIABLE
from ..errors import RecordRejectedError, StorageError, StorageUnavailableError
from ..schemas import CallRecord

#: Maximum size of a spool's file in bytes: about a million calls. A full spool refuses further calls.
MAX_BYTES = 1024 * 1024 * 1024

#: Run a blocking operation of a spool on a thread, and await its result.
OnThread = Callable[..., Awaitable[Any]]

#: Suffixes of a spool's files: the calls, and the file that a process locks to replay them.
_CALLS, _TURN = ".db", ".turn"
#: Matches the names of files of calls. The folder may hold files of others.
NAMES = "[0-9a-f]" * 32 + _CALLS
_PAGE_BYTES = 4096
#: The largest limit that every release of SQLite accepts. Changes of spooled calls must not fail because of MAX_BYTES.
_UNBOUNDED_PAGES = 1073741823
#: Seconds that an operation waits for those of other processes. A call that cannot be spooled is lost, so this outlasts
#: a queue of processes that all spool calls on a busy machine.
_LOCK_SECONDS = 10.0
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DAMAGED = (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT)
#: Version of the file format, stored in the file. A file of a newer release is not used.
_FORMAT = 2

#: The statements that lead from each version to the next one. `spooled_at` is in milliseconds since 1970. `databases`
#: are the places where the database of these calls was, with its identity (NULL: it was not known).
_UPGRADES = (
    (
        """
        CREATE TABLE calls (
            position INTEGER PRIMARY KEY AUTOINCREMENT,
            id TEXT NOT NULL UNIQUE,
            record TEXT NOT NULL,
            refused_because TEXT
        ) STRICT
        """,
    ),
    (
        "ALTER TABLE calls ADD COLUMN spooled_at INTEGER",
        """
        CREATE TABLE databases (
            number INTEGER PRIMARY KEY,
            target TEXT NOT NULL UNIQUE,
            identity TEXT
        ) STRICT
        """,
    ),
)
_NOTE_DATABASE = "INSERT INTO databases (target, identity) VALUES (?, ?) ON CONFLICT (target) DO NOTHING"
_FORGET_DATABASES = "DELETE FROM databases WHERE NOT EXISTS (SELECT 1 FROM calls)"
_DATABASES = "SELECT target, identity FROM databases ORDER BY number"
_PUT = "INSERT INTO calls (id, record, spooled_at) VALUES (?, ?, ?) ON CONFLICT (id) DO NOTHING"
_OLDEST = "SELECT position, record FROM calls WHERE refused_because IS NULL AND position > ? ORDER BY position LIMIT ?"
_REMOVE = "DELETE FROM calls WHERE position = ?"
_SET_ASIDE = "UPDATE calls SET refused_because = ? WHERE position = ?"
_RETRY = "UPDATE calls SET refused_because = NULL WHERE refused_because IS NOT NULL"
_COUNT = "SELECT COUNT(*), COUNT(refused_because) FROM calls"
#: Of a call of the first version of the file it is only known that it was spooled after it was made.
_FIRST_SPOOLED = """
SELECT MIN(coalesce(
    spooled_at,
    CASE WHEN json_valid(record) THEN 1000 * strftime('%s', json_extract(record, '$.called_at')) END,
    0
)) FROM calls
"""
_FIRST = "SELECT position FROM calls ORDER BY position LIMIT ?"
_COPY_FIRST = f"""
INSERT INTO other.calls (id, record, refused_because, spooled_at)
SELECT id, record, refused_because, spooled_at FROM calls WHERE position IN ({_FIRST}) ORDER BY position
ON CONFLICT (id) DO NOTHING
"""  # noqa: S608  statements of ours
_REMOVE_FIRST = f"DELETE FROM calls WHERE position IN ({_FIRST})"  # noqa: S608
_REFUSALS = """
SELECT refused_because, COUNT(*) FROM calls WHERE refused_because IS NOT NULL GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT ?
"""
#: These two also work on records that this release cannot read.
_COUNT_OF_USER = """
SELECT json_extract(record, '$.origin'), COUNT(*) FROM calls
WHERE CASE WHEN json_valid(record) THEN json_extract(record, '$.id_at_origin') = :user
    AND (:origin IS NULL OR json_extract(record, '$.origin') = :origin) END
GROUP BY 1 ORDER BY 1
"""
_FORGET = """
UPDATE calls SET record = json_set(record, '$.id_at_origin', NULL)
WHERE CASE WHEN json_valid(record) THEN json_extract(record, '$.id_at_origin') = :user
    AND (:origin IS NULL OR json_extract(record, '$.origin') = :origin) END
"""

#: Allows one operation of this process at a time, and no fork during one: SQLite keeps its locks per process, in memory
#: that a fork copies. Reentrant, because the finalizer of a batch writer may spool its calls during another operation.
_one_at_a_time = threading.RLock()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_one_at_a_time.acquire,
        after_in_parent=_one_at_a_time.release,
        after_in_child=_one_at_a_time.release,
    )

#: Held turns, each with the process that took it. A forked child inherits the connection without its lock, and SQLite
#: would take it for locked.
_turns: dict[sqlite3.Connection, int] = {}


@dataclass(frozen=True, slots=True)
class Spooled:
    """One spooled call. If this release cannot read it, `record` is None and `problem` says why."""

    position: int
    record: CallRecord | None
    problem: str | None = None


class SpoolFile:
    """File of the calls that wait for one database.

    All processes of the user that use the database share the file. Each may add calls; the one that holds the `turn`
    replays the oldest. A call stays until `remove`. Of several calls with one id the first one stays.

    :param folder: the folder of the file; None: there is none
    :param target: the place of the database
    :param identity: the identity of the database; None: it has none, or none is known
    """

    def __init__(self, folder: Path | None, target: str, identity: str | None = None) -> None:
        self.name = f"{hashlib.sha256((identity or target).encode()).hexdigest()[:32]}{_CALLS}"
        self.identity = identity
        self._folder = folder
        self._target = target

    @classmethod
    def named(cls, folder: Path, name: str) -> Self:
        """Return the file of that name, of any database. No call can be added to it."""
        file = cls(folder, "")
        file.name = name
        return file

    @property
    def path(self) -> Path:
        """The path of the file, which need not exist.

        :raises StorageUnavailableError: there is no directory for it
        """
        if self._folder is None:
            raise StorageUnavailableError(
                "calls cannot be spooled: the user's home directory cannot be determined; set a directory with "
                f"spool_dir= or {SPOOL_VARIABLE}"
            )
        return self._folder / self.name

    @property
    def has_place(self) -> bool:
        """Whether the directory of the file is known; it need not be writable."""
        return self._folder is not None

    def is_there(self) -> bool:
        """Return whether the file exists, that is, whether a call was ever spooled."""
        return self._folder is not None and os.path.exists(self._folder / self.name)

    def check(self) -> None:
        """Check that calls could be spooled. Create nothing.

        :raises StorageUnavailableError: the file or its directory is not writable
        """
        if self.is_there():
            with self._opened() as file:
                file.execute("BEGIN IMMEDIATE")
                file.execute("ROLLBACK")
            return
        with self._translated():
            check_private(self.path)
            nearest = next((folder for folder in self.path.parents if exists(folder)), self.path.parent)
        if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
            raise StorageUnavailableError(
                f"calls cannot be spooled in {self.path.parent}: {nearest} is not a directory that this process may "
                f"write; set another one with spool_dir= or {SPOOL_VARIABLE}"
            )

    def put(self, calls: Sequence[CallRecord]) -> None:
        """Add calls, all or none. They are on disk when this returns.

        :raises RecordRejectedError: some cannot be written as JSON; it names them
        :raises StorageUnavailableError: the file cannot be written, or is full
        """
        rows, unwritable, now = [], [], time.time_ns() // 1_000_000
        for call in calls:
            try:
                rows.append((str(call.id), call.model_dump_json(), now))
            except Exception:  # whatever a value raises concerns its call alone
                unwritable.append(call.id)
        if unwritable:
            raise RecordRejectedError(f"{len(unwritable)} calls cannot be written as JSON", ids=tuple(unwritable))
        with self._opened(create=True) as file:
            file.execute("BEGIN IMMEDIATE")
            file.execute(_NOTE_DATABASE, (self._target, self.identity))
            file.executemany(_PUT, rows)
            file.execute("COMMIT")

    def oldest(self, limit: int, after: int = 0) -> list[Spooled]:
        """Return at most `limit` waiting calls, oldest first, after the position `after`."""
        if not self.is_there():
            return []
        with self._opened() as file:
            return [_read(position, text) for position, text in file.execute(_OLDEST, (after, limit))]

    def remove(self, positions: Sequence[int]) -> None:
        """Remove calls that are stored."""
        self._change(_REMOVE, [(position,) for position in positions])

    def set_aside(self, reasons: dict[int, str]) -> None:
        """Set aside calls that the database rejected. `oldest` no longer returns them.

        :param reasons: why, by position
        """
        self._change(_SET_ASIDE, [(reason, position) for position, reason in reasons.items()])

    def retry(self) -> int:
        """Let all calls that were set aside wait again, and return their number."""
        return self._change(_RETRY, [()]) if self.is_there() else 0

    def refusals(self, limit: int) -> dict[str, int]:
        """Return at most `limit` reasons why calls were set aside, with their numbers, the most frequent first."""
        if not self.is_there():
            return {}
        with self._opened() as file:
            return dict(file.execute(_REFUSALS, (limit,)).fetchall())

    def calls_of(self, id_at_origin: str, origin: str | None = None) -> dict[str, int]:
        """Return the number of spooled calls of a user by origin, including those set aside. `origin` None: any."""
        if not self.is_there():
            return {}
        with self._opened() as file:
            return dict(file.execute(_COUNT_OF_USER, {"user": id_at_origin, "origin": origin}).fetchall())

    def forget(self, id_at_origin: str, origin: str | None = None) -> None:
        """Remove the name of a user from the calls of an origin (None: any).

        Calls that are being replayed now keep the name, unless the caller holds the `turn`.
        """
        if self.is_there():
            self._change(_FORGET, [{"user": id_at_origin, "origin": origin}])

    def counts(self) -> tuple[int, int]:
        """Return the numbers of waiting calls and of those set aside."""
        if not self.is_there():
            return 0, 0
        with self._opened() as file:
            total, refused = file.execute(_COUNT).fetchone()
        return total - refused, refused

    def first_spooled_at(self) -> datetime | None:
        """Return when the first of the calls was spooled, to the millisecond (UTC); None: there are no calls."""
        if not self.is_there():
            return None
        with self._opened() as file:
            (first,) = file.execute(_FIRST_SPOOLED).fetchone()
        return None if first is None else _EPOCH + timedelta(milliseconds=first)

    def databases(self) -> dict[str, str | None]:
        """Return the targets where the database of these calls was seen, the latest last, with its identity."""
        if not self.is_there():
            return {}
        with self._opened() as file:
            return dict(file.execute(_DATABASES).fetchall())

    def move(self, other: SpoolFile, limit: int) -> int:
        """Move at most `limit` calls to another file, oldest first, and return how many. At any time each is in one of
        the two."""
        with other._opened(create=True) as file:
            file.execute(_NOTE_DATABASE, (other._target, other.identity))
        with self._opened() as file:
            file.execute("ATTACH ? AS other", (str(other.path),))
            file.execute("PRAGMA other.synchronous = FULL")
            file.execute("PRAGMA other.journal_mode = TRUNCATE")
            return self._take_first(file, limit, into_other=True)

    def discard(self, limit: int) -> int:
        """Delete at most `limit` calls, oldest first, and return how many. A file without calls then forgets which
        databases it was for."""
        with self._opened() as file:
            discarded = self._take_first(file, limit, into_other=False)
            if not discarded:
                file.execute(_FORGET_DATABASES)
        return discarded

    def _take_first(self, file: sqlite3.Connection, limit: int, *, into_other: bool) -> int:
        file.execute(f"PRAGMA max_page_count = {_UNBOUNDED_PAGES}")
        file.execute("BEGIN IMMEDIATE")
        if into_other:
            file.execute(_COPY_FIRST, (limit,))
        taken = file.execute(_REMOVE_FIRST, (limit,)).rowcount
        file.execute("COMMIT")
        return taken

    @contextmanager
    def turn(self) -> Iterator[bool]:
        """Yield whether this caller may replay calls. If so, nobody else may until the context or the process ends."""
        lock = None
        try:
            with _one_at_a_time, self._translated(_TURN):
                _close_inherited_turns()
                path = self.path.with_suffix(_TURN)
                check_private(path)
                make_private_file(path)
                lock = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)
                try:
                    lock.execute("BEGIN EXCLUSIVE")
                    _turns[lock] = os.getpid()
                except sqlite3.OperationalError as error:
                    if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                        raise
                    lock.close()
                    lock = None
            yield lock is not None
        finally:
            if lock is not None:
                with _one_at_a_time:
                    _turns.pop(lock, None)
                    lock.close()

    def _change(self, statement: str, rows: Sequence[tuple[Any, ...] | Mapping[str, Any]]) -> int:
        """Run a statement for each row in one transaction, and return how many calls were changed."""
        with self._opened() as file:
            file.execute(f"PRAGMA max_page_count = {_UNBOUNDED_PAGES}")
            file.execute("BEGIN IMMEDIATE")
            changed = file.executemany(statement, rows).rowcount
            file.execute("COMMIT")
        return changed

    @contextmanager
    def _opened(self, *, create: bool = False) -> Iterator[sqlite3.Connection]:
        with _one_at_a_time, self._translated():
            check_private(self.path)
            if create:
                make_private_file(self.path)
            uri = f"{self.path.as_uri()}?mode=rw"
            with closing(sqlite3.connect(uri, uri=True, timeout=_LOCK_SECONDS, isolation_level=None)) as file:
                _prepare(file)
                yield file

    @contextmanager
    def _translated(self, suffix: str = _CALLS) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError, sqlite3.Error) as error:  # ValueError: not a possible name of a file
            reason = error.strerror if isinstance(error, OSError) else str(error)
            if getattr(error, "sqlite_errorcode", 0) & 0xFF in _DAMAGED:
                reason = f"{reason}; the file is damaged: move it away, and calls can be spooled again"
            path = self.path.with_suffix(suffix)
            raise StorageUnavailableError(f"calls cannot be spooled in {path}: {reason}") from error


def _close_inherited_turns() -> None:
    for lock, process in list(_turns.items()):
        if process != os.getpid():
            del _turns[lock]
            lock.close()


def _prepare(file: sqlite3.Connection) -> None:
    file.execute("PRAGMA synchronous = FULL")
    file.execute("PRAGMA journal_mode = TRUNCATE")
    (version,) = file.execute("PRAGMA user_version").fetchone()
    if version > _FORMAT:
        raise sqlite3.DatabaseError("a newer release of llmbridge wrote the file: upgrade to use it")
    if version < _FORMAT:
        file.execute("PRAGMA auto_vacuum = FULL")  # an emptied file frees its space on disk
        file.execute("BEGIN IMMEDIATE")
        (version,) = file.execute("PRAGMA user_version").fetchone()  # again: another process may have upgraded it
        for statements in _UPGRADES[version:]:
            for statement in statements:
                file.execute(statement)
        file.execute(f"PRAGMA user_version = {_FORMAT}")
        file.execute("COMMIT")
    file.execute(f"PRAGMA max_page_count = {MAX_BYTES // _PAGE_BYTES}")


def _read(position: int, text: str) -> Spooled:
    try:
        fields = json.loads(text)
        unknown = sorted(fields.keys() - CallRecord.model_fields.keys())
        if unknown:
            raise StorageError(f"the record has fields of a newer release: {', '.join(unknown)}")
        return Spooled(position, _in_utc(CallRecord(**fields)))
    except (ValidationError, StorageError, TypeError, ValueError, AttributeError, RecursionError) as error:
        problem = str(error) if isinstance(error, StorageError) else type(error).__name__
        return Spooled(position, None, problem)


def _in_utc(call: CallRecord) -> CallRecord:
    """Return the record with its times in Python's UTC object instead of pydantic's."""
    times = {name: getattr(call, name) for name in ("called_at", "repriced_at")}
    return call.model_copy(update={name: at.astimezone(UTC) for name, at in times.items() if isinstance(at, datetime)})
