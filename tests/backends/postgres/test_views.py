"""The two public views have the columns of SQLite's, exact dollars and days in UTC."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest

from llmbridge import CallRecord
from llmbridge.testing import make_call, make_calls
from llmbridge_postgres import PostgreSQLBackend
from llmbridge_sqlite import SQLiteBackend

Shell = Callable[..., list[dict[str, object]]]


@pytest.mark.parametrize("view", ["usage_summary", "call_log"])
async def test_the_columns_are_those_of_sqlite(backend: PostgreSQLBackend, view: str) -> None:
    await backend.record_calls([make_call()])
    async with SQLiteBackend(":memory:") as sqlite:
        await sqlite.apply_migrations()
        await sqlite.record_calls([make_call()])
        there = await sqlite.fetch_one(f"SELECT * FROM {view}")
    here = await backend.fetch_one(f"SELECT * FROM {{{{tables.{view}}}}}")
    assert there is not None
    assert here is not None
    assert list(here) == list(there)


async def test_a_call_is_shown_with_its_cost_in_dollars(backend: PostgreSQLBackend) -> None:
    call = make_call(metadata={"team": "search"}, stream=True)
    await backend.record_calls([call])
    row = await backend.fetch_one("SELECT * FROM {{tables.call_log}}")
    assert row is not None
    assert str(row["estimated_cost"]) == "0.000004800001"
    assert (row["called_at"], row["id"], row["stream"]) == (call.called_at, call.id, True)
    assert row["metadata"] == '{"team":"search"}'


async def test_call_log_has_the_fields_of_a_call_and_shows_how_it_was_priced(backend: PostgreSQLBackend) -> None:
    call = make_call(
        dollars_per_million_tokens_input_used=Decimal("0.15"),
        dollars_per_million_tokens_output_used=Decimal(60),
        price_version="genai-prices 1",
        price_context={"speed": "fast"},
        price_factor=Decimal("0.78"),
        usage_details={"web_searches": 1},
        previous_cost=Decimal("-0.000000000001"),
        repriced_at=datetime(1969, 12, 31, 23, 59, 59, 7, UTC),
        system_prompt_hash="ab" * 32,
    )
    await backend.record_calls([call])
    row = await backend.fetch_one("SELECT * FROM {{tables.call_log}}")
    assert row is not None
    assert set(row) == set(CallRecord.model_fields)
    for name in ("price_version", "previous_cost_reason", "repriced_at", "system_prompt_hash"):
        assert row[name] == getattr(call, name)
    for name in ("input", "output"):
        field = f"dollars_per_million_tokens_{name}_used"
        assert row[field] == getattr(call, field)
    assert row["previous_cost"] == call.previous_cost
    assert str(row["dollars_per_million_tokens_output_used"]) == "60"
    assert str(row["price_factor"]) == "0.78"
    assert (row["usage_details"], row["price_context"]) == ('{"web_searches":1}', '{"speed":"fast"}')


async def test_usage_is_summed_per_utc_day_whatever_the_time_zone_of_the_session(
    backend: PostgreSQLBackend, shell: Shell
) -> None:
    times = [datetime(2024, 3, 31, 23, 59, tzinfo=UTC), datetime(2024, 4, 1, 0, 1, tzinfo=UTC)]
    calls = [make_call(number, called_at=at) for number, at in enumerate(times)]
    failed = make_call(2, status="error", called_at=times[0])
    await backend.record_calls([*calls, failed])
    rows = shell("SET TIME ZONE 'Asia/Tokyo'", "SELECT * FROM llmbridge.usage_summary ORDER BY date")
    assert [(row["date"], row["call_count"]) for row in rows] == [(date(2024, 3, 31), 1), (date(2024, 4, 1), 1)]


async def test_sums_are_exact_beyond_64_bits(backend: PostgreSQLBackend) -> None:
    cost = Decimal("8999999.999999999999")
    calls = [make_call(number, estimated_cost=cost, total_tokens=2**63 - 1) for number in range(4)]
    await backend.record_calls(calls)
    row = await backend.fetch_one("SELECT * FROM {{tables.usage_summary}}")
    assert row is not None
    assert row["total_cost"] == Decimal("35999999.999999999996")
    assert row["total_tokens"] == 4 * (2**63 - 1)


async def test_of_purged_days_as_well_a_sum_without_any_value_is_null(backend: PostgreSQLBackend, shell: Shell) -> None:
    day = datetime(2024, 3, 31, tzinfo=UTC)
    unknown = {
        "estimated_cost": None,
        "cost_reason": "unmeasured_usage",
        "prompt_tokens": None,
        "completion_tokens": None,
        "total_tokens": None,
    }
    await backend.record_calls(
        [
            make_call(0, called_at=day, model_name="blank", **unknown),
            make_call(1, called_at=day, model_name="blank", status="error"),
            make_call(2, called_at=day, model_name="known"),
            make_call(3, called_at=day, model_name="known", status="error", **unknown),
        ]
    )
    query = "SELECT model_name, total_tokens, total_cost::text FROM llmbridge.usage_summary ORDER BY model_name"
    before = [("blank", None, None), ("known", 17, "0.000004800001")]
    assert [tuple(row.values()) for row in shell(query)] == before
    await backend.purge_calls(day + timedelta(days=1))
    assert [tuple(row.values()) for row in shell(query)] == before


async def test_purged_days_are_summed_from_the_totals(backend: PostgreSQLBackend, shell: Shell) -> None:
    dear = {"estimated_cost": Decimal("8999999.999999999999"), "cost_reason": None, "total_tokens": 2**63 - 1}
    await backend.record_calls([call.model_copy(update=dear) for call in make_calls(400, seed=5)])
    query = "SELECT * FROM llmbridge.usage_summary ORDER BY origin, id_at_origin, provider, model_name, date"
    before = shell("SET TIME ZONE 'Asia/Tokyo'", query)
    for days in (2, 9):
        assert await backend.purge_calls(datetime(2024, 3, 31, tzinfo=UTC) + timedelta(days=days)) > 0
        assert shell("SET TIME ZONE 'Asia/Tokyo'", query) == before
    assert shell("SELECT * FROM llmbridge.call_log") == []
