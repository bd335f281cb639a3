"""The reference implementation of usage sums, on calls that can be summed by hand."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from llmbridge._shared.ids import new_id
from llmbridge.errors import PurgedDetailError
from llmbridge.schemas import CallRecord
from llmbridge.storage import LATEST, CostChange, UsageQuery
from llmbridge.storage.memory import MemoryBackend
from llmbridge.storage.reference import summarize, tag_value

DAY = datetime(2026, 3, 1, tzinfo=UTC)


def call(at: datetime = DAY, **changes: Any) -> CallRecord:
    known = {"id": new_id(), "origin": "app", "provider": "p", "model_name": "m", "called_at": at}
    return CallRecord(**{**known, **changes})


def test_no_calls_sum_to_one_row_of_zeros_or_to_no_group() -> None:
    (row,) = summarize([], UsageQuery())
    assert (row.calls, row.cost, row.key, row.period) == (0, Decimal(0), {}, None)
    assert summarize([], UsageQuery(group_by=("origin",))) == []


def test_every_sum_by_hand() -> None:
    calls = [
        call(prompt_tokens=10, completion_tokens=5, total_tokens=15, cache_read_tokens=4, estimated_cost="0.1"),
        call(status="error", cost_reason="not_billed", attempt=1, response_time_ms=7),
        call(status="success", cost_reason="synthetic", total_tokens=3, attempt=2, response_time_ms=100),
        call(status="timeout", cost_reason="unmeasured_usage", response_time_ms=9, time_to_first_token_ms=3),
        call(estimated_cost="0.2", total_tokens=1, response_time_ms=100, time_to_first_token_ms=2),
    ]
    (row,) = summarize(calls, UsageQuery())
    assert (row.calls, row.requests) == (5, 4)
    assert row.by_status == {"success": 3, "error": 1, "timeout": 1}
    assert (row.prompt_tokens, row.completion_tokens, row.total_tokens, row.cache_read_tokens) == (10, 5, 19, 4)
    assert row.cost == Decimal("0.3")
    assert (row.unpriced_calls, row.unmeasured_calls) == (1, 1)
    assert (row.response_time_ms_sum, row.response_time_ms_count) == (200, 2)
    assert row.response_time_histogram == {95: 2}
    assert row.first_token_histogram == {2: 1}


def test_an_interval_has_its_first_edge_and_not_its_last() -> None:
    edges = (DAY, DAY + timedelta(days=1), DAY + timedelta(days=2))
    second = timedelta(microseconds=1)
    calls = [call(DAY - second), call(DAY), call(edges[1] - second), call(edges[1]), call(edges[2])]
    rows = summarize(calls, UsageQuery(group_by=("period",), edges=edges))
    assert [(row.period, row.calls) for row in rows] == [(0, 2), (1, 1)]


def test_groups_come_in_code_point_order_with_none_first() -> None:
    users = ["b", None, "\U0001f600", "\uffff", "B"]
    rows = summarize([call(id_at_origin=user) for user in users], UsageQuery(group_by=("id_at_origin",)))
    assert [row.key["id_at_origin"] for row in rows] == [None, "B", "b", "\uffff", "\U0001f600"]


def test_none_in_a_filter_means_calls_without_one() -> None:
    calls = [call(id_at_origin="a"), call(id_at_origin="b"), call()]
    (row,) = summarize(calls, UsageQuery(filters={"id_at_origin": (None, "a")}))
    assert row.calls == 2
    (row,) = summarize(calls, UsageQuery(filters={"id_at_origin": ()}))
    assert row.calls == 0


@pytest.mark.parametrize(
    ("metadata", "tag"),
    [
        (None, None),
        ({}, None),
        ({"team": "search"}, "search"),
        ({"team": 1}, "1"),
        ({"team": 1.0}, "1.0"),
        ({"team": 1e22}, "1e+22"),
        ({"team": True}, "true"),
        ({"team": None}, None),
        ({"team": ["a"]}, None),
        ({"team": {"a": 1}}, None),
    ],
    ids=repr,
)
def test_a_tag_is_text_or_the_json_of_a_number(metadata: dict[str, Any] | None, tag: str | None) -> None:
    assert tag_value(metadata, "team") == tag


async def purged_store() -> MemoryBackend:
    store = MemoryBackend()
    await store.connect()
    await store.record_calls(
        [
            call(DAY + timedelta(hours=5, minutes=10), id_at_origin="a", total_tokens=1, metadata={"team": "x"}),
            call(DAY + timedelta(hours=5, minutes=14), id_at_origin="b", total_tokens=2),
            call(DAY + timedelta(hours=5, minutes=15), id_at_origin="a", total_tokens=4),
            call(DAY + timedelta(days=3), id_at_origin="a", total_tokens=8, metadata={"team": "x"}),
        ]
    )
    assert await store.purge_calls(DAY + timedelta(days=1, hours=7)) == 3
    return store


async def test_totals_outlive_purged_calls() -> None:
    store = await purged_store()
    (row,) = await store.summarize_usage(UsageQuery())
    assert (row.calls, row.total_tokens) == (4, 15)
    rows = await store.summarize_usage(UsageQuery(group_by=("id_at_origin",)))
    assert [(r.key["id_at_origin"], r.total_tokens) for r in rows] == [("a", 13), ("b", 2)]


async def test_purged_calls_are_told_apart_by_quarters_without_a_user() -> None:
    store = await purged_store()
    edge = DAY + timedelta(hours=5, minutes=15)
    rows = await store.summarize_usage(UsageQuery(group_by=("period",), edges=(DAY, edge, DAY + timedelta(days=1))))
    assert [(r.period, r.total_tokens) for r in rows] == [(0, 3), (1, 4)]


@pytest.mark.parametrize(
    ("query", "earliest", "said"),
    [
        (
            UsageQuery(edges=(DAY + timedelta(hours=5, minutes=4), DAY + timedelta(days=9))),
            DAY + timedelta(hours=5, minutes=15),
            "parts of a purged quarter of an hour; ask from 2026-03-01T05:15:00+00:00 on",
        ),
        (
            UsageQuery(edges=(DAY, DAY + timedelta(hours=5, minutes=12))),
            DAY + timedelta(hours=5, minutes=15),
            "a purged quarter of an hour; ask until 2026-03-01T05:15:00+00:00 or from then on",
        ),
        (
            UsageQuery(
                group_by=("period",), edges=(DAY, DAY + timedelta(hours=5, minutes=12), DAY + timedelta(days=9))
            ),
            DAY + timedelta(hours=5, minutes=15),
            "ask from 2026-03-01T05:15:00+00:00 on",
        ),
        (
            UsageQuery(filters={"id_at_origin": ("a",)}, edges=(DAY, DAY + timedelta(hours=5, minutes=15))),
            DAY + timedelta(days=1),
            "a purged UTC day; ask until 2026-03-02T00:00:00+00:00 or from then on",
        ),
        (
            UsageQuery(group_by=("id_at_origin",), edges=(DAY + timedelta(hours=3), DAY + timedelta(days=2))),
            DAY + timedelta(days=1),
            "a purged UTC day; ask from 2026-03-02T00:00:00+00:00 on",
        ),
        (UsageQuery(filters={"tag:team": ("x",)}), DAY + timedelta(days=1), "tag:team of purged calls; ask from"),
        (
            UsageQuery(filters={"response_model": (None,)}),
            DAY + timedelta(days=1),
            "response_model of purged calls; ask from",
        ),
        (UsageQuery(group_by=("error_type",)), DAY + timedelta(days=1), "error_type of purged calls; ask from"),
    ],
)
async def test_finer_detail_of_purged_days_is_refused_and_says_from_when_it_is_there(
    query: UsageQuery, earliest: datetime, said: str
) -> None:
    store = await purged_store()
    with pytest.raises(PurgedDetailError) as refused:
        await store.summarize_usage(query)
    assert refused.value.earliest == earliest
    assert said in str(refused.value)
    edges = query.edges[1:] if earliest < query.edges[-1] else (LATEST,)
    await store.summarize_usage(replace(query, edges=(earliest, *(edge for edge in edges if edge > earliest))))


async def test_detail_is_refused_only_where_purged_calls_need_it() -> None:
    store = await purged_store()
    (row,) = await store.summarize_usage(UsageQuery(filters={"tag:team": ("x",), "origin": ("other",)}))
    assert row.calls == 0
    later = (DAY + timedelta(days=2), DAY + timedelta(days=9))
    (row,) = await store.summarize_usage(UsageQuery(filters={"tag:team": ("x",)}, edges=later))
    assert row.calls == 1


async def test_a_call_that_arrives_after_its_day_was_purged_is_not_stored() -> None:
    store = await purged_store()
    late, fresh = call(DAY), call(DAY + timedelta(days=1))
    result = await store.record_calls([late, fresh])
    assert (result.inserted, result.duplicates, result.expired) == (1, 0, (late.id,))


async def test_a_reprice_keeps_what_stood_before() -> None:
    store = MemoryBackend()
    await store.connect()
    record = call(cost_reason="unknown_model")
    await store.record_calls([record])
    change = CostChange(record.id, Decimal("0.5"), "own_prices", None, "v2", DAY)
    assert await store.reprice_calls([change]) == 1
    (row,) = await store.summarize_usage(UsageQuery())
    assert (row.cost, row.unpriced_calls) == (Decimal("0.5"), 0)
