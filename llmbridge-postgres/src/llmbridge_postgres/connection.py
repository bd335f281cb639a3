"""One borrowed connection: what a piece of work is given."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from typing import Any

from asyncpg import Connection, Record

_PLANNING = "SET LOCAL plan_cache_mode = force_custom_plan; SET LOCAL jit = off"

_TAKE_TURN = "LOCK TABLE {{tables.llmbridge_state}} IN SHARE ROW EXCLUSIVE MODE"


class Session:
    """Runs statements, in which `{{tables.NAME}}` is a table of the schema.

    `pooled` is for a transaction pooler: there every statement stands in a transaction, which is what keeps its parts
    together on one connection of the server.
    """

    def __init__(
        self,
        connection: Connection,
        expand: Callable[[str], str],
        *,
        pooled: bool = False,
    ) -> None:
        self.connection = connection
        self._expand = expand
        self._pooled = pooled

    async def fetch(self, query: str, *args: Any) -> list[Record]:
        """All rows of a statement."""
        return await self.fetch_as_written(self._expand(query), *args)

    async def fetch_as_written(self, statement: str, *args: Any) -> list[Record]:
        """All rows of a statement that has no templates of ours."""
        async with self._together():
            rows: list[Record] = await self.connection.fetch(statement, *args)
            return rows

    async def fetch_value(self, query: str, *args: Any) -> Any:
        """The first column of the first row; None when there is none."""
        async with self._together():
            return await self.connection.fetchval(self._expand(query), *args)

    async def execute(self, query: str, *args: Any) -> int:
        """Run a statement; how many rows it touched."""
        async with self._together():
            status: str = await self.connection.execute(self._expand(query), *args)
        return int(status.rpartition(" ")[2]) if status[-1:].isdigit() else 0

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        """A transaction for a change of several statements."""
        async with self.connection.transaction():
            yield

    @asynccontextmanager
    async def turn(self, patience: float | None = None) -> AsyncIterator[None]:
        """A transaction that changes totals: one at a time does, and each sees what those before it did. Calls are
        recorded meanwhile, and readers go on. Waits for at most `patience` seconds (None: as long as it takes)."""
        async with self.connection.transaction(isolation="read_committed"):
            if patience is not None:
                await self.connection.execute(f"SET LOCAL lock_timeout = {round(patience * 1000)}")
            await self.execute(_TAKE_TURN)
            yield

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[None]:
        """One unchanging view of the database, for questions. Each is planned for its own values: a plan for any
        range of time would be a bad one for most."""
        async with self.connection.transaction(isolation="repeatable_read", readonly=True):
            await self.connection.execute(_PLANNING)
            yield

    def _together(self) -> AbstractAsyncContextManager[Any]:
        if self._pooled and not self.connection.is_in_transaction():
            transaction: AbstractAsyncContextManager[Any] = self.connection.transaction()
            return transaction
        return nullcontext()
