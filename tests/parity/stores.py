"""The backends that are compared, and their event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any, Protocol, TypeVar

import asyncpg

from llmbridge.storage import StorageBackend
from llmbridge.storage.memory import MemoryBackend
from llmbridge_postgres import PostgreSQLBackend
from llmbridge_sqlite import SQLiteBackend

T = TypeVar("T")
_numbers = count(1)


class Store(Protocol):
    """Where backends of one kind are made."""

    name: str

    async def empty(self) -> StorageBackend:
        """A backend, not connected, on a store without a record, which outlives its connections."""

    async def close(self) -> None:
        """Release what all of them shared."""


class MemoryStore:
    """Memory, in the form of one backend class."""

    def __init__(self, kind: type[MemoryBackend] = MemoryBackend) -> None:
        self.name = kind.__name__
        self._kind = kind

    async def empty(self) -> StorageBackend:
        return self._kind(f"parity-{next(_numbers)}")

    async def close(self) -> None:
        """There is nothing to release."""


class SQLiteStore:
    """A new file each time. What its syncs cost would be most of a run, and a loss of power is not what is asked."""

    def __init__(self, folder: Path, kind: type[SQLiteBackend] = SQLiteBackend) -> None:
        self.name = kind.__name__
        self._kind = kind
        self._folder = folder
        self._last: Path | None = None

    async def empty(self) -> StorageBackend:
        await self.close()
        self._last = self._folder / f"{next(_numbers)}.db"
        return self._kind(self._last, synchronous="normal")

    async def close(self) -> None:
        if self._last is not None:
            self._last.unlink(missing_ok=True)


class PostgreSQLStore:
    """One schema, emptied by the superuser of `url`."""

    name = PostgreSQLBackend.__name__

    _EMPTY = """
    DELETE FROM parity.llmbridge_calls;
    DELETE FROM parity.llmbridge_lots;
    DELETE FROM parity.llmbridge_usage_by_time;
    DELETE FROM parity.llmbridge_usage_by_user;
    UPDATE parity.llmbridge_state SET watermark = NULL;
    DELETE FROM parity.llmbridge_models;
    DELETE FROM parity.llmbridge_prices
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._superuser: asyncpg.Connection | None = None

    async def empty(self) -> StorageBackend:
        backend = PostgreSQLBackend(self._url, schema="parity")
        if self._superuser is None:
            self._superuser = await asyncpg.connect(self._url)
            async with backend:
                await backend.apply_migrations()
        await self._superuser.execute(self._EMPTY)
        return backend

    async def close(self) -> None:
        if self._superuser is not None:
            await self._superuser.close()


class Arena:
    """Stores on one event loop. The first is the oracle."""

    def __init__(self, loop: asyncio.AbstractEventLoop, stores: Sequence[Store]) -> None:
        self._loop = loop
        self._stores = stores

    def empty(self) -> dict[str, StorageBackend]:
        """A backend on an empty store of each kind, not connected."""

        async def made() -> dict[str, StorageBackend]:
            return {store.name: await store.empty() for store in self._stores}

        return self._loop.run_until_complete(made())

    def narrow_to(self, *names: str) -> None:
        """Leave out the others from the next contest on: once two disagree, only they are needed to show how."""
        self._stores = [store for store in self._stores if store.name in names]

    def of_all(self, parties: dict[str, Any], ask: Callable[[Any], Awaitable[T]]) -> dict[str, T]:
        """What each party answers, asked at the same time."""

        async def asked() -> dict[str, T]:
            return dict(zip(parties, await asyncio.gather(*map(ask, parties.values())), strict=True))

        return self._loop.run_until_complete(asked())

    @classmethod
    @contextmanager
    def of(cls, *stores: Store) -> Iterator[Arena]:
        """An arena that ends with the block."""
        with asyncio.Runner() as runner:
            try:
                yield cls(runner.get_loop(), stores)
            finally:
                for store in stores:
                    runner.run(store.close())
