"""`enable_monitoring` reports all statements, also those of batches."""

from __future__ import annotations

import asyncio

import pytest
from pgdbm import AsyncDatabaseManager, DatabaseConfig

from llmbridge.errors import StorageError
from llmbridge.storage import UsageQuery
from llmbridge.testing import make_call
from llmbridge_postgres import PostgreSQLBackend


async def test_batches_and_reads_are_counted(url: str) -> None:
    async with PostgreSQLBackend(url, enable_monitoring=True) as backend:
        await backend.apply_migrations()
        before = await backend.get_query_metrics()
        await backend.record_calls([make_call(error_message="not to be shown")])
        while backend._folding._running:  # which is counted, too
            await asyncio.sleep(0.01)
        await backend.summarize_usage(UsageQuery())
        after = await backend.get_query_metrics()
        assert before is not None
        assert after is not None
        assert after["queries_executed"] > before["queries_executed"]
        assert after["slowest_query_ms"] >= after["avg_query_time_ms"] > 0
        every = await backend.get_slow_queries(0)
        assert any("INSERT INTO" in one["query"] and "llmbridge_calls" in one["query"] for one in every)
        await backend.record_calls([make_call(number) for number in range(1, 200)])
        assert len(await backend.get_slow_queries(0)) == len(every) + 1
        assert "not to be shown" not in str(every)


async def test_slow_and_failed_statements_are_told(url: str) -> None:
    async with PostgreSQLBackend(url, enable_monitoring=True) as backend:
        await backend.execute("SELECT pg_sleep(0.2)")
        with pytest.raises(StorageError):
            await backend.execute("SELECT * FROM nowhere")
        await backend.ping()
        told = await backend.get_slow_queries()
        assert min(one["duration_ms"] for one in told) > 100
        [slow] = [one for one in told if "pg_sleep" in one["query"]]
        assert slow["duration_ms"] >= 200
        assert slow["end_time"] > slow["start_time"]
        metrics = await backend.get_query_metrics()
        assert metrics is not None
        assert metrics["queries_failed"] == 1


async def test_pool_stats_are_there_with_and_without_monitoring(url: str) -> None:
    backend = PostgreSQLBackend(url)
    assert (await backend.get_pool_stats())["status"] == "not_connected"
    async with backend:
        stats = await backend.get_pool_stats()
        assert (stats["status"], stats["max_size"]) == ("connected", 5)
        assert stats["size"] == stats["free_size"] + stats["used_size"]
        assert await backend.get_slow_queries() == []
        assert await backend.get_query_metrics() is None


async def test_a_borrowed_pool_is_watched_only_while_we_have_it(url: str) -> None:
    manager = AsyncDatabaseManager(DatabaseConfig(connection_string=url, min_connections=1, max_connections=1))
    async with PostgreSQLBackend(db_manager=manager, enable_monitoring=True) as backend:
        await manager.execute("SELECT 'of the host'")
        await backend.execute("SELECT 'of ours'")
        await backend.ping()
        seen = str(await backend.get_slow_queries(0))
        assert "of ours" in seen
        assert "of the host" not in seen
        assert (await backend.get_pool_stats())["max_size"] == 1
    await manager.disconnect()
