"""Sources of connections: the backend's own pool, or the pool of a host application's manager."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager, nullcontext, suppress
from typing import Any, Protocol
from weakref import WeakKeyDictionary

import asyncpg
from pgdbm import AsyncDatabaseManager
from pgdbm.errors import PoolError

from .connection import SEARCH_PATH
from .monitoring import Monitor

#: Seconds to wait for a free connection, and for the server when the pool is closed.
ACQUIRE_SECONDS = 30.0
CLOSE_SECONDS = 10.0


class Connections(Protocol):
    """A source of connections."""

    async def open(self) -> None:
        """Open the source. The backend's own pool does not connect to the server yet."""

    async def close(self) -> None:
        """Close what `open` has opened."""

    def acquire(self) -> AbstractAsyncContextManager[asyncpg.Connection]:
        """Borrow a connection for one operation.

        :raises TimeoutError: no connection was free in time
        """

    async def stats(self) -> dict[str, Any]:
        """Return the sizes of the pool and the server's address, as pgdbm reports them."""


class OwnPool:
    """The backend's own pool. It is created without pgdbm, which would run statements on each new connection."""

    def __init__(
        self, arguments: Mapping[str, Any], schema: str, size: int, *, pgbouncer: bool, monitor: Monitor | None
    ) -> None:
        self._schema = schema
        self._arguments = dict(arguments)
        if pgbouncer:
            self._arguments["statement_cache_size"] = 0
        else:  # A pooler refuses the search path as a setting of the session.
            self._arguments["server_settings"] = arguments["server_settings"] | {"search_path": SEARCH_PATH}
        self._size = size
        self._monitor = monitor
        self._pool: asyncpg.Pool | None = None

    async def open(self) -> None:
        self._pool = asyncpg.create_pool(**self._arguments, min_size=0, max_size=self._size, reset=_keep_as_it_is)
        await self._pool

    async def close(self) -> None:
        pool, self._pool = self._pool, None
        if pool is None:
            return
        # If closing fails or takes too long, the pool terminates its connections itself.
        with suppress(TimeoutError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            async with asyncio.timeout(CLOSE_SECONDS):
                await pool.close()

    @asynccontextmanager
    async def acquire(self) -> AsyncIterator[asyncpg.Connection]:
        assert self._pool is not None, "call open() first"  # noqa: S101
        pool = self._pool
        async with pool.acquire(timeout=ACQUIRE_SECONDS) as connection:
            try:
                with _watched(connection, self._monitor):
                    yield connection
            except asyncpg.ReadOnlySQLTransactionError:
                # The primary has become a standby, and the address may lead to another server now.
                await pool.expire_connections()
                raise

    async def stats(self) -> dict[str, Any]:
        if self._pool is None:
            return {"status": "not_connected"}
        return await _stats(AsyncDatabaseManager(pool=self._pool, schema=self._schema))


#: Several backends may share a manager that is not connected yet; the first one connects it.
_connecting: WeakKeyDictionary[AsyncDatabaseManager, asyncio.Lock] = WeakKeyDictionary()


class BorrowedPool:
    """The pool of a host application's manager. It is connected if necessary, and never closed."""

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
        """Do nothing: the pool belongs to the host application."""

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
        asking.cancel()  # not awaited: returning its connection would wait for a server that hangs
    if not done:
        raise TimeoutError
    return asking.result()


def _watched(connection: asyncpg.Connection, monitor: Monitor | None) -> AbstractContextManager[Any]:
    watched: AbstractContextManager[Any] = nullcontext() if monitor is None else connection.query_logger(monitor)
    return watched


async def _keep_as_it_is(connection: asyncpg.Connection) -> None:
    """Reset nothing when a connection is returned, which saves a round trip: no setting outlives its transaction."""
