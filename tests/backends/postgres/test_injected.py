"""The pgdbm manager of a host application is used, can be shared, and is left open."""

from __future__ import annotations

import asyncio
import json
import warnings
from collections.abc import AsyncIterator, Callable
from typing import Any

import asyncpg
import pytest
from pgdbm import AsyncDatabaseManager, DatabaseConfig, MonitoredAsyncDatabaseManager

from llmbridge._shared.ids import new_id
from llmbridge.db import LLMDatabase
from llmbridge.errors import InvalidStorageURLError, StorageUnavailableError
from llmbridge.plugins import create_backend
from llmbridge.storage import CallQuery, RecordResult, UsageQuery
from llmbridge.storage.reference import summarize
from llmbridge.testing import make_call
from llmbridge.testing.comparison import assert_same
from llmbridge_postgres import PostgreSQLBackend

Shell = Callable[..., list[dict[str, object]]]


def config(url: str, **changes: Any) -> DatabaseConfig:
    options = {"min_connections": 1, "max_connections": 2, "retry_attempts": 1} | changes
    return DatabaseConfig(connection_string=url, **options)


@pytest.fixture
async def shared(url: str) -> AsyncIterator[asyncpg.Pool]:
    pool = await AsyncDatabaseManager.create_shared_pool(config(url, max_connections=4))
    yield pool
    await pool.close()


async def use(backend: PostgreSQLBackend, number: int = 0) -> int:
    """Migrate, record one call, and count them."""
    await backend.apply_migrations()
    await backend.record_calls([make_call(number)])
    return (await backend.summarize_usage(UsageQuery()))[0].calls


async def test_a_manager_that_is_not_connected_is_connected_at_first_use_and_left_open(url: str) -> None:
    manager = AsyncDatabaseManager(config(url))
    async with PostgreSQLBackend(db_manager=manager) as backend:
        assert await use(backend) == 1
    assert await manager.fetch_value("SELECT count(*) FROM llmbridge.llmbridge_calls") == 1
    await manager.disconnect()


async def test_a_manager_that_is_connected_is_used_as_it_is(url: str) -> None:
    manager = AsyncDatabaseManager(config(url, schema="host"))
    await manager.connect()
    async with PostgreSQLBackend(db_manager=manager) as backend:
        assert await use(backend) == 1
    assert await manager.fetch_value("SELECT count(*) FROM {{tables.llmbridge_calls}}") == 1
    await manager.disconnect()


async def test_a_schema_that_is_given_comes_before_the_managers_own(url: str, shell: Shell) -> None:
    manager = MonitoredAsyncDatabaseManager(config(url, schema="host"))
    async with PostgreSQLBackend(db_manager=manager, schema="books") as backend:
        await use(backend)
    await manager.disconnect()
    assert shell("SELECT schemaname FROM pg_tables WHERE tablename = 'llmbridge_calls'") == [{"schemaname": "books"}]


async def test_two_services_share_one_pool_and_do_not_see_each_other(shared: asyncpg.Pool) -> None:
    managers = [AsyncDatabaseManager(pool=shared, schema=name) for name in ("one", "two")]
    backends = [PostgreSQLBackend(db_manager=manager) for manager in managers]
    await asyncio.gather(*(backend.connect() for backend in backends))
    assert await asyncio.gather(*(use(backend, number) for number, backend in enumerate(backends))) == [1, 1]
    await asyncio.gather(*(backend.disconnect() for backend in backends))
    assert await shared.fetchval("SELECT 1") == 1


async def test_two_services_may_connect_one_manager_at_once(url: str) -> None:
    manager = AsyncDatabaseManager(config(url))
    backends = [PostgreSQLBackend(db_manager=manager, schema=name) for name in ("one", "two")]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        await asyncio.gather(*(backend.connect() for backend in backends))
    assert await asyncio.gather(*(use(backend) for backend in backends)) == [1, 1]
    await asyncio.gather(*(backend.disconnect() for backend in backends))
    await manager.disconnect()


async def test_a_pool_of_one_serves_everything(url: str) -> None:
    pool = await AsyncDatabaseManager.create_shared_pool(config(url, max_connections=1))
    manager = AsyncDatabaseManager(pool=pool, schema="books")
    async with PostgreSQLBackend(db_manager=manager) as backend:
        await backend.apply_migrations()
        await asyncio.gather(
            *(backend.record_calls([make_call(number)]) for number in range(20)),
            *(backend.summarize_usage(UsageQuery()) for _ in range(20)),
        )
        assert (await backend.summarize_usage(UsageQuery()))[0].calls == 20
    await pool.close()


@pytest.mark.parametrize("size", [3, 80])
@pytest.mark.parametrize(
    ("kind", "encode", "decode"),
    [
        ("json", json.dumps, json.loads),
        ("jsonb", json.dumps, json.loads),
        ("uuid", str, str),
        ("text", str, str),
        ("int8", str, int),
    ],
)
async def test_a_host_may_have_types_written_and_read_in_its_own_way(
    kind: str, encode: Callable[[Any], str], decode: Callable[[str], Any], size: int, url: str
) -> None:
    async def prepare(connection: asyncpg.Connection) -> None:
        await connection.set_type_codec(kind, schema="pg_catalog", encoder=encode, decoder=decode)

    calls = [make_call(number, metadata={"team": "a"}, tools_used=["t"], group_id=new_id()) for number in range(size)]
    async with asyncpg.create_pool(url, init=prepare, min_size=1, max_size=2) as pool:
        manager = AsyncDatabaseManager(pool=pool, schema="books")
        async with PostgreSQLBackend(db_manager=manager, fold_after=1) as backend:
            await backend.apply_migrations()
            assert await backend.record_calls(calls) == RecordResult(size, 0)
            assert await backend.record_calls(calls) == RecordResult(0, size)
            page = await backend.list_calls(CallQuery())
            assert_same(page.calls, sorted(calls, key=lambda call: (call.called_at, call.id), reverse=True))
            await backend.fold_totals()
            assert_same(await backend.summarize_usage(UsageQuery()), summarize(calls, UsageQuery()))


async def test_nothing_of_the_pool_is_held_between_batches(shared: asyncpg.Pool) -> None:
    async with PostgreSQLBackend(db_manager=AsyncDatabaseManager(pool=shared, schema="books")) as backend:
        await use(backend)
        async with asyncio.timeout(20):
            while shared.get_idle_size() < shared.get_size():  # folding takes one for a moment
                await asyncio.sleep(0.01)


async def test_a_pool_that_the_host_keeps_busy_is_not_waited_for_for_ever(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = await AsyncDatabaseManager.create_shared_pool(config(url, max_connections=1))
    async with PostgreSQLBackend(db_manager=AsyncDatabaseManager(pool=pool, schema="books")) as backend:
        await use(backend)
        monkeypatch.setattr("llmbridge_postgres.pool.ACQUIRE_SECONDS", 0.1)
        async with pool.acquire():
            with pytest.raises(StorageUnavailableError, match="in time"):
                await backend.record_calls([make_call(1)])
        assert (await backend.record_calls([make_call(1)])).inserted == 1
    await pool.close()


async def test_the_settings_of_the_host_come_back_after_a_migration(shared: asyncpg.Pool) -> None:
    async with PostgreSQLBackend(db_manager=AsyncDatabaseManager(pool=shared, schema="books")) as backend:
        before = await shared.fetchval("SHOW lock_timeout")
        await backend.apply_migrations()
        assert await shared.fetchval("SHOW lock_timeout") == before == "5s"


async def test_by_create_backend_and_with_a_url_as_well(url: str) -> None:
    manager = AsyncDatabaseManager(config(url))
    assert isinstance(create_backend(None, db_manager=manager, schema="books"), PostgreSQLBackend)
    for wrong in ({"url": url, "db_manager": manager}, {"db_manager": "no manager"}):
        with pytest.raises(InvalidStorageURLError):
            create_backend(**wrong)
        with pytest.raises(InvalidStorageURLError):
            PostgreSQLBackend(**wrong)
    with pytest.raises(InvalidStorageURLError):
        PostgreSQLBackend()


@pytest.mark.parametrize("schema", [None, "books"])
async def test_a_manager_leads_to_the_same_store_as_its_url(url: str, shared: asyncpg.Pool, schema: str | None) -> None:
    managers = (AsyncDatabaseManager(config(url, schema=schema)), AsyncDatabaseManager(pool=shared, schema=schema))
    target = create_backend(url, schema=schema).target
    for manager in managers:
        assert create_backend(db_manager=manager, schema=schema or "llmbridge").target == target


@pytest.mark.parametrize(
    ("changes", "target"),
    [
        ({"host": "DB", "port": 5433, "database": "books"}, "postgresql://db:5433/books"),
        ({"connection_string": "postgresql://me:hunter2@db/books"}, "postgresql://db/books"),
        ({"connection_string": "host=db dbname=books"}, None),
    ],
)
def test_what_the_configuration_of_a_manager_says_names_its_store(changes: dict[str, Any], target: str | None) -> None:
    assert PostgreSQLBackend(db_manager=AsyncDatabaseManager(DatabaseConfig(**changes))).target == target


async def test_a_pool_that_was_made_elsewhere_names_no_store(url: str) -> None:
    async with asyncpg.create_pool(url, min_size=1, max_size=1) as pool:
        assert PostgreSQLBackend(db_manager=AsyncDatabaseManager(pool=pool)).target is None


async def test_the_error_for_a_mixed_case_schema_of_the_manager_says_what_to_do(url: str) -> None:
    manager = AsyncDatabaseManager(config(url, schema="MyHost"))
    with pytest.raises(InvalidStorageURLError, match="schema="):
        PostgreSQLBackend(db_manager=manager)
    PostgreSQLBackend(db_manager=manager, schema="books")


async def test_calls_are_recorded_over_a_manager(url: str) -> None:
    manager = AsyncDatabaseManager(config(url))
    db = LLMDatabase.from_manager(manager, schema="books")
    await db.initialize()
    await db.record_api_call(
        origin="host",
        id_at_origin="user-1",
        provider="openai",
        model_name="gpt-4o-mini",
        prompt_tokens=3,
        completion_tokens=4,
    )
    stats = await db.get_usage_stats("host")
    assert stats is not None
    assert stats.total_tokens == 7
    await db.close()
    assert await manager.fetch_value("SELECT count(*) FROM books.call_log") == 1
    await manager.disconnect()
