"""The two public views, read with the module sqlite3 alone."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import UUID

import pytest

from llmbridge import CallRecord
from llmbridge._shared.money import from_units
from llmbridge.storage import UsageQuery
from llmbridge.testing import make_call, make_calls

COLUMNS = [
    "origin",
    "id_at_origin",
    "provider",
    "model_name",
    "call_count",
    "total_tokens",
    "total_cost",
    "avg_response_time",
    "date",
    "unpriced_calls",
    "unmeasured_calls",
    "failed_calls",
    "failed_cost",
]
SUMS = (
    "call_count",
    "total_tokens",
    "total_cost",
    "unpriced_calls",
    "unmeasured_calls",
    "failed_calls",
    "failed_cost",
)
DAY = datetime(2024, 3, 31, tzinfo=UTC)
UNKNOWN = {
    "estimated_cost": None,
    "cost_reason": "unmeasured_usage",
    "prompt_tokens": None,
    "completion_tokens": None,
    "total_tokens": None,
}


async def test_usage_summary_has_the_columns_of_the_proposal(backend, shell):
    await backend.record_calls([make_call(), make_call(1, response_time_ms=251), make_call(2, status="error")])
    [row] = shell("SELECT * FROM usage_summary")
    assert row.keys() == COLUMNS
    assert tuple(row) == (
        "kit",
        "user-1",
        "openai",
        "gpt-4o-mini",
        2,
        34,
        "0.000009600002",
        250.5,
        "2024-03-31",
        0,
        0,
        1,
        "0.000004800001",
    )


async def test_usage_summary_groups_by_utc_day(backend, shell):
    moments = [
        DAY,
        DAY.replace(hour=23, minute=59, second=59, microsecond=999_999),
        datetime(1969, 12, 31, 23, 59, 59, 1, UTC),
    ]
    await backend.record_calls([make_call(n, called_at=at, id=UUID(int=n)) for n, at in enumerate(moments)])
    rows = shell("SELECT date, call_count FROM usage_summary ORDER BY date")
    assert [tuple(row) for row in rows] == [("1969-12-31", 1), ("2024-03-31", 2)]


@pytest.mark.parametrize(
    "units",
    [
        [0],
        [1],
        [-1],
        [10**12],
        [-(10**12)],
        [1, -2],
        [10**12, -1],
        [-(10**12), 1],
        [999_999, 1],
        [999_999_999_999, 1],
        [-1_000_001, 1],
        [100 * 10**12],
        [9 * 10**18 - 1] * 50,
        [1 - 9 * 10**18] * 50,
        [9 * 10**18 - 1, 1 - 9 * 10**18, 7],
    ],
)
async def test_total_cost_is_exact_text(backend, shell, units):
    await backend.record_calls([make_call(n, estimated_cost=from_units(cost)) for n, cost in enumerate(units)])
    [row] = shell("SELECT total_cost FROM usage_summary")
    assert isinstance(row["total_cost"], str)
    assert Decimal(row["total_cost"]) == from_units(sum(units))
    assert "." not in row["total_cost"] or not row["total_cost"].endswith("0")


@pytest.mark.parametrize("folded", [0, 250, 400])
async def test_usage_summary_has_the_sums_of_the_law(backend, shell, folded):
    calls = make_calls(400, seed=3)
    await backend.record_calls(calls[:folded])
    await backend.fold_totals()
    await backend.record_calls(calls[folded:])
    fields = ("origin", "id_at_origin", "provider", "model_name")
    expected: dict[tuple[str | None, ...], list[Decimal | int]] = {}
    for row in await backend.summarize_usage(UsageQuery(group_by=(*fields, "status"))):
        *key, status = row.key.values()
        sums = expected.setdefault(tuple(key), [0, 0, Decimal(0), 0, 0, 0, Decimal(0)])
        if status == "success":
            sums[:5] = [row.calls, row.total_tokens, row.cost, row.unpriced_calls, row.unmeasured_calls]
        else:
            sums[5] += row.calls
            sums[6] += row.cost
    found: dict[tuple[str | None, ...], list[Decimal | int]] = {}
    for row in shell("SELECT * FROM usage_summary"):
        sums = found.setdefault(tuple(row[name] for name in fields), [0, 0, Decimal(0), 0, 0, 0, Decimal(0)])
        for at, name in enumerate(SUMS):
            sums[at] += (int if isinstance(sums[at], int) else Decimal)(row[name] or 0)
    assert found == expected


@pytest.mark.parametrize("folded", [0, 250, 400])
async def test_usage_hours_has_all_calls_by_hour_and_status(backend, shell, folded):
    calls = make_calls(400, seed=6)
    await backend.record_calls(calls[:folded])
    await backend.fold_totals()
    await backend.record_calls(calls[folded:])
    fields = ("origin", "provider", "model_name", "status")
    first = min(call.called_at for call in calls).replace(minute=0, second=0, microsecond=0)
    hours = [first + timedelta(hours=number) for number in range(24 * 40)]
    query = UsageQuery(group_by=("period", *fields), edges=tuple(hours))
    expected = {
        (hours[row.period].strftime("%Y-%m-%dT%H:00:00Z"), *row.key.values()): [
            row.calls,
            row.total_tokens,
            row.cost,
            row.unpriced_calls,
            row.unmeasured_calls,
            row.calls - row.by_status.get("success", 0),
            Decimal(0) if "success" in row.by_status else row.cost,
        ]
        for row in await backend.summarize_usage(query)
    }
    found = {
        (row["hour"], *(row[name] for name in fields)): [
            (Decimal if "cost" in name else int)(row[name] or 0) for name in SUMS
        ]
        for row in shell("SELECT * FROM usage_hours")
    }
    assert sum(sums[0] for sums in expected.values()) == len(calls)
    assert found == expected


async def test_purged_days_are_summed_from_the_totals(backend, shell):
    plain = {"estimated_cost": from_units(7), "cost_reason": None, "prompt_tokens": 3, "total_tokens": 5}
    await backend.record_calls([call.model_copy(update=plain) for call in make_calls(400, seed=5)])
    query = "SELECT * FROM usage_summary ORDER BY origin, id_at_origin, provider, model_name, date"
    before = list(map(tuple, shell(query)))
    for days in (2, 9):
        assert await backend.purge_calls(DAY + timedelta(days=days)) > 0
        assert list(map(tuple, shell(query))) == before
    assert shell("SELECT COUNT(*) AS n FROM call_log")[0]["n"] == 0


@pytest.mark.parametrize(
    ("cost", "tokens"),
    [
        (Decimal("8999999.000000000001"), 2**63 - 1),
        (Decimal("-8999999.000000000001"), 10**9),
        (Decimal("-0.000000000001"), 0),
        (Decimal("0.999999999999"), 10**9 - 1),
        (Decimal("0.5"), 9 * 10**18 + 10**9 - 1),
    ],
)
async def test_purged_sums_are_exact_beyond_64_bits(backend, shell, cost, tokens):
    calls = [make_call(n, estimated_cost=cost, total_tokens=tokens, called_at=DAY) for n in range(3)]
    failed = make_call(3, estimated_cost=Decimal("-0.000000000003"), total_tokens=5, called_at=DAY, status="error")
    await backend.record_calls([*calls, failed])
    [before] = shell("SELECT * FROM usage_summary")
    assert (Decimal(before["total_cost"]), int(before["total_tokens"])) == (3 * cost, 3 * tokens)
    assert await backend.purge_calls(DAY + timedelta(days=1)) == 4
    assert list(map(tuple, shell("SELECT * FROM usage_summary"))) == [tuple(before)]


async def test_of_purged_days_as_well_a_sum_without_any_value_is_null(backend, shell):
    await backend.record_calls(
        [
            make_call(0, called_at=DAY, model_name="blank", **UNKNOWN),
            make_call(1, called_at=DAY, model_name="blank", status="error"),
            make_call(2, called_at=DAY, model_name="known"),
            make_call(3, called_at=DAY, model_name="known", status="error", **UNKNOWN),
        ]
    )
    query = "SELECT model_name, total_tokens, total_cost FROM usage_summary ORDER BY model_name"
    before = [("blank", None, None), ("known", 17, "0.000004800001")]
    assert list(map(tuple, shell(query))) == before
    await backend.purge_calls(DAY + timedelta(days=1))
    assert list(map(tuple, shell(query))) == before


async def test_without_any_cost_the_total_is_null_and_not_zero(backend, shell):
    await backend.record_calls([make_call(estimated_cost=None, cost_reason="unknown_model")])
    assert shell("SELECT total_cost FROM usage_summary")[0]["total_cost"] is None


@pytest.mark.parametrize("tokens", [[5, 6], [2**63 - 1], [2**63 - 1] * 3])
async def test_total_tokens_are_exact_beyond_64_bits(backend, shell, tokens):
    await backend.record_calls([make_call(n, total_tokens=count) for n, count in enumerate(tokens)])
    assert int(shell("SELECT total_tokens FROM usage_summary")[0]["total_tokens"]) == sum(tokens)


async def test_call_log_is_readable(backend, shell):
    call = make_call(
        called_at=datetime(2024, 3, 31, 23, 5, 9, 7, UTC),
        estimated_cost=Decimal("-12.50"),
        group_id=UUID("01234567-89ab-cdef-0123-456789abcdef"),
    )
    await backend.record_calls([call])
    [row] = shell("SELECT * FROM call_log")
    assert row["called_at"] == "2024-03-31T23:05:09.000007Z"
    assert row["id"] == str(call.id)
    assert row["group_id"] == str(call.group_id)
    assert row["estimated_cost"] == "-12.5"
    assert row["total_tokens"] == 17


async def test_call_log_has_the_fields_of_a_call(backend, shell):
    assert {row["name"] for row in shell("PRAGMA table_info(call_log)")} == set(CallRecord.model_fields)


async def test_call_log_shows_how_a_call_was_priced(backend, shell):
    repriced_at = datetime(1969, 12, 31, 23, 59, 59, 7, UTC)
    fields = {
        "dollars_per_million_tokens_input_used": Decimal("0.15"),
        "dollars_per_million_tokens_output_used": Decimal(60),
        "price_version": "genai-prices 1",
        "price_factor": Decimal("0.78"),
        "previous_cost": Decimal("-0.000000000001"),
        "previous_cost_reason": None,
        "system_prompt_hash": "ab" * 32,
    }
    counted = {"usage_details": {"web_searches": 1}, "price_context": {"speed": "fast"}}
    await backend.record_calls([make_call(repriced_at=repriced_at, **fields, **counted)])
    [row] = shell("SELECT * FROM call_log")
    assert {name: json.loads(row[name]) for name in counted} == counted
    assert {name: row[name] for name in fields} == {
        **fields,
        "dollars_per_million_tokens_input_used": "0.15",
        "dollars_per_million_tokens_output_used": "60",
        "price_factor": "0.78",
        "previous_cost": "-0.000000000001",
    }
    assert row["repriced_at"] == "1969-12-31T23:59:59.000007Z"


async def test_call_log_shows_every_call_as_it_was(backend, shell):
    calls = make_calls(200, seed=4)
    await backend.record_calls(calls)
    rows = {row["id"]: row for row in shell("SELECT * FROM call_log")}
    for call in calls:
        row = rows[str(call.id)]
        assert datetime.fromisoformat(row["called_at"]) == call.called_at
        assert (row["group_id"], row["origin"], row["status"]) == (None, call.origin, call.status)
        assert (None if row["estimated_cost"] is None else Decimal(row["estimated_cost"])) == call.estimated_cost


async def test_times_before_1970_and_at_the_ends_are_readable(backend, shell):
    moments = [
        datetime(1, 1, 1, tzinfo=UTC),
        datetime(1969, 12, 31, 23, 59, 59, 999_999, UTC),
        datetime(9999, 12, 31, tzinfo=UTC),
    ]
    await backend.record_calls([make_call(n, called_at=at, id=UUID(int=n)) for n, at in enumerate(moments)])
    rows = shell("SELECT called_at FROM call_log ORDER BY called_at")
    assert [datetime.fromisoformat(row["called_at"]) for row in rows] == moments
