"""A pooler in transaction mode: what works with `?pgbouncer=true`, what is refused, and the errors without it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import pytest

from llmbridge import LLMBridge, LLMRequest, Message
from llmbridge.db import LLMDatabase
from llmbridge.errors import MigrationError, StorageError, StorageRefusedError
from llmbridge.storage import UsageQuery
from llmbridge.testing import make_call
from llmbridge_postgres import PostgreSQLBackend

from ...support.pooler import SERVER_CONNECTIONS

REQUEST = LLMRequest(model="echo:parrot", messages=[Message(role="user", content="Hi")])


@pytest.fixture
async def migrated(direct: str) -> None:
    async with PostgreSQLBackend(direct) as backend:
        await backend.apply_migrations()


@asynccontextmanager
async def occupied(url: str) -> AsyncIterator[None]:
    """One of the pooler's connections to the server is in a transaction of another client."""
    connection = await asyncpg.connect(url.partition("?")[0], statement_cache_size=0)
    try:
        async with connection.transaction():
            await connection.execute("SELECT 1")
            yield
    finally:
        await connection.close()


async def test_transactions_of_one_client_run_on_several_connections_of_the_server(pooled: str, migrated: None) -> None:
    async with PostgreSQLBackend(pooled, max_connections=1) as backend:
        first = await backend.fetch_value("SELECT pg_backend_pid()")
        async with occupied(pooled):
            assert await backend.fetch_value("SELECT pg_backend_pid()") != first


async def test_a_service_works_over_the_pooler(pooled: str, migrated: None) -> None:
    async with LLMBridge(pooled) as bridge:
        responses = await asyncio.gather(*(bridge.chat(REQUEST, id_at_origin="user-1") for _ in range(50)))
        assert {response.record_status for response in responses} == {"committed"}
        stats = await bridge.get_usage_stats("user-1")
        assert stats is not None
        assert stats.total_calls == 50


@pytest.mark.parametrize("size", [1, 10, 49, 50, 1000])
async def test_batches_of_every_size_are_recorded_by_several_services_at_once(
    pooled: str, migrated: None, size: int
) -> None:
    backends = [PostgreSQLBackend(pooled) for _ in range(2 * SERVER_CONNECTIONS)]
    await asyncio.gather(*(backend.connect() for backend in backends))
    results = await asyncio.gather(
        *(
            backend.record_calls([make_call(number * size + n) for n in range(size)])
            for number, backend in enumerate(backends)
        )
    )
    assert [result.inserted for result in results] == [size] * len(backends)
    for backend in backends:
        assert (await backend.summarize_usage(UsageQuery()))[0].calls == size * len(backends)
        await backend.disconnect()


async def test_nothing_is_migrated_over_the_pooler(pooled: str, direct: str) -> None:
    async with PostgreSQLBackend(pooled) as backend:
        with pytest.raises(MigrationError, match=r"`llmbridge storage migrate` with the URL of the server itself"):
            await backend.apply_migrations()
        assert (await backend.schema_status()).current is None
    with pytest.raises(MigrationError, match="llmbridge storage migrate"):
        await LLMDatabase(pooled, on_storage_error="raise").initialize()
    async with PostgreSQLBackend(direct) as server:
        assert (await server.apply_migrations()).applied
    async with PostgreSQLBackend(pooled) as backend:
        assert (await backend.apply_migrations()).applied == []


async def test_without_the_flag_the_error_names_it(unflagged: str, migrated: None) -> None:
    async def use() -> None:
        async with PostgreSQLBackend(unflagged, max_connections=1) as backend:
            async with occupied(unflagged):
                await backend.record_calls([make_call()])
                while backend._folding._running:  # or it meets what the next call is to meet
                    await asyncio.sleep(0.01)
            for number in range(1, 2 * SERVER_CONNECTIONS):
                await backend.record_calls([make_call(number)])

    with pytest.raises(StorageRefusedError, match=r"\?pgbouncer=true") as caught:
        await use()
    assert "\n" not in str(caught.value)


async def test_a_startup_parameter_that_the_pooler_refuses_is_explained(pooled: str) -> None:
    with pytest.raises(StorageError, match="unsupported startup parameter: options") as caught:
        await PostgreSQLBackend(f"{pooled}&options=-c%20work_mem%3D8MB").connect()
    assert isinstance(caught.value, StorageRefusedError)
