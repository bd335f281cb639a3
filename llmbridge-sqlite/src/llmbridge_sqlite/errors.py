"""Translation of the driver's errors into those of the storage contract."""

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
    sqlite3.SQLITE_BUSY: "another connection has locked it; try again",
    sqlite3.SQLITE_LOCKED: "another connection has locked it; try again",
    sqlite3.SQLITE_PROTOCOL: "another connection has locked it; try again",
    sqlite3.SQLITE_SCHEMA: "its schema changed while the statement ran; try again",
    sqlite3.SQLITE_FULL: "the disk is full; free some space",
    sqlite3.SQLITE_READONLY: "it cannot be written; make the disk and the file writable",
    sqlite3.SQLITE_CANTOPEN: "it cannot be opened; check that its folder exists and is writable",
    sqlite3.SQLITE_IOERR: "the disk failed to read or write; check its health and its free space",
    sqlite3.SQLITE_NOMEM: "there is not enough memory; free some",
    sqlite3.SQLITE_INTERRUPT: "the operation was interrupted; try again",
}
_REFUSED = {
    sqlite3.SQLITE_NOTADB: "it is not a SQLite database; give another path",
    sqlite3.SQLITE_CORRUPT: "it is damaged; restore it from a backup, or recover it with `sqlite3 FILE .recover`",
    sqlite3.SQLITE_PERM: "this user may not access it; correct the permissions of the file",
    sqlite3.SQLITE_AUTH: "this user may not access it; correct the permissions of the file",
    sqlite3.SQLITE_NOLFS: "its file system does not support files of this size; put it on another one",
}
_REJECTED = {sqlite3.SQLITE_MISMATCH, sqlite3.SQLITE_TOOBIG, sqlite3.SQLITE_RANGE}
#: The extended code of a value of the wrong type in a STRICT table. https://sqlite.org/rescode.html
_WRONG_TYPE = 3091

_TEMPORARY = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EMFILE, errno.ENFILE}

_LACKING = re.compile(r"no such (table|column)|has no column", re.IGNORECASE)


def primary_code(error: sqlite3.Error) -> int | None:
    """Return SQLite's primary result code, None if the error comes from the Python module."""
    code: int | None = getattr(error, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF


def translate(error: Exception, store: str) -> Exception:
    """Return the error of the contract for `error`, which the database `store` caused; `error` itself if SQLite did not
    raise it."""
    if isinstance(error, sqlite3.Error):
        return _translate_sqlite(error, f"the SQLite database {store}")
    if isinstance(error, OSError):
        kind = StorageUnavailableError if error.errno in _TEMPORARY else StorageRefusedError
        return kind(f"the SQLite database {store} cannot be opened: {error.strerror}")
    if isinstance(error, OverflowError | UnicodeError):
        return RecordRejectedError(
            "SQLite cannot store the value: integers have at most 64 bits, text has no lone surrogates"
        )
    return error


def _translate_sqlite(error: sqlite3.Error, what: str) -> StorageError:
    code = primary_code(error)
    if code in _UNAVAILABLE:
        return StorageUnavailableError(f"{what}: {_UNAVAILABLE[code]} ({error})")
    if code in _REFUSED:
        return StorageRefusedError(f"{what}: {_REFUSED[code]} ({error})")
    if code == sqlite3.SQLITE_CONSTRAINT and error.sqlite_errorcode != _WRONG_TYPE:
        return ConstraintError(f"{what}: a constraint or trigger refuses the row: {error}")
    if code == sqlite3.SQLITE_CONSTRAINT or code in _REJECTED:
        return RecordRejectedError(f"{what} rejects the value: {error}")
    if isinstance(error, sqlite3.InterfaceError | sqlite3.ProgrammingError) and "binding" in str(error):
        return RecordRejectedError(f"{what} cannot store a value of this type: {error}")
    if _LACKING.search(str(error)):
        return SchemaOutdatedError(
            f"{what} lacks a table or column of this release; run `llmbridge storage migrate` ({error})"
        )
    return StorageError(f"{what}: {error}")
