"""Storage backend for PostgreSQL: the methods of the contract, over a pool of connections and with time limits."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime
from functools import lru_cache, partial
from typing import Any, TypeVar, cast

import asyncpg
from pgdbm import AsyncDatabaseManager

from llmbridge.storage import (
    MAX_BATCH,
    CallPage,
    CallQuery,
    CallRecord,
    CostChange,
    InvalidStorageURLError,
    LLMModel,
    MigrationError,
    MigrationReport,
    ModelPrice,
    RecordResult,
    SchemaStatus,
    SQLAccess,
    StorageRefusedError,
    StorageURL,
    TotalsPage,
    TotalsReport,
    TotalsRow,
    UnsupportedOperationError,
    UpsertResult,
    UsageQuery,
    UsageRow,
)
from llmbridge.storage.toolkit.lifecycle import LifecycleBackend
from llmbridge.storage.toolkit.maintenance import check_by_day, in_slices

from . import calls as call_rows
from . import erase, purge, reprice, rollups, schema, sql_access, sql_statement, totals_check, totals_copy, usage
from . import models as model_rows
from .cancellation import CancellationSafeTasks, Commit
from .connection import Connection
from .dsn import check_files, connect_arguments, place
from .errors import DRIVER_ERRORS, translate
from .monitoring import Monitor
from .options import SCHEMA, Settings, check_schema, target_of
from .pool import ACQUIRE_SECONDS, BorrowedPool, Connections, OwnPool
from .preflight import inspect
from .rollup_worker import FOLD_AFTER, RollupWorker

logger = logging.getLogger("llmbridge.postgres")

T = TypeVar("T")

_OLDEST_SERVER = 15
#: Seconds for which one operation may hold a connection.
_INSPECT_SECONDS = 30.0
_READ_SECONDS = 300.0
_WRITE_SECONDS = 60.0
#: Seconds within which a connection must be usable again after its operation was cancelled, or it is closed.
_CANCEL_SECONDS = 1.0
_READERS_OF_A_BORROWED_POOL = 4

#: Bounds how many operations hold a connection at the same time.
Limit = asyncio.Lock | asyncio.Semaphore


class PostgreSQLBackend(LifecycleBackend, SQLAccess):
    """Calls, models and prices in one schema of a PostgreSQL database.

    :param url: a PostgreSQL URL, whose query may contain every option below and every keyword of libpq
    :param schema: the schema of the tables; None: `llmbridge`, or the own schema of `db_manager`
    :param enable_monitoring: keep the durations of the last 1,000 statements
    :param fold_after: how many calls may wait before they are folded into rollups, in the background
    :param options: `max_connections`: how many connections may be open; one writes, the others read.
        `pgbouncer`: the server is behind a pooler in transaction mode, which cannot migrate.
        `db_manager`: instead of a URL, a pgdbm manager of the host application, whose pool is used and left open.
        Every keyword of libpq.
    :raises InvalidStorageURLError: the URL or an option is invalid
    """

    def __init__(
        self,
        url: str | StorageURL | None = None,
        schema: str | None = None,
        enable_monitoring: bool = False,
        *,
        fold_after: int = FOLD_AFTER,
        **options: Any,
    ) -> None:
        settings = Settings.of(url, {"schema": schema, "enable_monitoring": enable_monitoring, **options})
        manager = settings.db_manager
        if manager is not None and not isinstance(manager, AsyncDatabaseManager):
            raise InvalidStorageURLError(f"db_manager must be a pgdbm manager, not {type(manager).__name__}")
        own = manager.schema if manager is not None else None
        self._schema = check_schema(settings.schema if settings.schema is not None else own or SCHEMA)
        self._monitor = Monitor() if settings.enable_monitoring else None
        self._pooled = settings.pgbouncer
        self._is_of_host = manager is not None
        self._readers = max(1, settings.max_connections - 1)
        self._source: Connections
        self._place = "of the host application" if manager is not None else place(settings.address, settings.keywords)
        super().__init__(f"the PostgreSQL database {self._place}")
        if manager is not None:
            self._readers = _READERS_OF_A_BORROWED_POOL
            self._source = BorrowedPool(manager, self._monitor)
            self.target = target_of(manager.config, self._schema)
        else:
            arguments = connect_arguments(settings.address, settings.keywords)
            self._source = OwnPool(
                arguments, self._schema, settings.max_connections, pgbouncer=self._pooled, monitor=self._monitor
            )
        names = AsyncDatabaseManager(pool=cast("asyncpg.Pool", self._source), schema=self._schema)
        self._expand = lru_cache(maxsize=256)(names.prepare_query)
        self._keywords = settings.keywords
        self._jobs = CancellationSafeTasks()
        self._folding = RollupWorker(self._run_in_background, fold_after, self._place)
        self._writing: Limit = asyncio.Lock()
        self._reading: Limit = asyncio.Semaphore(self._readers)
        self._has_warned = False

    def __repr__(self) -> str:
        return f"PostgreSQLBackend({self._place!r}, schema={self._schema!r})"

    async def _open(self) -> None:
        self._writing, self._reading = asyncio.Lock(), asyncio.Semaphore(self._readers)
        try:
            check_files(self._keywords, self._place)
            async with self._translated():
                await self._source.open()
                await self._do(self._inspect_server, self._reading, _INSPECT_SECONDS)
        except BaseException:
            await self._source.close()
            raise

    async def _finish(self) -> None:
        await self._folding.before_closing()

    async def _close(self) -> None:
        try:
            await self._jobs.drain()
        finally:
            await self._source.close()

    async def _inspect_server(self, connection: Connection) -> None:
        version = connection.driver_connection.get_server_version()
        if version.major < _OLDEST_SERVER:
            raise StorageRefusedError(
                f"the PostgreSQL database {self._place} runs on server version {version.major}; "
                f"upgrade the server to {_OLDEST_SERVER} or newer"
            )
        encoding = connection.driver_connection.get_settings().server_encoding
        if encoding != "UTF8":
            raise StorageRefusedError(
                f"the PostgreSQL database {self._place} has the encoding {encoding}; create a database with ENCODING "
                "'UTF8'"
            )
        found = await inspect(connection, self._schema, self._place)
        if found.upstream and not self._has_warned:
            self._has_warned = True
            logger.warning(
                "the schema %s of the PostgreSQL database %s has the tables llm_models and llm_api_calls of "
                "llmbridge-py; they are not changed, and new calls are stored in other tables",
                self._schema,
                self._place,
            )

    @asynccontextmanager
    async def _borrow(self, limit: Limit) -> AsyncIterator[Connection]:
        async with asyncio.timeout(ACQUIRE_SECONDS):
            await limit.acquire()
        try:
            async with self._source.acquire() as connection:
                yield Connection(connection, self._expand, pooled=self._pooled, of_host=self._is_of_host)
        finally:
            limit.release()

    async def _do(self, work: Callable[[Connection], Awaitable[T]], limit: Limit, seconds: float) -> T:
        """Run `work` on a connection, for at most `seconds`."""
        async with self._borrow(limit) as connection:
            task = asyncio.ensure_future(work(connection))
            try:
                async with asyncio.timeout(seconds):
                    return await asyncio.shield(task)
            except (TimeoutError, asyncio.CancelledError):
                await _cancel(task, connection.driver_connection)
                raise

    @asynccontextmanager
    async def _translated(self) -> AsyncIterator[None]:
        try:
            yield
        except DRIVER_ERRORS as error:
            raise translate(error, self._place) from error

    async def _run(self, work: Callable[[Commit], Awaitable[T]]) -> T:
        self._check_connected()

        async def job(commit: Commit) -> T:
            async with self._translated():
                return await work(commit)

        return await self._jobs.run(job)

    async def _write(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        async def written(commit: Commit) -> T:
            async def work_and_commit(connection: Connection) -> T:
                commit()
                return await work(connection)

            return await self._do(work_and_commit, self._writing, _WRITE_SECONDS)

        return await self._run(written)

    async def _read(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        return await self._run(lambda _: self._do(work, self._reading, _READ_SECONDS))

    async def _run_in_background(self, work: Callable[[Connection], Awaitable[T]], seconds: float) -> T:
        return await self._run(lambda _: self._do(work, self._reading, seconds))

    async def apply_migrations(self, path: str | os.PathLike[str] | None = None) -> MigrationReport:
        """Apply the migrations of this distribution, as the contract says; `path` is ignored."""
        if self._pooled:
            await self._refuse_to_migrate_over_a_pooler()

        async def attempt(_: Commit) -> MigrationReport | None:
            work = partial(schema.try_to_apply, name=self._schema, where=self._place)
            return await self._do(work, self._writing, schema.MIGRATION_SECONDS)

        return await schema.apply(lambda: self._run(attempt), self._place)

    async def _refuse_to_migrate_over_a_pooler(self) -> None:
        pending = (await self.schema_status()).pending
        if pending:
            raise MigrationError(
                f"the PostgreSQL database {self._place} lacks the migrations {', '.join(pending)}, and cannot be "
                "migrated through a pooler (pgbouncer=true); run `llmbridge storage migrate` with the URL of the "
                "server itself"
            )

    async def schema_status(self) -> SchemaStatus:
        return await self._read(partial(schema.status, name=self._schema, where=self._place))

    async def upsert_models(self, models: Sequence[LLMModel]) -> UpsertResult:
        return await self._write(partial(model_rows.upsert_models, models=models, where=self._place))

    async def list_models(
        self, provider: str | None = None, model_name: str | None = None, active_only: bool = True
    ) -> list[LLMModel]:
        return await self._read(
            partial(model_rows.list_models, provider=provider, model_name=model_name, active_only=active_only)
        )

    async def retire_models(self, keys: Sequence[tuple[str, str]], at: datetime) -> int:
        return await self._write(partial(model_rows.retire_models, keys=keys, at=at, where=self._place))

    async def set_prices(self, prices: Sequence[ModelPrice]) -> None:
        await self._write(partial(model_rows.set_prices, prices=prices, where=self._place))

    async def list_prices(self, provider: str | None = None, model_name: str | None = None) -> list[ModelPrice]:
        return await self._read(partial(model_rows.list_prices, provider=provider, model_name=model_name))

    async def record_calls(self, calls: Sequence[CallRecord]) -> RecordResult:
        if len(calls) > MAX_BATCH:
            raise ValueError(f"{len(calls)} calls in one batch: pass at most {MAX_BATCH}")
        result = await self._write(partial(call_rows.insert, calls=calls, where=self._place, lot=self._folding.lot))
        await self._folding.after_batch()
        return result

    async def list_calls(self, query: CallQuery) -> CallPage:
        return await self._read(partial(call_rows.select, query=query))

    async def summarize_usage(self, query: UsageQuery) -> list[UsageRow]:
        return await self._read(partial(usage.summarize, query=query))

    async def fold_totals(self) -> None:
        """Fold all calls that are not folded yet. This also happens automatically, and changes no result."""
        for lots in await self._read(rollups.lots_by_slices):
            await self._write(partial(rollups.fold_lots, lots=lots, where=self._place))

    async def clock(self) -> datetime:
        now: datetime = await self._read(lambda connection: connection.fetch_value("SELECT clock_timestamp()"))
        return now

    async def purge_calls(self, before: datetime) -> int:
        midnight = before.replace(hour=0, minute=0, second=0, microsecond=0)
        after = purge.BEFORE_ALL

        async def delete() -> tuple[int, bool]:
            nonlocal after
            deleted, last = await self._write(partial(purge.delete, after=after, where=self._place))
            after = last or after
            return deleted, last is not None

        async def purged() -> int:
            await self.fold_totals()  # so that the transaction that purges has few calls left to fold
            await self._write(partial(purge.purge, to=midnight, where=self._place))
            return await in_slices(delete)

        return await self._tasks.to_its_end(purged())

    async def compact(self) -> int:
        """Refuse: VACUUM FULL locks a table for as long as it takes, which an operator should decide."""
        raise UnsupportedOperationError(
            "PostgreSQL uses the space of deleted rows for new ones, once autovacuum has passed over the table. "
            f"VACUUM FULL {self._schema}.llmbridge_calls gives it back to the file system, but locks the table"
        )

    async def reprice_calls(self, changes: Sequence[CostChange]) -> int:
        return await self._write(partial(reprice.reprice, changes=changes, where=self._place))

    async def read_totals(self, cursor: str | None = None) -> TotalsPage:
        return await self._read(partial(totals_copy.read_totals, cursor=cursor))

    async def write_totals(self, rows: Sequence[TotalsRow], watermark: datetime | None) -> None:
        await self._write(partial(totals_copy.write_totals, rows=rows, watermark=watermark, where=self._place))

    async def erase_user(self, origin: str, id_at_origin: str) -> int:
        one = partial(erase.erase, origin=origin, user=id_at_origin, where=self._place)
        return await self._tasks.to_its_end(in_slices(partial(self._write, one)))

    async def check_totals(self, repair: bool = False) -> TotalsReport:
        """Compare the folded calls of each day with the rollups of the day, as the contract says."""
        run = self._write if repair else self._read

        async def next_day(start: int) -> int | None:
            return await self._read(partial(totals_check.next_day, start=start))

        async def check(day: int) -> TotalsReport:
            return await run(partial(totals_check.check_day, day=day, repair=repair, where=self._place))

        async def whole() -> TotalsReport:
            ahead = await self._read(purge.future_watermark)
            if ahead is not None and repair:
                await self._write(partial(purge.lower_watermark, where=self._place))
            report = await check_by_day(next_day, check, first=totals_check.FIRST, day=totals_check.DAY)
            return replace(report, future_watermark=ahead)

        return await self._tasks.to_its_end(whole())

    async def ping(self) -> None:
        await self._read(lambda connection: connection.fetch_value("SELECT 1"))

    async def execute(self, query: str, *args: Any) -> None:
        await self._run_statement(query, args)

    async def fetch_one(self, query: str, *args: Any) -> dict[str, Any] | None:
        return sql_access.first(await self._run_statement(query, args))

    async def fetch_all(self, query: str, *args: Any) -> list[dict[str, Any]]:
        return sql_access.every(await self._run_statement(query, args))

    async def fetch_value(self, query: str, *args: Any) -> Any:
        return sql_access.value(await self._run_statement(query, args))

    async def execute_and_return_id(self, query: str, *args: Any) -> int:
        return sql_access.new_id(await self._run_statement(query, args, returning_id=True))

    async def _run_statement(self, query: str, args: tuple[Any, ...], *, returning_id: bool = False) -> list[Any]:
        written = sql_statement.prepare(
            query, schema=self._expand("{{schema}}"), table=lambda name: self._expand(f"{{{{tables.{name}}}}}")
        )
        if returning_id:
            written = sql_statement.returning_id(written)
        return await self._write(partial(sql_access.run, statement=written, args=args, where=self._place))

    async def get_slow_queries(self, threshold_ms: float | None = None) -> list[dict[str, Any]]:
        """Return statements that took longer than `threshold_ms` (None: 100 ms), oldest first; an empty list without
        `enable_monitoring`."""
        return self._monitor.slow_queries(threshold_ms) if self._monitor is not None else []

    async def get_query_metrics(self) -> dict[str, Any] | None:
        """Return counts of statements and their durations in ms, None without `enable_monitoring`."""
        return self._monitor.query_metrics() if self._monitor is not None else None

    async def get_pool_stats(self) -> dict[str, Any]:
        """Return the sizes of the connection pool and the server's address."""
        if not self._is_open:
            return {"status": "not_connected"}
        return await self._run(lambda _: self._source.stats()) | {"schema": self._schema}


async def _cancel(task: asyncio.Task[Any], connection: asyncpg.Connection) -> None:
    """Cancel an operation, and close its connection if that is not usable again within `_CANCEL_SECONDS`: a server
    that hangs does not answer a ROLLBACK either."""
    task.cancel()
    try:
        async with asyncio.timeout(_CANCEL_SECONDS):
            await asyncio.wait([task])
            await connection.execute("SELECT 1")  # returns when the server has cancelled the statement
    except (TimeoutError, *DRIVER_ERRORS):
        connection.terminate()
        await asyncio.wait([task])
    except asyncio.CancelledError:
        connection.terminate()
        raise
    finally:
        if task.done() and not task.cancelled():
            task.exception()
