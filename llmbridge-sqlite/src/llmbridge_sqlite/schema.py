"""Migrations: the SQL files in `migrations/`, each applied once and listed in `migration_history`.

A migration is identified by its name (`001_baseline`) and the SHA-256 of its text. Its first line says which releases
may still write after it was applied: `-- writable-from: 1` means that a release may write if its last migration has at
least the number 1. The number is stored in `migration_history.writable_from`; the greatest number of all rows counts,
and every transaction that writes reads it. So if a newer release migrates a database in use, an older one either
continues to write correctly or gets `SchemaTooNewError`. Only this table, this column and
`llmbridge_state.identity` keep their form in all releases; all else may change.
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
    """One SQL file: its name without `.sql`, the SHA-256 of its text, and its statements."""

    name: str
    number: int
    checksum: str
    writable_from: int
    statements: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Applied:
    """One row of `migration_history`."""

    name: str
    checksum: str
    writable_from: int

    @property
    def number(self) -> int:
        """The number at the start of the name, 0 if there is none."""
        return int(self.name[:3]) if re.match(r"\d{3}", self.name) else 0


@cache
def shipped() -> tuple[Migration, ...]:
    """Return the migrations of this release."""
    return load(files(__package__) / "migrations")


def load(folder: Traversable) -> tuple[Migration, ...]:
    """Return the migrations of a folder, numbered from 001 without a gap.

    :raises MigrationError: a migration is missing, has a wrong name, or has no `writable-from`
    """
    found = sorted((file for file in folder.iterdir() if file.name.endswith(".sql")), key=lambda file: file.name)
    if not found:
        raise MigrationError(
            f"the installation of llmbridge-sqlite is damaged: {folder} has no migrations; install it again"
        )
    migrations = []
    for number, file in enumerate(found, start=1):
        text = file.read_text(encoding="utf-8").replace("\r\n", "\n")
        name, header = _FILE.fullmatch(file.name), _HEADER.match(text)
        if name is None or int(name[1]) != number:
            raise MigrationError(
                f"the installation of llmbridge-sqlite is damaged: it has {file.name} instead of migration "
                f"{number:03}; install it again"
            )
        if header is None:
            raise MigrationError(f"{file.name} does not begin with `-- writable-from: NUMBER`")
        digest = hashlib.sha256(text.encode()).hexdigest()
        migrations.append(Migration(file.name.removesuffix(".sql"), number, digest, int(header[1]), tuple(split(text))))
    return tuple(migrations)


def split(script: str) -> list[str]:
    """Return the statements of a script. SQLite itself finds the end of each one, so triggers, string literals and
    comments are not split."""
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
    """Return which migrations are applied."""
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
    """Apply the pending migrations, each in one transaction with its row in the history.

    Each transaction reads the history again under its lock, because another process may have migrated in between.
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
    """Check that this release may write. Every transaction that writes calls this.

    :raises SchemaTooNewError: a newer release has migrated the database and forbids this one to write
    :raises SchemaOutdatedError: the database has no schema
    """
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
                "install the version of llmbridge-sqlite that applied it, or a newer one"
            )
        if migration is not None and migration.checksum != applied.checksum:
            raise MigrationError(
                f"migration {applied.name} was applied to {where} with a different text than in this release (SHA-256 "
                f"{applied.checksum[:12]}, here {migration.checksum[:12]}); install a released version of "
                "llmbridge-sqlite"
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
        raise MigrationError(f"migration {migration.name} failed and was rolled back: {error}") from error


def _too_new(where: str) -> SchemaTooNewError:
    return SchemaTooNewError(
        f"the SQLite database {where} was migrated by a newer llmbridge-sqlite, which forbids this version to write; "
        "upgrade llmbridge-sqlite"
    )
