"""Rows of usage serialise with exact money as text, with the figures that are computed from them, without buckets."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from llmbridge import LLMDatabase
from llmbridge.reports import UsageResult, UsageResults

NOW = datetime.now(UTC)
#: A request that succeeds at the third attempt, with another model, and one that fails.
CALLS: list[dict[str, Any]] = [
    {"model": "a", "status": "timeout", "attempt": 1, "cost_reason": "unmeasured_usage", "response_time_ms": 9_000},
    {"model": "a", "status": "rate_limited", "attempt": 2, "response_time_ms": 5},
    {"model": "b", "status": "success", "attempt": 3, "estimated_cost": "0.000000000001", "response_time_ms": 20},
    {"model": "a", "status": "error", "attempt": 1, "response_time_ms": 7},
]
FIGURES: dict[str, Any] = {
    "calls": 4,
    "requests": 2,
    "prompt_tokens": 0,
    "completion_tokens": 0,
    "total_tokens": 0,
    "cache_read_tokens": 0,
    "cache_write_tokens": 0,
    "reasoning_tokens": 0,
    "cost": "0.000000000001",
    "unpriced_calls": 1,
    "unmeasured_calls": 2,
    "response_time_ms_sum": 20,
    "response_time_ms_count": 1,
    "failed_calls": 3,
    "success_rate": 0.25,
    "request_success_rate": 0.5,
    "response_time_mean_ms": 20,
    "response_time_p50_ms": 20,
    "response_time_p95_ms": 20,
    "response_time_p99_ms": 20,
    "first_token_mean_ms": None,
    "first_token_p50_ms": None,
    "first_token_p95_ms": None,
    "first_token_p99_ms": None,
}
STATUSES = {"success": 1, "error": 1, "timeout": 1, "rate_limited": 1}


@pytest.fixture
async def db() -> AsyncIterator[LLMDatabase]:
    async with LLMDatabase("memory://") as db:
        for fields in CALLS:
            await db.record_api_call(origin="o", provider="p", called_at=NOW, **fields)
        yield db


async def test_a_row_serialises_with_money_as_text(db: LLMDatabase) -> None:
    [row] = await db.usage(group_by="origin")
    assert json.loads(row.model_dump_json()) == {"key": {"origin": "o"}, "by_status": STATUSES, **FIGURES}
    assert row.model_dump()["cost"] == Decimal("0.000000000001")
    assert "key={'origin': 'o'}, calls=4" in repr(row)


async def test_a_web_application_returns_rows_as_they_are(db: LLMDatabase) -> None:
    app = FastAPI()

    @app.get("/bare")
    async def bare():  # type: ignore[no-untyped-def]
        return await db.usage("1d", group_by=("origin", "day"))

    @app.get("/typed")
    async def typed() -> list[UsageResult]:
        return await db.usage("1d", group_by=("origin", "day"))

    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://app") as client:
        for path in ("/bare", "/typed"):
            [row] = (await client.get(path)).json()
            assert row == {"key": {"origin": "o", "day": NOW.date().isoformat()}, "by_status": STATUSES, **FIGURES}
        schema = (await client.get("/openapi.json")).json()["components"]["schemas"]["UsageResult"]
        assert schema["properties"]["cost"]["type"] == "string"


async def test_rows_become_flat_dicts_for_a_data_frame(db: LLMDatabase) -> None:
    rows = await db.usage("1d", group_by=("origin", "day"))
    [flat] = rows.to_dicts()
    counted = {f"{status}_calls": calls for status, calls in STATUSES.items()}
    cost = Decimal(FIGURES["cost"])
    assert flat == {"origin": "o", "day": NOW.date(), **FIGURES, "cost": cost, **counted, "cancelled_calls": 0}


async def test_the_total_is_that_of_one_query(db: LLMDatabase) -> None:
    rows = await db.usage("1d", group_by=("user", "day"))
    [whole] = await db.usage("1d")
    assert rows.total() == whole
    assert UsageResults().total() == UsageResult()


@pytest.mark.parametrize(
    "question",
    [{"group_by": "model"}, {"group_by": "status"}, {"group_by": "error_type"}, {"model": "a"}, {"provider": "p"}],
    ids=str,
)
async def test_requests_are_not_rated_by_a_part_of_their_attempts(db: LLMDatabase, question: dict[str, Any]) -> None:
    rows = await db.usage("1d", **question)
    assert {row.request_success_rate for row in rows} == {None}
    assert rows.total().request_success_rate is None


async def test_what_costs_nothing_prints_as_nothing(db: LLMDatabase) -> None:
    [row] = await db.usage(status="error")
    assert str(row.cost) == "0"
    assert json.loads(row.model_dump_json())["cost"] == "0"


async def test_a_reprice_serialises_with_money_as_text(db: LLMDatabase) -> None:
    report = await db.reprice(dry_run=True)
    found = json.loads(report.model_dump_json())
    assert found["cost_before"] == "0.000000000001"
    assert [model["cost_after"] for model in found["models"]] == ["0", "0.000000000001"]
