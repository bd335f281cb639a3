"""The connection of one operation: runs statements and opens the kinds of transaction that the backend uses."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from typing import Any

import asyncpg
from asyncpg import Record

#: Where PostgreSQL looks for names without a schema. In the search path of a role or of a host application, others may
#: have functions, operators and types that fit the arguments better than PostgreSQL's own, and would run as this role.
SEARCH_PATH = "pg_catalog, pg_temp"
_SET_SEARCH_PATH = f"SET LOCAL search_path TO {SEARCH_PATH}"
#: Plan each query for its own values. A generic plan for any range of time is bad for most ranges.
_PLANNING = "SET LOCAL plan_cache_mode = force_custom_plan; SET LOCAL jit = off"
#: For a query of few rows of large tables, indexes and nested loops are best. If statistics are missing or old,
#: PostgreSQL overestimates ranges of time and reads whole tables instead.
_OFF = ("seqscan", "hashjoin", "mergejoin", "sort")
_BY_INDEX = "; ".join((_PLANNING, *(f"SET LOCAL enable_{name} = off" for name in _OFF)))

_LOCK_ROLLUPS = "SELECT FROM {{tables.llmbridge_state}} WHERE id = 1 FOR NO KEY UPDATE"
_LOCK_OUT_WRITERS = "SELECT FROM {{tables.llmbridge_state}} WHERE id = 1 FOR UPDATE"


class Connection:
    """A borrowed connection of asyncpg. In statements, `{{tables.NAME}}` stands for a table of the schema.

    `pooled`: the connection goes through a pooler in transaction mode. `of_host`: it belongs to the host application.
    In both cases the session is not ours, so every statement runs in a transaction that sets the search path. With a
    pooler, a transaction also keeps the messages of one statement on one server connection. Our own connections have
    the search path from their start.
    """

    def __init__(
        self,
        driver_connection: asyncpg.Connection,
        expand: Callable[[str], str],
        *,
        pooled: bool = False,
        of_host: bool = False,
    ) -> None:
        self.driver_connection = driver_connection
        self._expand = expand
        self._pooled = pooled
        self._is_own = not (pooled or of_host)

    async def fetch(self, query: str, *args: Any) -> list[Record]:
        """Return all rows of a statement."""
        async with self._transaction_of_statement():
            rows: list[Record] = await self.driver_connection.fetch(self._expand(query), *args)
            return rows

    async def fetch_as_written(self, statement: str, *args: Any) -> list[Record]:
        """Return all rows of a user's statement without expanding templates. On a connection of the host application,
        it runs with the settings of that."""
        async with self._transaction_of_statement() if self._pooled else nullcontext():
            rows: list[Record] = await self.driver_connection.fetch(statement, *args)
            return rows

    async def fetch_value(self, query: str, *args: Any) -> Any:
        """Return the first column of the first row, None if there is no row."""
        async with self._transaction_of_statement():
            return await self.driver_connection.fetchval(self._expand(query), *args)

    async def execute(self, query: str, *args: Any) -> int:
        """Run a statement and return how many rows it changed."""
        async with self._transaction_of_statement():
            status: str = await self.driver_connection.execute(self._expand(query), *args)
        return int(status.rpartition(" ")[2]) if status[-1:].isdigit() else 0

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        """Open a transaction in which each statement sees what others have committed."""
        async with self._begin(isolation="read_committed"):
            yield

    @asynccontextmanager
    async def rollup_transaction(
        self, timeout: float | None = None, *, lock_out_writers: bool = False
    ) -> AsyncIterator[None]:
        """Open a transaction that may change rollups, and wait at most `timeout` seconds for its lock (None: no limit).

        Only one such transaction runs at a time, and it sees what the previous ones committed. Readers and writers of
        calls continue. With `lock_out_writers`, no writer opens a lot meanwhile.
        """
        limit = () if timeout is None else (f"SET LOCAL lock_timeout = {round(timeout * 1000)}",)
        async with self._begin(*limit, isolation="read_committed"):
            await self.fetch(_LOCK_OUT_WRITERS if lock_out_writers else _LOCK_ROLLUPS)
            yield

    @asynccontextmanager
    async def snapshot(self, *, by_index: bool = False) -> AsyncIterator[None]:
        """Open a read-only transaction that sees one state of the database; `by_index` is for queries that read few
        rows of large tables."""
        async with self._begin(_BY_INDEX if by_index else _PLANNING, isolation="repeatable_read", readonly=True):
            yield

    @asynccontextmanager
    async def _begin(self, *settings: str, **kind: Any) -> AsyncIterator[None]:
        """Open a transaction and apply settings to it, all of them in one round trip."""
        settings = settings if self._is_own else (_SET_SEARCH_PATH, *settings)
        async with self.driver_connection.transaction(**kind):
            if settings:
                await self.driver_connection.execute("; ".join(settings))
            yield

    def _transaction_of_statement(self) -> AbstractAsyncContextManager[None]:
        if self._is_own or self.driver_connection.is_in_transaction():
            return nullcontext()
        return self.transaction()
