"""Where connections come from: a pool of our own, or that of a host application's manager."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager, nullcontext, suppress
from typing import Any, Protocol
from weakref import WeakKeyDictionary

import asyncpg
from pgdbm import AsyncDatabaseManager
from pgdbm.errors import PoolError

from .monitoring import Monitor

#: Seconds that anybody waits for a connection to be free, and that closing waits for the server.
ACQUIRE_SECONDS = 30.0
CLOSE_SECONDS = 10.0


class Connections(Protocol):
    """A source of connections."""

    async def open(self) -> None:
        """Make `acquire` work. Reaches for no server yet, if it is a pool of our own."""

    async def close(self) -> None:
        """Close what `open` opened."""

    def acquire(self) -> AbstractAsyncContextManager[asyncpg.Connection]:
        """A connection for one piece of work; TimeoutError if none is free in time."""

    async def stats(self) -> dict[str, Any]:
        """Sizes of the pool, and who the server is, as pgdbm tells them."""


class OwnPool:
    """A pool that we make, and so without what pgdbm would run on each of its connections."""

    def __init__(
        self, arguments: Mapping[str, Any], schema: str, size: int, *, pgbouncer: bool, monitor: Monitor | None
    ) -> None:
        self._schema = schema
        self._arguments = arguments
        self._size = size
        self._cached = {"statement_cache_size": 0} if pgbouncer else {}
        self._monitor = monitor
        self._pool: asyncpg.Pool | None = None

    async def open(self) -> None:
        self._pool = asyncpg.create_pool(
            **self._arguments, **self._cached, min_size=0, max_size=self._size, reset=_keep_as_it_is
        )
        await self._pool

    async def close(self) -> None:
        pool, self._pool = self._pool, None
        if pool is None:
            return
        # A pool that cannot close its connections in order, or in time, cuts them itself.
        with suppress(TimeoutError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            async with asyncio.timeout(CLOSE_SECONDS):
                await pool.close()

    @asynccontextmanager
    async def acquire(self) -> AsyncIterator[asyncpg.Connection]:
        assert self._pool is not None, "open() comes first"  # noqa: S101
        pool = self._pool
        async with pool.acquire(timeout=ACQUIRE_SECONDS) as connection:
            try:
                with _watched(connection, self._monitor):
                    yield connection
            except asyncpg.ReadOnlySQLTransactionError:
                # What was the primary is a standby now; its address may mean another server by now.
                await pool.expire_connections()
                raise

    async def stats(self) -> dict[str, Any]:
        if self._pool is None:
            return {"status": "not_connected"}
        return await _stats(AsyncDatabaseManager(pool=self._pool, schema=self._schema))


#: Several backends may be given one manager that is not connected; the first connects it.
_connecting: WeakKeyDictionary[AsyncDatabaseManager, asyncio.Lock] = WeakKeyDictionary()


class BorrowedPool:
    """The pool of a host application's manager: connected if it is not, used, never closed."""

    def __init__(self, manager: AsyncDatabaseManager, monitor: Monitor | None) -> None:
        self._manager = manager
        self._monitor = monitor

    async def open(self) -> None:
        async with _connecting.setdefault(self._manager, asyncio.Lock()), asyncio.timeout(ACQUIRE_SECONDS):
            try:
                async with self._manager.acquire():
                    return
            except PoolError:
                await self._manager.connect()

    async def close(self) -> None:
        """Leave it open: it is the host's."""

    @asynccontextmanager
    async def acquire(self) -> AsyncIterator[asyncpg.Connection]:
        borrowed = self._manager.acquire()
        async with asyncio.timeout(ACQUIRE_SECONDS):
            connection = await borrowed.__aenter__()
        try:
            with _watched(connection, self._monitor):
                yield connection
        except BaseException as error:
            if not await borrowed.__aexit__(type(error), error, error.__traceback__):
                raise
        else:
            await borrowed.__aexit__(None, None, None)

    async def stats(self) -> dict[str, Any]:
        return await _stats(self._manager)


async def _stats(manager: AsyncDatabaseManager) -> dict[str, Any]:
    asking = asyncio.ensure_future(manager.get_pool_stats())
    try:
        done, _ = await asyncio.wait([asking], timeout=ACQUIRE_SECONDS)
    finally:
        asking.cancel()  # and not waited for: giving back its connection waits for a server that hangs
    if not done:
        raise TimeoutError
    return asking.result()


def _watched(connection: asyncpg.Connection, monitor: Monitor | None) -> AbstractContextManager[Any]:
    watched: AbstractContextManager[Any] = nullcontext() if monitor is None else connection.query_logger(monitor)
    return watched


async def _keep_as_it_is(connection: asyncpg.Connection) -> None:
    """Nothing of ours outlives its transaction on a connection, so giving it back takes no round trip."""
