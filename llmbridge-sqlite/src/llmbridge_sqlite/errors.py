"""What went wrong in SQLite, in the words of the storage contract."""

from __future__ import annotations

import errno
import re
import sqlite3

from llmbridge.storage import (
    ConstraintError,
    RecordRejectedError,
    SchemaOutdatedError,
    StorageError,
    StorageRefusedError,
    StorageUnavailableError,
)

_UNAVAILABLE = {
    sqlite3.SQLITE_BUSY: "another connection kept it locked; try again",
    sqlite3.SQLITE_LOCKED: "another connection kept it locked; try again",
    sqlite3.SQLITE_PROTOCOL: "another connection kept it locked; try again",
    sqlite3.SQLITE_SCHEMA: "its schema changed meanwhile; try again",
    sqlite3.SQLITE_FULL: "the disk is full; free some space",
    sqlite3.SQLITE_READONLY: "it cannot be written; make the disk and the file writable",
    sqlite3.SQLITE_CANTOPEN: "it cannot be opened; look whether its folder is still there and writable",
    sqlite3.SQLITE_IOERR: "the disk failed to read or write; look at its health and free space",
    sqlite3.SQLITE_NOMEM: "memory ran out",
    sqlite3.SQLITE_INTERRUPT: "the operation was interrupted; try again",
}
_REFUSED = {
    sqlite3.SQLITE_NOTADB: "it is not a SQLite database; give another path",
    sqlite3.SQLITE_CORRUPT: "it is damaged; restore it from a backup, or rescue it with `sqlite3 FILE .recover`",
    sqlite3.SQLITE_PERM: "this user has no right to it",
    sqlite3.SQLITE_AUTH: "this user has no right to it",
    sqlite3.SQLITE_NOLFS: "its file system has no files of this size",
}
_REJECTED = {sqlite3.SQLITE_MISMATCH, sqlite3.SQLITE_TOOBIG, sqlite3.SQLITE_RANGE}
#: The extended code of a value of the wrong type in a STRICT table. https://sqlite.org/rescode.html
_WRONG_TYPE = 3091

_MENDABLE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EMFILE, errno.ENFILE}

_LACKING = re.compile(r"no such (table|column)|has no column", re.IGNORECASE)


def primary_code(error: sqlite3.Error) -> int | None:
    """SQLite's primary result code; None when the error is the Python module's own."""
    code: int | None = getattr(error, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF


def translate(error: Exception, store: str) -> Exception:
    """The error of the contract that `error`, met in `store`, stands for; itself when it is none of SQLite's."""
    if isinstance(error, sqlite3.Error):
        return _translate_sqlite(error, f"the SQLite database {store}")
    if isinstance(error, OSError):
        mends = error.errno in _MENDABLE
        kind = StorageUnavailableError if mends else StorageRefusedError
        return kind(f"the SQLite database {store} cannot be opened: {error.strerror}")
    if isinstance(error, OverflowError | UnicodeError):
        return RecordRejectedError("SQLite cannot hold the value: integers have 64 bits, text has no lone surrogate")
    return error


def _translate_sqlite(error: sqlite3.Error, what: str) -> StorageError:
    code = primary_code(error)
    if code in _UNAVAILABLE:
        return StorageUnavailableError(f"{what}: {_UNAVAILABLE[code]} ({error})")
    if code in _REFUSED:
        return StorageRefusedError(f"{what}: {_REFUSED[code]} ({error})")
    if code == sqlite3.SQLITE_CONSTRAINT and error.sqlite_errorcode != _WRONG_TYPE:
        return ConstraintError(f"{what} has a constraint or trigger that refuses the row: {error}")
    if code == sqlite3.SQLITE_CONSTRAINT or code in _REJECTED:
        return RecordRejectedError(f"{what} rejects the value: {error}")
    if isinstance(error, sqlite3.InterfaceError | sqlite3.ProgrammingError) and "binding" in str(error):
        return RecordRejectedError(f"{what} cannot hold a value of this type: {error}")
    if _LACKING.search(str(error)):
        return SchemaOutdatedError(f"{what} lacks what this release needs; run `llmbridge storage migrate` ({error})")
    return StorageError(f"{what}: {error}")
