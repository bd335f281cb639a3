"""One borrowed connection: what a piece of work is given."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from typing import Any

import asyncpg
from asyncpg import Record

#: Each question is planned for its own values: a plan for any range of time would be a bad one for most.
_PLANNING = "SET LOCAL plan_cache_mode = force_custom_plan; SET LOCAL jit = off"
#: A question about few rows of large tables is answered by indexes and nested loops. Without statistics, or with those
#: of yesterday, PostgreSQL takes ranges of time for much longer than they are and would rather read whole tables.
_OFF = ("seqscan", "hashjoin", "mergejoin", "sort")
_BY_INDEX = "; ".join((_PLANNING, *(f"SET LOCAL enable_{name} = off" for name in _OFF)))

_TAKE_TURN = "SELECT FROM {{tables.llmbridge_state}} WHERE id = 1 FOR NO KEY UPDATE"
_SHUT_OUT_WRITERS = "SELECT FROM {{tables.llmbridge_state}} WHERE id = 1 FOR UPDATE"


class Connection:
    """Runs statements, in which `{{tables.NAME}}` is a table of the schema.

    `pooled` is for a transaction pooler: there every statement stands in a transaction, which is what keeps its parts
    together on one connection of the server.
    """

    def __init__(
        self,
        driver_connection: asyncpg.Connection,
        expand: Callable[[str], str],
        *,
        pooled: bool = False,
    ) -> None:
        self.driver_connection = driver_connection
        self._expand = expand
        self._pooled = pooled

    async def fetch(self, query: str, *args: Any) -> list[Record]:
        """All rows of a statement."""
        return await self.fetch_as_written(self._expand(query), *args)

    async def fetch_as_written(self, statement: str, *args: Any) -> list[Record]:
        """All rows of a statement that has no templates of ours."""
        async with self._together():
            rows: list[Record] = await self.driver_connection.fetch(statement, *args)
            return rows

    async def fetch_value(self, query: str, *args: Any) -> Any:
        """The first column of the first row; None when there is none."""
        async with self._together():
            return await self.driver_connection.fetchval(self._expand(query), *args)

    async def execute(self, query: str, *args: Any) -> int:
        """Run a statement; how many rows it touched."""
        async with self._together():
            status: str = await self.driver_connection.execute(self._expand(query), *args)
        return int(status.rpartition(" ")[2]) if status[-1:].isdigit() else 0

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        """A transaction for a change of several statements, each of which sees what others have committed."""
        async with self.driver_connection.transaction(isolation="read_committed"):
            yield

    @asynccontextmanager
    async def turn(self, timeout: float | None = None, *, shuts_out_writers: bool = False) -> AsyncIterator[None]:
        """A transaction that changes rollups: one at a time does, and each sees what those before it did. Calls are
        recorded meanwhile, and readers go on; with `shuts_out_writers` no writer opens a lot. Waits for at most
        `timeout` seconds (None: as long as it takes)."""
        async with self.driver_connection.transaction(isolation="read_committed"):
            if timeout is not None:
                await self.driver_connection.execute(f"SET LOCAL lock_timeout = {round(timeout * 1000)}")
            await self.fetch(_SHUT_OUT_WRITERS if shuts_out_writers else _TAKE_TURN)
            yield

    @asynccontextmanager
    async def snapshot(self, *, by_index: bool = False) -> AsyncIterator[None]:
        """One unchanging view of the database, for questions; `by_index` for those about few rows of large tables."""
        async with self.driver_connection.transaction(isolation="repeatable_read", readonly=True):
            await self.driver_connection.execute(_BY_INDEX if by_index else _PLANNING)
            yield

    def _together(self) -> AbstractAsyncContextManager[Any]:
        if self._pooled and not self.driver_connection.is_in_transaction():
            transaction: AbstractAsyncContextManager[Any] = self.driver_connection.transaction()
            return transaction
        return nullcontext()
