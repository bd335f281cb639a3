"""LLMDatabase on PostgreSQL, as applications use it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from pgdbm import AsyncDatabaseManager, DatabaseConfig

from llmbridge import LLMBridge, LLMRequest, Message
from llmbridge.db import LLMDatabase
from llmbridge.db_backends import PostgreSQLBackend, create_backend
from llmbridge.errors import SchemaOutdatedError, SchemaTooNewError
from llmbridge.storage import CallQuery
from llmbridge.testing import make_calls
from llmbridge.testing.comparison import assert_same
from llmbridge_sqlite import SQLiteBackend

REQUEST = LLMRequest(model="echo:parrot", messages=[Message(role="user", content="Hi")])


@pytest.mark.parametrize("scheme", ["postgresql", "postgres"])
async def test_changing_the_url_is_all(url: str, scheme: str) -> None:
    async with LLMBridge(url.replace("postgresql", scheme, 1)) as bridge:
        response = await bridge.chat(REQUEST, id_at_origin="user-1")
        assert response.record_status == "committed"
        stats = await bridge.get_usage_stats("user-1", days=30)
        assert stats is not None
        assert stats["total_calls"] == 1


async def test_the_seeds_backend_made_by_hand(url: str) -> None:
    backend = PostgreSQLBackend(url, schema="seed", enable_monitoring=True)
    db = LLMDatabase(backend=backend)
    await db.initialize()
    await db.record_api_call(origin="seed", provider="openai", model_name="gpt-4o", estimated_cost=0.001)
    assert await backend.fetch_value("SELECT total_cost FROM {{tables.usage_summary}}") is not None
    report = await backend.apply_migrations("migrations/postgresql")
    assert report["skipped"] == ["001_baseline"]
    await db.close()


async def test_the_seeds_monitoring(url: str) -> None:
    async with LLMBridge(db_connection_string=url, enable_db_logging=True, enable_monitoring=True) as bridge:
        await bridge.chat(REQUEST)
        assert bridge.db is not None
        metrics: dict[str, Any] | None = await bridge.db.get_query_metrics()
        assert metrics is not None
        assert metrics["queries_executed"] > 0
        assert any("llmbridge_calls" in slow["query"] for slow in await bridge.db.get_slow_queries(0))
        assert (await bridge.db.get_pool_stats())["schema"] == "llmbridge"


async def test_the_seeds_injected_manager(url: str) -> None:
    manager = AsyncDatabaseManager(
        DatabaseConfig(connection_string=url, schema="host", min_connections=1, max_connections=3)
    )
    service = LLMBridge(db_manager=manager)
    response = await service.chat(REQUEST, id_at_origin="user-1")
    assert response.record_status == "committed"
    await service.close()
    assert await manager.fetch_value("SELECT count(*) FROM {{tables.call_log}}") == 1
    await manager.disconnect()


def test_the_url_alone_chooses_the_backend() -> None:
    assert type(create_backend("postgresql://localhost/test")).__name__ == "PostgreSQLBackend"


async def test_checking_instead_of_migrating_names_the_command(url: str) -> None:
    with pytest.raises(SchemaOutdatedError, match="llmbridge storage migrate"):
        await LLMDatabase(url, migrate="check").initialize()


async def test_a_deployment_rolls_past_a_service_that_runs(url: str, shell: Callable[..., Any]) -> None:
    """A newer release migrates under our feet: first so that we may go on writing, then so that we may not."""
    newer = "INSERT INTO llmbridge.llmbridge_schema (migration, writable_from) VALUES ('{}', {})"
    async with LLMBridge(url) as running:
        assert (await running.chat(REQUEST)).record_status == "committed"
        shell(newer.format("002_newer", 1))
        assert (await running.chat(REQUEST)).record_status == "committed"
        async with LLMBridge(url, migrate="check") as started:
            assert (await started.chat(REQUEST)).record_status == "committed"
        shell(newer.format("003_newest", 999))
        assert (await running.chat(REQUEST)).record_status != "committed"
        assert running.db is not None
        [row] = await running.db.usage()
        assert row.calls == 3
        for migrate in ("auto", "check"):
            with pytest.raises(SchemaTooNewError, match="upgrade"):
                await LLMDatabase(url, migrate=migrate).initialize()


async def test_a_thousand_callers_share_few_commits(url: str) -> None:
    db = LLMDatabase(url, enable_monitoring=True)
    await db.initialize()
    await asyncio.gather(
        *(db.record_api_call(origin="o", provider="openai", model_name="gpt-4o", prompt_tokens=n) for n in range(1000))
    )
    batches = [one for one in await db.get_slow_queries(0) if 'INTO "llmbridge".llmbridge_calls' in one["query"]]
    assert len(batches) <= 50
    stats = await db.get_usage_stats("o")
    assert stats is not None
    assert stats.total_calls == 1000
    await db.close()


async def test_every_field_is_what_sqlite_gives_back(url: str) -> None:
    calls = make_calls(1000, seed=11)
    async with PostgreSQLBackend(url) as here, SQLiteBackend(":memory:") as there:
        for backend in (here, there):
            await backend.apply_migrations()
            await backend.record_calls(calls)
        query = CallQuery(limit=1000)
        assert_same((await here.list_calls(query)).calls, (await there.list_calls(query)).calls)
