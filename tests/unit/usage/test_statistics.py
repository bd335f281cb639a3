"""Statistics of sums: rates, means, percentiles, and daily analytics."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from types import MappingProxyType
from typing import Any

import pytest

from llmbridge import LLMBridge, LLMDatabase
from llmbridge.reports import UsageResult
from llmbridge.storage import UsageRow
from llmbridge.storage.histogram import bucket


async def test_times_of_successful_calls_have_a_mean_and_percentiles() -> None:
    async with LLMDatabase("memory://") as db:
        for number in range(1, 101):
            times = {"response_time_ms": 10 * number, "time_to_first_token_ms": number}
            await db.record_api_call(origin="o", provider="p", model_name="m", **times)
        slow = {"response_time_ms": 60_000, "status": "timeout"}
        await db.record_api_call(origin="o", provider="p", model_name="m", **slow)
        (row,) = await db.usage()
    assert row.response_time_mean_ms == 505
    assert row.first_token_mean_ms == pytest.approx(50.5, rel=0.011)
    for percent in (1, 50, 95, 99, 100):
        assert row.response_time_ms(percent) == pytest.approx(10 * percent, rel=0.011)
        assert row.first_token_ms(percent) == pytest.approx(percent, rel=0.011)
    assert row.success_rate == 100 / 101
    assert row.failed_calls == 1


def test_of_nothing_no_figure_is_made() -> None:
    row = UsageResult()
    figures = (row.success_rate, row.response_time_mean_ms, row.first_token_mean_ms, row.response_time_ms(50))
    assert figures == (None,) * 4
    assert row.first_token_ms(99) is None
    assert row.failed_calls == 0


def test_any_mapping_will_do_for_a_histogram() -> None:
    times = MappingProxyType({bucket(7): 3, bucket(9): 1})
    sums = UsageRow(calls=4, response_time_histogram=times, first_token_histogram=times)  # type: ignore[arg-type]
    row = UsageResult.of(sums, {}, counts_requests=True)
    assert (row.response_time_ms(50), row.first_token_ms(100), row.first_token_mean_ms) == (7, 9, 8)


async def test_daily_analytics_are_per_day_origin_user_provider_and_model() -> None:
    now = datetime.now(UTC)
    known: dict[str, Any] = {"provider": "p", "model_name": "m", "prompt_tokens": 10, "completion_tokens": 5}
    async with LLMBridge("memory://", origin="shop") as bridge:
        assert bridge.db is not None
        paid = {"estimated_cost": "0.1", "response_time_ms": 30}
        await bridge.db.record_api_call(**known, **paid, origin="shop", id_at_origin="ann", called_at=now)
        await bridge.db.record_api_call(**known, **paid, origin="shop", id_at_origin="ann", called_at=now)
        for status in ("error", "timeout", "rate_limited", "cancelled"):
            reason = {"cost_reason": "unknown_model", "status": status}
            await bridge.db.record_api_call(**known, **reason, origin="shop", id_at_origin="ann", called_at=now)
        await bridge.db.record_api_call(**known, origin="shop", called_at=now - timedelta(days=1))
        await bridge.db.record_api_call(**known, origin="other", called_at=now)
        await bridge.db.record_api_call(**known, origin="shop", called_at=now - timedelta(days=2))

        yesterday, today = await bridge.get_daily_analytics(days=2)
        assert (yesterday.date, yesterday.id_at_origin) == (now.date() - timedelta(days=1), None)
        assert (yesterday.total_cost, yesterday.unpriced_calls, yesterday.avg_response_time_ms) == (0, 1, None)
        assert (today.date, today.origin, today.id_at_origin) == (now.date(), "shop", "ann")
        assert (today.total_calls, today.total_tokens, today.total_cost) == (6, 90, Decimal("0.2"))
        assert (today.total_prompt_tokens, today.total_completion_tokens, today.unpriced_calls) == (60, 30, 4)
        assert (today.avg_response_time_ms, today.success_rate) == (30, Decimal("0.3333"))
        counts = (today.error_count, today.timeout_count, today.rate_limit_count, today.cancelled_count)
        assert counts == (1, 1, 1, 1)

        assert [entry.id_at_origin for entry in await bridge.get_daily_analytics("ann")] == ["ann"]
        assert {entry.origin for entry in await bridge.db.get_daily_analytics(days=1)} == {"shop", "other"}
        for days in (0, 20_001, 10**12):
            with pytest.raises(ValueError, match="at least 1 and at most 20000"):
                await bridge.get_daily_analytics(days=days)


async def test_days_of_analytics_are_those_of_the_zone() -> None:
    far_east = "Pacific/Kiritimati"
    async with LLMDatabase("memory://") as db:
        await db.record_api_call(origin="o", provider="p", model_name="m", called_at=datetime.now(UTC))
        (entry,) = await db.get_daily_analytics(days=1, tz=far_east)
    assert entry.date in {date.today() + timedelta(days=n) for n in (0, 1)}
    assert entry.date == (datetime.now(UTC) + timedelta(hours=14)).date()


async def test_without_a_database_there_are_no_analytics() -> None:
    assert await LLMBridge().get_daily_analytics() == []
