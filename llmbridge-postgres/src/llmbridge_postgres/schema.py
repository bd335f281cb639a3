"""Migrations: SQL files shipped beside this module, applied once each by pgdbm and kept in `llmbridge_migrations`.

The table is our own, not the `schema_migrations` that a host application or llmbridge-py may have in the same schema.
A migration ends with a row in `llmbridge_schema`, which names the oldest release that may still write: the number of
the last migration that this release ships. The greatest number counts, and every transaction that writes reads it
anew. So a migration that raises it must lock what it protects from writers (`LOCK TABLE … IN SHARE ROW EXCLUSIVE
MODE`): then older releases either have written before it or stop with `SchemaTooNewError`. These two tables and
`llmbridge_state.identity` are what releases promise each other; everything else is free to change.
"""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import asyncpg
from pgdbm import AsyncDatabaseManager, AsyncMigrationManager
from pgdbm.errors import MigrationError as PgdbmMigrationError

from llmbridge.storage import (
    MigrationError,
    MigrationReport,
    SchemaOutdatedError,
    SchemaStatus,
    SchemaTooNewError,
    StorageRefusedError,
    StorageUnavailableError,
)

from .connection import Session
from .errors import translate
from .preflight import HISTORY, inspect

#: The migrations of this release, in order.
MIGRATIONS = ("001_baseline",)
HEAD_NUMBER = int(MIGRATIONS[-1][:3])

#: How long a process waits for another one that is migrating, and how long one migration may take, in seconds.
MIGRATION_SECONDS = 3600.0

WRITABLE_FROM = "SELECT max(writable_from) FROM {{tables.llmbridge_schema}}"
_IDENTITY = "SELECT identity::text FROM {{tables.llmbridge_state}}"

_FOLDER = Path(__file__).parent / "migrations"
_MODULE = "llmbridge_postgres"

_HISTORY = f"SELECT filename, checksum FROM {{{{tables.{HISTORY}}}}} WHERE module_name = $1"
_TRY_LOCK = "SELECT pg_try_advisory_xact_lock(hashtextextended('llmbridge migrates ' || $1, 0))"
_IS_RESERVED = "SELECT EXISTS (SELECT FROM pg_get_keywords() WHERE word = $1 AND catcode IN ('R', 'T'))"
_SCHEMA_EXISTS = "SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = $1)"
#: A host's pool may cut statements that take long, and a migration may. Holds until the end of the transaction.
_LIFT_LIMITS = """
SELECT set_config(name, '0', true)
FROM unnest(ARRAY['statement_timeout', 'lock_timeout', 'idle_in_transaction_session_timeout']) AS name
"""


async def status(session: Session, name: str, where: str) -> SchemaStatus:
    """How far the schema `name` is migrated."""
    history = await _history(session, name, where)
    return SchemaStatus(
        current=max(history, default=None),
        head=MIGRATIONS[-1],
        pending=[migration for migration in MIGRATIONS if migration not in history],
        writable=not history or await _writable_from(session) <= HEAD_NUMBER,
        identity=await _identity(session) if history else None,
    )


async def check_writable(session: Session, where: str) -> None:
    """Raise SchemaTooNewError if a newer release says that this one may not write. Belongs into every transaction
    that writes, after its last change: that has locked its table, so no migration can come in between."""
    if await _writable_from(session) > HEAD_NUMBER:
        raise SchemaTooNewError(
            f"the PostgreSQL database {where} was migrated by a newer llmbridge-postgres, which says that this one may "
            "no longer write it; upgrade llmbridge-postgres"
        )


async def apply(attempt: Callable[[], Awaitable[MigrationReport | None]], where: str) -> MigrationReport:
    """Try to apply what is pending until it is applied, by us or by another process. Whoever waits does so without a
    connection."""
    deadline = time.monotonic() + MIGRATION_SECONDS
    while (report := await attempt()) is None:
        if time.monotonic() > deadline:
            raise StorageUnavailableError(f"the PostgreSQL database {where} has been migrated by another for too long")
        await asyncio.sleep(random.uniform(0.05, 0.25))  # noqa: S311  spreads contenders, keeps no secret
    return report


async def try_to_apply(session: Session, name: str, where: str) -> MigrationReport | None:
    """Apply what is pending in the schema `name`; None: another process is doing so. One at a time does, under a lock
    of our own, for pgdbm makes its table before it takes its lock."""
    before = await _history(session, name, where)
    _check_history(before, await _checksums(session, name), where)
    if before:
        await check_writable(session, where)
    if all(migration in before for migration in MIGRATIONS):
        return MigrationReport([], list(MIGRATIONS), len(MIGRATIONS))
    async with session.transaction():
        if not await session.fetch_value(_TRY_LOCK, name):
            return None
        return await _apply_locked(session, name, where)


async def _apply_locked(session: Session, name: str, where: str) -> MigrationReport:
    before = await _history(session, name, where)
    await session.fetch(_LIFT_LIMITS)
    if not await session.fetch_value(_SCHEMA_EXISTS, name):
        if await session.fetch_value(_IS_RESERVED, name):
            raise MigrationError(f"the schema cannot be named {name}, a word of SQL; choose another with schema=")
        await session.execute("CREATE SCHEMA {{schema}}")
    try:
        result = await _pgdbm(session, name).apply_pending_migrations()
    except PgdbmMigrationError as error:
        cause = error.__cause__ or error
        fault = translate(cause, where)
        if isinstance(fault, StorageUnavailableError | StorageRefusedError):
            raise fault from cause
        raise MigrationError(f"migrating {where} failed and left nothing behind: {cause}") from cause
    after = await _history(session, name, where)
    lacking = [migration for migration in MIGRATIONS if migration not in after]
    if result.get("status") not in ("success", "up_to_date") or lacking:
        raise MigrationError(f"migrating {where} ended with {result.get('status')!r} and lacks {', '.join(lacking)}")
    applied = [migration for migration in MIGRATIONS if migration not in before]
    return MigrationReport(applied, [m for m in MIGRATIONS if m in before], len(MIGRATIONS))


async def _history(session: Session, name: str, where: str) -> dict[str, str]:
    """Names and checksums of what was applied.

    :raises StorageRefusedError: it was, and its tables are not there any more
    """
    found = await inspect(session, name, where)
    if not found.migrated:
        return {}
    rows = await session.fetch(_HISTORY, _MODULE)
    history = {row["filename"].removesuffix(".sql"): row["checksum"] for row in rows}
    if found.lacking and tuple(sorted(history)) == MIGRATIONS:
        found = await inspect(session, name, where)  # another process may have made them between the two readings
        if found.lacking:
            raise StorageRefusedError(
                f"the schema {name} of the PostgreSQL database {where} has lost {', '.join(found.lacking)}, which "
                "llmbridge made; restore them from a backup, or begin new books in another schema with schema="
            )
    return history


async def _identity(session: Session) -> str | None:
    try:
        identity: str | None = await session.fetch_value(_IDENTITY)
    except asyncpg.UndefinedTableError:
        return None  # the table is lost, which the first use tells
    return identity


async def _writable_from(session: Session) -> int:
    oldest: int | None = await session.fetch_value(WRITABLE_FROM)
    if oldest is None:
        raise SchemaOutdatedError("the schema is not migrated; run `llmbridge storage migrate`")
    return oldest


def _check_history(history: dict[str, str], checksums: dict[str, str], where: str) -> None:
    for name in sorted(history):
        number = int(name[:3]) if re.match(r"\d{3}", name) else 0
        if name not in checksums and number <= HEAD_NUMBER:
            raise MigrationError(
                f"migration {name} was applied to {where}, but this release does not have it; "
                "install the llmbridge-postgres that made the books, or a newer one"
            )
        if name in checksums and checksums[name] != history[name]:
            raise MigrationError(
                f"migration {name} was applied to {where} with another text than this release has "
                f"(SHA-256 {history[name][:12]}, here {checksums[name][:12]}); install a released llmbridge-postgres"
            )


async def _checksums(session: Session, name: str) -> dict[str, str]:
    """Names and checksums of the files of this release."""
    found = await _pgdbm(session, name).find_migration_files()
    checksums = {one.filename.removesuffix(".sql"): one.checksum for one in found}
    if tuple(sorted(checksums)) != MIGRATIONS:
        wrong = ", ".join(sorted(set(MIGRATIONS) ^ checksums.keys()))
        raise MigrationError(
            f"llmbridge-postgres is not installed whole: its migrations lack, or should not have, {wrong}; "
            "install it anew"
        )
    return checksums


def _pgdbm(session: Session, name: str) -> AsyncMigrationManager:
    pool = cast("asyncpg.Pool", _PoolOfOne(session.connection))
    return AsyncMigrationManager(AsyncDatabaseManager(pool=pool, schema=name), str(_FOLDER), HISTORY, _MODULE)


class _PoolOfOne:
    """The connection that holds our lock, handed to pgdbm as its pool: so migrating takes one connection, and the
    lock ends with the work, however that ends."""

    def __init__(self, connection: Any) -> None:
        self._connection = _Patient(connection)

    @asynccontextmanager
    async def acquire(self) -> AsyncIterator[_Patient]:
        yield self._connection


class _Patient:
    """A connection whose statements may take as long as a migration does, whatever its pool allows others."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def execute(self, query: str, *args: Any) -> Awaitable[str]:
        running: Awaitable[str] = self._connection.execute(query, *args, timeout=MIGRATION_SECONDS)
        return running

    def fetch(self, query: str, *args: Any) -> Awaitable[Sequence[Any]]:
        running: Awaitable[Sequence[Any]] = self._connection.fetch(query, *args, timeout=MIGRATION_SECONDS)
        return running

    def transaction(self) -> Any:
        return self._connection.transaction()
