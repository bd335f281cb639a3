"""Without a database every read is empty, every write does nothing, and any event loop can use the object."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path

import pytest

from llmbridge import LLMDatabase
from llmbridge._models import catalog
from llmbridge.schemas import CallRecord, LLMModel
from llmbridge.storage import CallQuery, ModelPrice

MODEL = LLMModel(provider="acme", model_name="m", dollars_per_million_tokens_input=1)
FIELDS = {
    "origin": "app",
    "provider": "openai",
    "model_name": "gpt-4o-mini",
    "prompt_tokens": 1000,
    "completion_tokens": 0,
}


async def test_reads_are_empty() -> None:
    db = LLMDatabase()
    assert await db.usage() == []
    assert await db.usage(group_by="model_name") == []
    assert (await db.list_calls(CallQuery())).calls == []
    assert await db.list_recent_calls() == []
    assert await db.get_usage_stats("app") is None
    assert await db.get_daily_analytics("app") == []
    assert await db.list_models() == []
    assert await db.list_prices() == []
    assert await db.known_models() == catalog.models()
    assert await db.schema_status() is None


async def test_writes_do_nothing() -> None:
    db = LLMDatabase()
    assert await db.record_api_call(**FIELDS) is None
    assert await db.upsert_models([MODEL]) == (0, 0)
    assert await db.add_model(MODEL) is None
    assert not await db.update_model_costs("acme", "m", 1, 1)
    await db.set_prices([ModelPrice("acme", "m", datetime.now(UTC))])
    assert await db.list_prices() == []
    assert await db.purge(datetime(2020, 1, 1, tzinfo=UTC)) == 0
    assert await db.forget("user") == []
    assert (await db.reprice()).examined == 0
    assert (await db.check_totals()).checked == 0
    assert (await db.apply_migrations()).total == 0


async def test_a_call_is_priced_and_not_recorded() -> None:
    record, status = await LLMDatabase().keep(FIELDS)
    assert isinstance(record, CallRecord)
    assert record.estimated_cost is not None
    assert status is None


async def test_what_is_wrong_is_refused_all_the_same() -> None:
    with pytest.raises(ValueError, match="cannot group by"):
        await LLMDatabase().usage(group_by="colour")


async def test_it_has_no_counters_and_is_disabled() -> None:
    db = LLMDatabase()
    assert db.metrics() == {}
    assert await db.health_check() == {"status": "disabled"}
    assert not db.enabled


def test_any_event_loop_may_use_it_also_after_closing(tmp_path: Path) -> None:
    db = LLMDatabase()

    async def use() -> None:
        async with db:
            assert await db.usage() == []
        assert await db.usage() == []

    asyncio.run(use())
    asyncio.run(use())
