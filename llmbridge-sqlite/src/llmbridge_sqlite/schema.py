"""Migrations: SQL files shipped beside this module, applied once each and remembered in `migration_history`.

A migration is known by its name (`001_baseline`) and the SHA-256 of its text. Its first line names the oldest
release that may still write a store to which it was applied, as the number of the last migration that this
release ships: `-- writable-from: 1`. The number stands in `migration_history.writable_from`, the greatest one
counts, and every transaction that writes reads it anew; so while a newer release migrates a store in use, older
ones either go on writing rightly or stop with `SchemaTooNewError`. That table, this column and
`llmbridge_state.identity` are what releases promise each other; everything else is free to change.
"""

from __future__ import annotations

import hashlib
import re
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import cast

from llmbridge.storage import (
    MigrationError,
    MigrationReport,
    SchemaOutdatedError,
    SchemaStatus,
    SchemaTooNewError,
    new_identity,
)

from .errors import primary_code
from .preflight import inspect

_FILE = re.compile(r"(\d{3})_[a-z0-9_]+\.sql")
_HEADER = re.compile(r"-- writable-from: (\d+)\n")

_CREATE_HISTORY = """
CREATE TABLE migration_history (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    checksum TEXT NOT NULL,
    writable_from INTEGER NOT NULL,
    applied_at TEXT NOT NULL
) STRICT
"""
_READ_HISTORY = "SELECT name, checksum, writable_from FROM migration_history ORDER BY name"
_WRITE_HISTORY = "INSERT INTO migration_history (name, checksum, writable_from, applied_at) VALUES (?, ?, ?, ?)"
_WRITABLE_FROM = "SELECT MAX(writable_from) FROM migration_history"
_IDENTITY = "SELECT (SELECT identity FROM llmbridge_state)"


@dataclass(frozen=True, slots=True)
class Migration:
    """One file: its name without `.sql`, the digest of its text, and its statements."""

    name: str
    number: int
    checksum: str
    writable_from: int
    statements: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Applied:
    """One line of `migration_history`."""

    name: str
    checksum: str
    writable_from: int

    @property
    def number(self) -> int:
        """The number that its name begins with; 0 if there is none."""
        return int(self.name[:3]) if re.match(r"\d{3}", self.name) else 0


@cache
def shipped() -> tuple[Migration, ...]:
    """The migrations of this release."""
    return load(files(__package__) / "migrations")


def load(folder: Traversable) -> tuple[Migration, ...]:
    """The migrations of a folder, numbered from 001 without a gap.

    :raises MigrationError: one is missing, misnamed or does not say who may still write
    """
    found = sorted((file for file in folder.iterdir() if file.name.endswith(".sql")), key=lambda file: file.name)
    if not found:
        raise MigrationError(
            f"llmbridge-sqlite is installed without its migrations; {folder} has none. Install it anew"
        )
    migrations = []
    for number, file in enumerate(found, start=1):
        text = file.read_text(encoding="utf-8").replace("\r\n", "\n")
        name, header = _FILE.fullmatch(file.name), _HEADER.match(text)
        if name is None or int(name[1]) != number:
            raise MigrationError(
                f"{file.name} stands where migration {number:03} belongs; install llmbridge-sqlite anew"
            )
        if header is None:
            raise MigrationError(f"{file.name} does not begin with `-- writable-from: NUMBER`")
        digest = hashlib.sha256(text.encode()).hexdigest()
        migrations.append(Migration(file.name.removesuffix(".sql"), number, digest, int(header[1]), tuple(split(text))))
    return tuple(migrations)


def split(script: str) -> list[str]:
    """The statements of a script. SQLite itself says where one ends, so triggers, texts and comments stay whole."""
    statements, begun = [], ""
    for piece in re.split(r"(?<=;)", script):
        begun += piece
        if sqlite3.complete_statement(begun):
            statements.append(begun.strip())
            begun = ""
    if re.sub(r"--[^\n]*|\s", "", begun):
        raise MigrationError(f"a migration ends within a statement: {begun.strip()[:80]!r}")
    return statements


def status(connection: sqlite3.Connection, migrations: Sequence[Migration], where: str) -> SchemaStatus:
    """How far the database is migrated."""
    history = _history(connection, where)
    known = {applied.name for applied in history}
    return SchemaStatus(
        current=history[-1].name if history else None,
        head=migrations[-1].name,
        pending=[migration.name for migration in migrations if migration.name not in known],
        writable=_is_writable(history, migrations),
        identity=_identity(connection) if history else None,
    )


def apply(connection: sqlite3.Connection, migrations: Sequence[Migration], where: str) -> MigrationReport:
    """Apply what is pending, each in one transaction with its line in the history.

    What others did meanwhile is read anew under the lock of every transaction.
    """
    connection.create_function("llmbridge_new_identity", 0, new_identity)
    done = []
    while _next(_history(connection, where), migrations, where):
        connection.execute("BEGIN IMMEDIATE")
        history = _history(connection, where)
        migration = _next(history, migrations, where)
        if migration is not None:
            _apply_one(connection, migration, is_first=not history)
            done.append(migration.name)
        connection.execute("COMMIT")
    return MigrationReport(done, [m.name for m in migrations if m.name not in done], len(migrations))


def check_writable(connection: sqlite3.Connection, migrations: Sequence[Migration], where: str) -> None:
    """Raise SchemaTooNewError if a newer release says that this one may not write, SchemaOutdatedError if there
    is no schema. Belongs into every transaction that writes."""
    try:
        (oldest,) = connection.execute(_WRITABLE_FROM).fetchone()
    except sqlite3.OperationalError as error:
        if primary_code(error) != sqlite3.SQLITE_ERROR:
            raise
        raise SchemaOutdatedError(
            f"the SQLite database {where} has no schema yet; run `llmbridge storage migrate`"
        ) from error
    if oldest is not None and oldest > migrations[-1].number:
        raise _too_new(where)


def _history(connection: sqlite3.Connection, where: str) -> list[Applied]:
    if not inspect(connection, where).migrated:
        return []
    return [Applied(*row) for row in connection.execute(_READ_HISTORY)]


def _identity(connection: sqlite3.Connection) -> str | None:
    try:
        (identity,) = connection.execute(_IDENTITY).fetchone()
    except sqlite3.OperationalError as error:
        if primary_code(error) != sqlite3.SQLITE_ERROR:
            raise
        return None  # the table is lost, which the first use tells
    return cast("str | None", identity)


def _is_writable(history: Sequence[Applied], migrations: Sequence[Migration]) -> bool:
    return all(applied.writable_from <= migrations[-1].number for applied in history)


def _next(history: Sequence[Applied], migrations: Sequence[Migration], where: str) -> Migration | None:
    if not _is_writable(history, migrations):
        raise _too_new(where)
    ours = {migration.name: migration for migration in migrations}
    for applied in history:
        migration = ours.get(applied.name)
        if migration is None and applied.number <= migrations[-1].number:
            raise MigrationError(
                f"migration {applied.name} was applied to {where}, but this release does not have it; "
                "install the llmbridge-sqlite that made the store, or a newer one"
            )
        if migration is not None and migration.checksum != applied.checksum:
            raise MigrationError(
                f"migration {applied.name} was applied to {where} with another text than this release has "
                f"(SHA-256 {applied.checksum[:12]}, here {migration.checksum[:12]}); "
                "install a released llmbridge-sqlite"
            )
    known = {applied.name for applied in history}
    return next((migration for migration in migrations if migration.name not in known), None)


def _apply_one(connection: sqlite3.Connection, migration: Migration, *, is_first: bool) -> None:
    try:
        if is_first:
            connection.execute(_CREATE_HISTORY)
        for statement in migration.statements:
            connection.execute(statement)
        at = datetime.now(UTC).isoformat(timespec="seconds")
        connection.execute(_WRITE_HISTORY, (migration.name, migration.checksum, migration.writable_from, at))
    except sqlite3.Error as error:
        if primary_code(error) not in (sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CONSTRAINT, None):
            raise
        raise MigrationError(f"migration {migration.name} failed and left nothing behind: {error}") from error


def _too_new(where: str) -> SchemaTooNewError:
    return SchemaTooNewError(
        f"the SQLite database {where} was migrated by a newer llmbridge-sqlite, which says that this one may no "
        "longer write it; upgrade llmbridge-sqlite"
    )
