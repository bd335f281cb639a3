"""The interfaces that the proposal names work with a SQLite file."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest

from llmbridge.db import LLMDatabase
from llmbridge.db_backends import DatabaseBackend, SQLiteBackend, create_backend

USAGE_SUMMARY = {
    "origin",
    "id_at_origin",
    "provider",
    "model_name",
    "call_count",
    "total_tokens",
    "total_cost",
    "avg_response_time",
    "date",
}


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "llmbridge.db")


async def record(db: LLMDatabase, cost: str) -> None:
    await db.record_api_call(
        origin="test",
        id_at_origin="user1",
        provider="openai",
        model_name="gpt-4o-mini",
        prompt_tokens=10,
        completion_tokens=20,
        estimated_cost=cost,
        response_time_ms=100,
    )


def test_no_url_is_no_backend() -> None:
    assert create_backend(None) is None
    assert create_backend("") is None


async def test_a_database_without_a_url_is_disabled() -> None:
    db = LLMDatabase()
    assert not db.enabled
    await db.initialize()
    assert await db.get_model("openai", "gpt-4o-mini") is None
    assert await db.record_api_call(origin="test", provider="openai", model_name="gpt-4o-mini") is None
    await db.close()


async def test_a_database_takes_a_url_and_ignores_what_only_postgresql_knows(path: str) -> None:
    db = LLMDatabase(connection_string=path, schema="llmbridge", enable_monitoring=True)
    assert db.enabled
    await db.initialize()
    await db.initialize()
    await record(db, "0.001")
    stats = await db.get_usage_stats("test", "user1", days=1)
    assert stats is not None
    assert (stats["total_calls"], stats.total_calls, stats["total_cost"]) == (1, 1, Decimal("0.001"))
    await db.close()


async def test_a_database_takes_a_backend_made_by_hand(path: str) -> None:
    backend = SQLiteBackend(path)
    assert isinstance(backend, DatabaseBackend)
    db = LLMDatabase(backend=backend)
    assert db.enabled
    assert db.backend is backend
    await record(db, "0.001")
    await db.close()
    again = LLMDatabase(connection_string=path)
    assert len(await again.list_recent_calls("test")) == 1
    await again.close()


async def test_migrations_are_counted_and_the_folder_given_is_ignored(path: str) -> None:
    backend = SQLiteBackend(path)
    await backend.connect()
    first = await backend.apply_migrations(Path("nowhere"))
    second = await backend.apply_migrations(Path("nowhere"))
    assert len(first["applied"]) == first["total"] > 0
    assert (second["applied"], second["skipped"], second.get("total")) == ([], first["applied"], first["total"])
    history = await backend.fetch_all("SELECT name, checksum, applied_at FROM migration_history ORDER BY name")
    assert [row["name"] for row in history] == first["applied"]
    assert all(row["checksum"] and row["applied_at"] for row in history)
    await backend.disconnect()


async def test_the_usage_summary_sums_successful_calls_by_day(path: str) -> None:
    db = LLMDatabase(connection_string=path)
    await record(db, "0.1")
    await record(db, "0.2")
    backend = db.backend
    assert isinstance(backend, SQLiteBackend)
    [row] = await backend.fetch_all("SELECT * FROM usage_summary")
    assert set(row) >= USAGE_SUMMARY
    assert (row["origin"], row["id_at_origin"], row["provider"], row["model_name"]) == (
        "test",
        "user1",
        "openai",
        "gpt-4o-mini",
    )
    assert (row["call_count"], row["total_tokens"], row["avg_response_time"]) == (2, 60, 100)
    assert Decimal(row["total_cost"]) == Decimal("0.3")
    await db.close()
