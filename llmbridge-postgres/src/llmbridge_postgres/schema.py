"""Migrations: the SQL files in `migrations/`, each applied once by pgdbm and listed in `llmbridge_migrations`.

That table is llmbridge's own, not the `schema_migrations` that a host application or llmbridge-py may have in the same
schema. A migration ends with a row in `llmbridge_schema`, which says which releases may still write: a release may
write if its last migration has at least the number `writable_from`. The greatest number of all rows counts, and every
transaction that writes reads it. So a migration that raises the number must lock the tables that older releases write
(`LOCK TABLE … IN SHARE ROW EXCLUSIVE MODE`): then an older release has either committed before the migration or gets
`SchemaTooNewError`. Only these two tables and
`llmbridge_state.identity` keep their form in all releases; all else may change.
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

from .connection import Connection
from .errors import translate
from .preflight import HISTORY, inspect

#: The migrations of this release, in order.
MIGRATIONS = ("001_baseline",)
HEAD_NUMBER = int(MIGRATIONS[-1][:3])

#: Seconds that a process waits for another one that migrates, and that one migration may take.
MIGRATION_SECONDS = 3600.0

WRITABLE_FROM = "SELECT max(writable_from) FROM {{tables.llmbridge_schema}}"
_IDENTITY = "SELECT identity::text FROM {{tables.llmbridge_state}}"

_FOLDER = Path(__file__).parent / "migrations"
_MODULE = "llmbridge_postgres"

_HISTORY = f"SELECT filename, checksum FROM {{{{tables.{HISTORY}}}}} WHERE module_name = $1"
_TRY_LOCK = "SELECT pg_try_advisory_xact_lock(hashtextextended('llmbridge migrates ' || $1, 0))"
_IS_RESERVED = "SELECT EXISTS (SELECT FROM pg_get_keywords() WHERE word = $1 AND catcode IN ('R', 'T'))"
_SCHEMA_EXISTS = "SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = $1)"
#: Switches off the timeouts that a host application's pool may set, until the end of the transaction: a migration may
#: take long.
_LIFT_LIMITS = """
SELECT set_config(name, '0', true)
FROM unnest(ARRAY['statement_timeout', 'lock_timeout', 'idle_in_transaction_session_timeout']) AS name
"""

#: Whether the server is a standby, or the user has no right to record calls.
_IS_READ_ONLY = """
SELECT pg_is_in_recovery() OR NOT has_table_privilege('{{tables.llmbridge_calls}}', 'INSERT')
"""


async def status(connection: Connection, name: str, where: str) -> SchemaStatus:
    """Return which migrations of the schema `name` are applied."""
    history = await _history(connection, name, where)
    return SchemaStatus(
        current=max(history, default=None),
        head=MIGRATIONS[-1],
        pending=[migration for migration in MIGRATIONS if migration not in history],
        writable=not history or await _writable_from(connection) <= HEAD_NUMBER,
        read_only=bool(history and await connection.fetch_value(_IS_READ_ONLY)),
        identity=await _identity(connection) if history else None,
    )


async def check_writable(connection: Connection, where: str) -> None:
    """Check that this release may write. Every transaction that writes calls this after its last change: the change has
    locked its table, so no migration can run before the commit.

    :raises SchemaTooNewError: a newer release has migrated the schema and forbids this one to write
    """
    if await _writable_from(connection) > HEAD_NUMBER:
        raise SchemaTooNewError(
            f"the PostgreSQL database {where} was migrated by a newer llmbridge-postgres, which forbids this version "
            "to write; upgrade llmbridge-postgres"
        )


async def apply(attempt: Callable[[], Awaitable[MigrationReport | None]], where: str) -> MigrationReport:
    """Repeat `attempt` until the pending migrations are applied, by this process or by another one. No connection is
    held between two attempts."""
    deadline = time.monotonic() + MIGRATION_SECONDS
    while (report := await attempt()) is None:
        if time.monotonic() > deadline:
            raise StorageUnavailableError(
                f"another process has been migrating the PostgreSQL database {where} for more than "
                f"{MIGRATION_SECONDS:.0f} seconds; look for it in pg_stat_activity, then try again"
            )
        await asyncio.sleep(random.uniform(0.05, 0.25))  # noqa: S311  spreads contenders, keeps no secret
    return report


async def try_to_apply(connection: Connection, name: str, where: str) -> MigrationReport | None:
    """Apply the pending migrations of the schema `name`; return None if another process is doing so. An advisory lock
    of llmbridge allows one process at a time, because pgdbm creates its table before it takes its own lock."""
    before = await _history(connection, name, where)
    _check_history(before, await _checksums(connection, name), where)
    if before:
        await check_writable(connection, where)
    if all(migration in before for migration in MIGRATIONS):
        return MigrationReport([], list(MIGRATIONS), len(MIGRATIONS))
    async with connection.transaction():
        if not await connection.fetch_value(_TRY_LOCK, name):
            return None
        return await _apply_locked(connection, name, where)


async def _apply_locked(connection: Connection, name: str, where: str) -> MigrationReport:
    before = await _history(connection, name, where)
    await connection.fetch(_LIFT_LIMITS)
    if not await connection.fetch_value(_SCHEMA_EXISTS, name):
        if await connection.fetch_value(_IS_RESERVED, name):
            raise MigrationError(
                f"the schema cannot be named {name}, a reserved word of SQL; choose another name with schema="
            )
        await connection.execute("CREATE SCHEMA {{schema}}")
    try:
        result = await _pgdbm(connection, name).apply_pending_migrations()
    except PgdbmMigrationError as error:
        cause = error.__cause__ or error
        fault = translate(cause, where)
        if isinstance(fault, StorageUnavailableError | StorageRefusedError):
            raise fault from cause
        raise MigrationError(f"migrating {where} failed and was rolled back: {cause}") from cause
    after = await _history(connection, name, where)
    lacking = [migration for migration in MIGRATIONS if migration not in after]
    if result.get("status") not in ("success", "up_to_date") or lacking:
        raise MigrationError(f"migrating {where} ended with {result.get('status')!r} and lacks {', '.join(lacking)}")
    applied = [migration for migration in MIGRATIONS if migration not in before]
    return MigrationReport(applied, [m for m in MIGRATIONS if m in before], len(MIGRATIONS))


async def _history(connection: Connection, name: str, where: str) -> dict[str, str]:
    """Return the names and checksums of the applied migrations.

    :raises StorageRefusedError: tables that a migration has created do not exist any more
    """
    found = await inspect(connection, name, where)
    if not found.migrated:
        return {}
    rows = await connection.fetch(_HISTORY, _MODULE)
    history = {row["filename"].removesuffix(".sql"): row["checksum"] for row in rows}
    if found.lacking and tuple(sorted(history)) == MIGRATIONS:
        found = await inspect(connection, name, where)  # another process may have created them between the two reads
        if found.lacking:
            raise StorageRefusedError(
                f"the schema {name} of the PostgreSQL database {where} has lost {', '.join(found.lacking)}; restore "
                "them from a backup, or start in another schema with schema="
            )
    return history


async def _identity(connection: Connection) -> str | None:
    try:
        identity: str | None = await connection.fetch_value(_IDENTITY)
    except asyncpg.UndefinedTableError:
        return None  # the table is lost, which the first use reports
    return identity


async def _writable_from(connection: Connection) -> int:
    oldest: int | None = await connection.fetch_value(WRITABLE_FROM)
    if oldest is None:
        raise SchemaOutdatedError("the schema is not migrated; run `llmbridge storage migrate`")
    return oldest


def _check_history(history: dict[str, str], checksums: dict[str, str], where: str) -> None:
    for name in sorted(history):
        number = int(name[:3]) if re.match(r"\d{3}", name) else 0
        if name not in checksums and number <= HEAD_NUMBER:
            raise MigrationError(
                f"migration {name} was applied to {where}, but this release does not have it; "
                "install the version of llmbridge-postgres that applied it, or a newer one"
            )
        if name in checksums and checksums[name] != history[name]:
            raise MigrationError(
                f"migration {name} was applied to {where} with a different text than in this release (SHA-256 "
                f"{history[name][:12]}, here {checksums[name][:12]}); install a released version of llmbridge-postgres"
            )


async def _checksums(connection: Connection, name: str) -> dict[str, str]:
    """Return the names and checksums of the migrations of this release."""
    found = await _pgdbm(connection, name).find_migration_files()
    checksums = {one.filename.removesuffix(".sql"): one.checksum for one in found}
    if tuple(sorted(checksums)) != MIGRATIONS:
        wrong = ", ".join(sorted(set(MIGRATIONS) ^ checksums.keys()))
        raise MigrationError(
            f"the installation of llmbridge-postgres is damaged: the migrations {wrong} are missing or should not be "
            "there; install it again"
        )
    return checksums


def _pgdbm(connection: Connection, name: str) -> AsyncMigrationManager:
    pool = cast("asyncpg.Pool", _PoolOfOne(connection.driver_connection))
    return AsyncMigrationManager(AsyncDatabaseManager(pool=pool, schema=name), str(_FOLDER), HISTORY, _MODULE)


class _PoolOfOne:
    """A pool for pgdbm with only the connection that holds the lock. So migrating needs one connection, and the lock
    ends with its transaction."""

    def __init__(self, connection: Any) -> None:
        self._connection = _WithoutTimeouts(connection)

    @asynccontextmanager
    async def acquire(self) -> AsyncIterator[_WithoutTimeouts]:
        yield self._connection


class _WithoutTimeouts:
    """A connection whose statements may take as long as a migration may, whatever timeout its pool has."""

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
