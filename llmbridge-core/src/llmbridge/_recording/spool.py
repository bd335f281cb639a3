"""Where records wait while the database is away: one SQLite file per store, of core's own.

Every operation opens the file, commits and closes it again, so that nothing is left open by a process that dies or
forks. They block for as long as the disk takes: an event loop runs them on a thread.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from .._shared.files import exists, make_private_file
from ..errors import StorageError, StorageUnavailableError
from ..schemas import CallRecord

#: The largest that a spool's file grows, in bytes: about a million calls. What comes then is refused.
MAX_BYTES = 1024 * 1024 * 1024

VARIABLE = "LLMBRIDGE_SPOOL_DIR"

#: What the names of a spool's files end with: that of the calls, and that which is locked by whoever moves them.
_CALLS, _TURN = ".db", ".turn"
_PAGE_BYTES = 4096
#: As many as every release of SQLite can count: what changes a call that is here must not fail because of the bound.
_UNBOUNDED_PAGES = 1073741823
#: Seconds that an operation waits for those of other processes. A call that cannot be spooled is lost, so this outlasts
#: a queue of processes that all spool calls on a busy machine.
_LOCK_SECONDS = 10.0
_DAMAGED = (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT)
#: The file's own version mark. A file of a newer release is left alone.
_FORMAT = 1

_CREATE = """
CREATE TABLE IF NOT EXISTS calls (
    position INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    record TEXT NOT NULL,
    refused_because TEXT
) STRICT
"""
_PUT = "INSERT INTO calls (id, record) VALUES (?, ?) ON CONFLICT (id) DO NOTHING"
_OLDEST = "SELECT position, record FROM calls WHERE refused_because IS NULL AND position > ? ORDER BY position LIMIT ?"
_REMOVE = "DELETE FROM calls WHERE position = ?"
_SET_ASIDE = "UPDATE calls SET refused_because = ? WHERE position = ?"
_RETRY = "UPDATE calls SET refused_because = NULL WHERE refused_because IS NOT NULL"
_COUNT = "SELECT COUNT(*), COUNT(refused_because) FROM calls"
_REFUSALS = """
SELECT refused_because, COUNT(*) FROM calls WHERE refused_because IS NOT NULL GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT ?
"""
#: Also in records that this release cannot read.
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

#: No two operations of one process at a time, and no fork during one: SQLite keeps its locks per process, in memory
#: that a fork copies. Reentrant, since a collected recorder may put its calls while another one's are being read.
_one_at_a_time = threading.RLock()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_one_at_a_time.acquire,
        after_in_parent=_one_at_a_time.release,
        after_in_child=_one_at_a_time.release,
    )

#: The turns that are held, each with the process that took it. A forked child inherits one as a connection that has no
#: lock and lets SQLite believe in it.
_turns: dict[sqlite3.Connection, int] = {}


@dataclass(frozen=True, slots=True)
class Spooled:
    """One call that waits; `record` is None where this release cannot read it, and `problem` says why."""

    position: int
    record: CallRecord | None
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class SpoolCounts:
    """How many calls wait, and how many were set aside because the store refused them."""

    waiting: int = 0
    set_aside: int = 0


def state_directory() -> Path:
    """Where the state of this user's programs lies: `$XDG_STATE_HOME` or `~/.local/state`, on macOS
    `~/Library/Application Support`, on Windows `%LOCALAPPDATA%`.

    :raises RuntimeError: the user has no home
    """
    if sys.platform == "win32":
        local = os.environ.get("LOCALAPPDATA")
        return Path(local) if local else Path.home() / "AppData" / "Local"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support"
    given = os.environ.get("XDG_STATE_HOME", "")
    return Path(given) if os.path.isabs(given) else Path.home() / ".local" / "state"  # as the XDG specification says


def spool_directory(spool_dir: str | os.PathLike[str] | None = None) -> Path:
    """The folder of the spools: `spool_dir`, else `$LLMBRIDGE_SPOOL_DIR`, else `llmbridge` in the state directory.

    :raises RuntimeError: the user has no home
    """
    given = spool_dir if spool_dir is not None else os.environ.get(VARIABLE)
    return Path(os.path.abspath(Path(given).expanduser())) if given else state_directory() / "llmbridge" / "spool"


class Spool:
    """The calls that wait for one store.

    The file and what is in it belong to every process that uses the store: each may add, and one at a time, whoever
    has the `turn`, moves the oldest into the store. A call stays until `remove`; of one id the first stays.
    """

    def __init__(self, target: str, spool_dir: str | os.PathLike[str] | None = None) -> None:
        self._name = f"{hashlib.sha256(target.encode()).hexdigest()[:32]}{_CALLS}"
        try:
            self._folder: Path | None = spool_directory(spool_dir)
        except RuntimeError:
            self._folder = None

    @property
    def path(self) -> Path:
        """The file, whether or not it is there.

        :raises StorageUnavailableError: there is no place for it
        """
        if self._folder is None:
            raise StorageUnavailableError(
                f"calls cannot wait anywhere: this user has no home; give a folder with spool_dir= or {VARIABLE}"
            )
        return self._folder / self._name

    @property
    def has_place(self) -> bool:
        """Whether there is a folder for the file, be it writable or not."""
        return self._folder is not None

    def is_there(self) -> bool:
        """Whether any call has ever waited here, as far as can be told."""
        return self._folder is not None and os.path.exists(self._folder / self._name)

    def check(self) -> None:
        """Find out whether calls could wait here. Makes nothing.

        :raises StorageUnavailableError: they could not
        """
        if self.is_there():
            with self._opened() as file:
                file.execute("BEGIN IMMEDIATE")
                file.execute("ROLLBACK")
            return
        with self._explained():
            nearest = next((folder for folder in self.path.parents if exists(folder)), self.path.parent)
        if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
            raise StorageUnavailableError(
                f"calls cannot wait in {self.path.parent}: {nearest} is no folder that this process may write; give "
                f"another with spool_dir= or {VARIABLE}"
            )

    def put(self, calls: Sequence[CallRecord]) -> None:
        """Add calls, which are on the disk when this returns, all or none.

        :raises StorageUnavailableError: the file cannot be written, or is full
        """
        rows = [(str(call.id), call.model_dump_json()) for call in calls]
        with self._opened(create=True) as file:
            file.execute("BEGIN IMMEDIATE")
            file.executemany(_PUT, rows)
            file.execute("COMMIT")

    def oldest(self, limit: int, after: int = 0) -> list[Spooled]:
        """The calls that wait, oldest first, beyond the position `after`."""
        if not self.is_there():
            return []
        with self._opened() as file:
            return [_read(position, text) for position, text in file.execute(_OLDEST, (after, limit))]

    def remove(self, positions: Sequence[int]) -> None:
        """Forget calls that the store has, or will never take because their days were purged."""
        self._change(_REMOVE, [(position,) for position in positions])

    def set_aside(self, reasons: dict[int, str]) -> None:
        """Keep calls that the store refuses, by position, each with the reason; they are no longer `oldest`."""
        self._change(_SET_ASIDE, [(reason, position) for position, reason in reasons.items()])

    def retry(self) -> int:
        """Let what was set aside wait again, and return how many calls that are."""
        return self._change(_RETRY, [()]) if self.is_there() else 0

    def refusals(self, limit: int) -> dict[str, int]:
        """Why calls were set aside, the most frequent reasons first, and how many for each."""
        if not self.is_there():
            return {}
        with self._opened() as file:
            return dict(file.execute(_REFUSALS, (limit,)).fetchall())

    def calls_of(self, id_at_origin: str, origin: str | None = None) -> dict[str, int]:
        """How many calls here bear the name of a user, set aside or not, by origin (None: of any)."""
        if not self.is_there():
            return {}
        with self._opened() as file:
            return dict(file.execute(_COUNT_OF_USER, {"user": id_at_origin, "origin": origin}).fetchall())

    def forget(self, id_at_origin: str, origin: str | None = None) -> None:
        """Take the name of a user off the calls of an origin (None: of any). What is being moved into the store at
        this moment keeps it, unless this is called by whoever has the `turn`."""
        if self.is_there():
            self._change(_FORGET, [{"user": id_at_origin, "origin": origin}])

    def counts(self) -> SpoolCounts:
        """How many calls are here."""
        if not self.is_there():
            return SpoolCounts()
        with self._opened() as file:
            total, refused = file.execute(_COUNT).fetchone()
        return SpoolCounts(total - refused, refused)

    @contextmanager
    def turn(self) -> Iterator[bool]:
        """Whether it is this caller's turn to move calls into the store; nobody else's, until this ends or the
        process does."""
        lock = None
        try:
            with _one_at_a_time, self._explained(_TURN):
                _close_inherited_turns()
                path = self.path.with_suffix(_TURN)
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
        """How many calls were changed."""
        with self._opened() as file:
            file.execute(f"PRAGMA max_page_count = {_UNBOUNDED_PAGES}")
            file.execute("BEGIN IMMEDIATE")
            changed = file.executemany(statement, rows).rowcount
            file.execute("COMMIT")
        return changed

    @contextmanager
    def _opened(self, *, create: bool = False) -> Iterator[sqlite3.Connection]:
        with _one_at_a_time, self._explained():
            if create:
                make_private_file(self.path)
            uri = f"{self.path.as_uri()}?mode=rw"
            with closing(sqlite3.connect(uri, uri=True, timeout=_LOCK_SECONDS, isolation_level=None)) as file:
                _prepare(file)
                yield file

    @contextmanager
    def _explained(self, suffix: str = _CALLS) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError, sqlite3.Error) as error:  # ValueError: no file can have that name
            told = error.strerror if isinstance(error, OSError) else str(error)
            if getattr(error, "sqlite_errorcode", 0) & 0xFF in _DAMAGED:
                told = f"{told}; it is damaged: move it away, and calls can wait again"
            raise StorageUnavailableError(f"calls cannot wait in {self.path.with_suffix(suffix)}: {told}") from error


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
        raise sqlite3.DatabaseError("it was written by a newer release of llmbridge, and only that may use it")
    if version < _FORMAT:
        file.execute("PRAGMA auto_vacuum = FULL")  # a file that has been emptied gives its space back
        file.execute("BEGIN IMMEDIATE")
        file.execute(_CREATE)
        file.execute(f"PRAGMA user_version = {_FORMAT}")
        file.execute("COMMIT")
    file.execute(f"PRAGMA max_page_count = {MAX_BYTES // _PAGE_BYTES}")


def _read(position: int, text: str) -> Spooled:
    try:
        fields = json.loads(text)
        unknown = sorted(fields.keys() - CallRecord.model_fields.keys())
        if unknown:
            raise StorageError(f"it has fields of a newer release: {', '.join(unknown)}")
        return Spooled(position, _in_utc(CallRecord(**fields)))
    except (ValidationError, StorageError, TypeError, ValueError, AttributeError) as error:
        told = str(error) if isinstance(error, StorageError) else type(error).__name__
        return Spooled(position, None, told)


def _in_utc(call: CallRecord) -> CallRecord:
    """The times as they were, in Python's own UTC instead of pydantic's."""
    times = {name: getattr(call, name) for name in ("called_at", "repriced_at")}
    return call.model_copy(update={name: at.astimezone(UTC) for name, at in times.items() if isinstance(at, datetime)})
