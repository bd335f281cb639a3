"""Tests of `summarize_usage`, compared with the reference implementation."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from ..schemas import CallRecord
from ..storage.base import StorageBackend
from ..storage.histogram import bucket
from ..storage.reference import summarize
from ..storage.types import EARLIEST, GROUP_FIELDS, LATEST, UsageQuery, UsageRow
from .comparison import assert_same
from .harness import Harness
from .listing import FILTERS, SECOND, TICK, record
from .records import EPOCH, MAX_COST, MAX_INT, TEXTS, make_call, make_calls

HOURS = tuple(EPOCH.replace(minute=0) + timedelta(hours=hour) for hour in range(75))
DAYS = tuple(EPOCH.replace(hour=0) + timedelta(days=day) for day in range(5))
#: Edges of intervals with unequal lengths, with calls before and after them.
UNEVEN = (HOURS[1] + TICK, HOURS[2], HOURS[2] + TICK, HOURS[9] - TICK, HOURS[9], HOURS[60])

GROUPINGS: tuple[tuple[str, ...], ...] = (
    (),
    *((name,) for name in (*GROUP_FIELDS, "tag:team", "tag:cost.center", 'tag:say "hi"', "tag:absent", "period")),
    ("id_at_origin", "origin"),
    ("status", "period"),
    ("period", "status"),
    ("period", "provider", "model_name"),
    ("error_type", "id_at_origin"),
    ("tag:team", "status", "error_type"),
    ("model_name", "tag:team", "period", "origin"),
    (*GROUP_FIELDS, "tag:team", "period"),
)


async def assert_sums(backend: StorageBackend, calls: Sequence[CallRecord], query: UsageQuery) -> None:
    """Fail unless the backend returns the same sums as a scan of these calls."""
    assert_same(await backend.summarize_usage(query), summarize(calls, query))


class UsageContract(Harness):
    """`summarize_usage`."""

    async def test_without_calls_there_is_one_row_of_zeros(self, backend: StorageBackend) -> None:
        assert_same(await backend.summarize_usage(UsageQuery()), [UsageRow()])

    async def test_without_matching_calls_there_is_one_row_of_zeros(self, backend: StorageBackend) -> None:
        await backend.record_calls([make_call()])
        for query in (
            UsageQuery({"origin": ("nobody",)}),
            UsageQuery({"status": ()}),
            UsageQuery(edges=(EPOCH + TICK, LATEST)),
        ):
            assert_same(await backend.summarize_usage(query), [UsageRow()])

    async def test_the_first_and_the_last_instants_of_time_can_be_asked_for(self, backend: StorageBackend) -> None:
        calls = [make_call(1, called_at=EARLIEST), make_call(2, called_at=LATEST - TICK)]
        await backend.record_calls(calls)
        for edges in ((EARLIEST, EARLIEST + TICK), (LATEST - 2 * TICK, LATEST - TICK), (LATEST - TICK, LATEST)):
            await assert_sums(backend, calls, UsageQuery(edges=edges))

    async def test_grouped_there_is_no_row_without_calls(self, backend: StorageBackend) -> None:
        assert await backend.summarize_usage(UsageQuery(group_by=("origin",))) == []
        await backend.record_calls([make_call()])
        assert await backend.summarize_usage(UsageQuery({"origin": ("nobody",)}, ("status",))) == []
        periods = await backend.summarize_usage(UsageQuery(group_by=("period",), edges=HOURS))
        assert [(row.period, row.calls) for row in periods] == [(0, 1)]

    async def test_calls_of_every_status_are_counted(self, backend: StorageBackend) -> None:
        statuses = ("success", "error", "error", "timeout", "rate_limited", "cancelled")
        await backend.record_calls([make_call(number, status=status) for number, status in enumerate(statuses)])
        [row] = await backend.summarize_usage(UsageQuery())
        assert (row.calls, row.total_tokens, row.cost) == (6, 6 * 17, Decimal("0.000028800006"))
        assert row.by_status == {"success": 1, "error": 2, "timeout": 1, "rate_limited": 1, "cancelled": 1}

    async def test_requests_are_first_attempts(self, backend: StorageBackend) -> None:
        await backend.record_calls([make_call(number, attempt=attempt) for number, attempt in enumerate((1, 2, 3, 1))])
        [row] = await backend.summarize_usage(UsageQuery())
        assert (row.calls, row.requests) == (4, 2)

    async def test_unpriced_is_not_free(self, backend: StorageBackend) -> None:
        reasons = ("unknown_model", "unmeasured_usage", "missing_rate", None, "not_billed", "synthetic")
        unpriced = [make_call(n, estimated_cost=None, cost_reason=reason) for n, reason in enumerate(reasons)]
        free = [
            make_call(10, estimated_cost=Decimal(0)),
            make_call(11, estimated_cost=Decimal(0), cost_reason="synthetic"),
        ]
        await backend.record_calls([*unpriced, *free, make_call(12)])
        [row] = await backend.summarize_usage(UsageQuery())
        assert row.unpriced_calls == 4
        assert row.cost == make_call().estimated_cost

    async def test_unmeasured_tokens_are_not_zero(self, backend: StorageBackend) -> None:
        reasons = ("unknown_model", "unmeasured_usage", None, "synthetic", "not_billed")
        unmeasured = [
            make_call(number, completion_tokens=None, total_tokens=None, estimated_cost=None, cost_reason=reason)
            for number, reason in enumerate(reasons)
        ]
        zero = make_call(10, prompt_tokens=0, completion_tokens=0, total_tokens=0)
        await backend.record_calls([*unmeasured, zero, make_call(11)])
        [row] = await backend.summarize_usage(UsageQuery())
        assert row.unmeasured_calls == 4
        assert (row.prompt_tokens, row.completion_tokens, row.total_tokens) == (6 * 12, 5, 17)

    async def test_money_is_summed_to_the_last_digit(self, backend: StorageBackend) -> None:
        costs = [Decimal("0.1"), Decimal("0.2"), Decimal("1E-12"), Decimal("4503599.627370496001"), Decimal("-0.05")]
        await backend.record_calls([make_call(number, estimated_cost=cost) for number, cost in enumerate(costs)])
        [row] = await backend.summarize_usage(UsageQuery())
        assert isinstance(row.cost, Decimal)
        assert row.cost == Decimal("4503599.877370496002")

    async def test_sums_pass_64_bits(self, backend: StorageBackend) -> None:
        tokens = ("prompt_tokens", "completion_tokens", "total_tokens")
        subsets = ("cache_read_tokens", "cache_write_tokens", "reasoning_tokens")
        large = dict.fromkeys((*tokens, *subsets, "response_time_ms", "time_to_first_token_ms"), MAX_INT)
        calls = [make_call(number, **large, estimated_cost=MAX_COST) for number in range(25)]
        await backend.record_calls(calls)
        [row] = await backend.summarize_usage(UsageQuery())
        assert {getattr(row, name) for name in (*tokens, *subsets, "response_time_ms_sum")} == {25 * MAX_INT}
        assert row.cost == Decimal("224999999.999999999975")
        await assert_sums(backend, calls, UsageQuery(group_by=("id_at_origin", "period"), edges=HOURS))

    async def test_negative_sums_pass_64_bits(self, backend: StorageBackend) -> None:
        calls = [make_call(number, estimated_cost=-MAX_COST) for number in range(25)]
        await backend.record_calls([*calls, make_call(30, estimated_cost=Decimal("1E-12"))])
        [row] = await backend.summarize_usage(UsageQuery())
        assert row.cost == Decimal("-224999999.999999999974")

    async def test_times_and_histograms_cover_successful_calls_with_a_value(self, backend: StorageBackend) -> None:
        times = (0, 1, 45, 46, 1000, 1001, MAX_INT, None)
        calls = [make_call(n, response_time_ms=ms, time_to_first_token_ms=ms) for n, ms in enumerate(times)]
        failed = [make_call(100 + n, response_time_ms=7, time_to_first_token_ms=7, status="error") for n in range(3)]
        await backend.record_calls([*calls, *failed])
        [row] = await backend.summarize_usage(UsageQuery())
        expected: dict[int, int] = {}
        for ms in times:
            if ms is not None:
                expected[bucket(ms)] = expected.get(bucket(ms), 0) + 1
        assert (row.response_time_ms_sum, row.response_time_ms_count) == (sum(ms or 0 for ms in times), 7)
        assert row.response_time_histogram == expected
        assert row.first_token_histogram == expected

    async def test_a_call_on_an_edge_belongs_to_the_interval_that_begins_there(self, backend: StorageBackend) -> None:
        times = (EPOCH - TICK, EPOCH, EPOCH + TICK, EPOCH + SECOND - TICK, EPOCH + SECOND, EPOCH + 2 * SECOND)
        marked = [make_call(n, called_at=at, prompt_tokens=10**n) for n, at in enumerate(times)]
        await backend.record_calls(marked)
        edges = (EPOCH, EPOCH + TICK, EPOCH + SECOND, EPOCH + 2 * SECOND)
        rows = await backend.summarize_usage(UsageQuery(group_by=("period",), edges=edges))
        assert [(row.period, row.key, row.prompt_tokens) for row in rows] == [
            (0, {}, 10),
            (1, {}, 1_100),
            (2, {}, 10_000),
        ]
        [whole] = await backend.summarize_usage(UsageQuery(edges=edges))
        assert (whole.period, whole.prompt_tokens) == (None, 11_110)

    async def test_none_in_a_filter_means_calls_without_one(self, backend: StorageBackend) -> None:
        users = (None, "a", "b")
        await backend.record_calls(
            [make_call(n, id_at_origin=u, metadata=u and {"team": u}, prompt_tokens=10**n) for n, u in enumerate(users)]
        )
        for field in ("id_at_origin", "tag:team"):
            for accepted, tokens in (((None,), 1), ((None, "a"), 11), (("a",), 10), (("b", "a"), 110), ((), 0)):
                [row] = await backend.summarize_usage(UsageQuery({field: accepted}))
                assert row.prompt_tokens == tokens

    async def test_unbounded_edges_hold_calls_of_all_times(self, backend: StorageBackend) -> None:
        calls = [make_call(n, called_at=at) for n, at in enumerate((EARLIEST, EPOCH, LATEST - TICK))]
        await backend.record_calls(calls)
        [row] = await backend.summarize_usage(UsageQuery())
        assert row.calls == 3
        await assert_sums(backend, calls, UsageQuery(group_by=("period",), edges=(EARLIEST, EPOCH, LATEST)))

    async def test_groups_are_ordered_by_code_point_none_first(self, backend: StorageBackend) -> None:
        users = (*TEXTS, None, "")
        calls = [
            make_call(number, id_at_origin=user or None, metadata={"team": user})
            for number, user in enumerate(users * 2)
        ]
        await backend.record_calls(calls)
        for field, expected in (
            ("id_at_origin", [None, *sorted(TEXTS)]),
            ("tag:team", [None, "", *sorted(TEXTS)]),
        ):
            rows = await backend.summarize_usage(UsageQuery(group_by=(field,)))
            assert [row.key[field] for row in rows] == expected

    async def test_groups_are_ordered_by_the_fields_as_given(self, backend: StorageBackend) -> None:
        keys = [(user, status) for user in (None, "a", "b") for status in ("error", "success")]
        await backend.record_calls([make_call(n, id_at_origin=u, status=s) for n, (u, s) in enumerate(keys[::-1])])
        by_user = await backend.summarize_usage(UsageQuery(group_by=("id_at_origin", "status")))
        assert [tuple(row.key.values()) for row in by_user] == keys
        by_status = await backend.summarize_usage(UsageQuery(group_by=("status", "id_at_origin")))
        assert [tuple(row.key.values()) for row in by_status] == sorted(
            ((status, user) for user, status in keys), key=lambda key: (key[0], key[1] or "")
        )

    async def test_a_tag_is_text_or_the_json_text_of_a_number_or_bool(self, backend: StorageBackend) -> None:
        tags: tuple[Any, ...] = (
            "7",
            7,
            7.0,
            1e-07,
            0.1,
            10**15,
            True,
            False,
            "true",
            None,
            "null",
            [],
            {},
            "",
            "None",
            2**53 + 1,
        )
        calls = [make_call(number, metadata={"team": tag}) for number, tag in enumerate(tags)]
        calls += [make_call(100, metadata=None), make_call(101, metadata={}), make_call(102, metadata={"Team": "x"})]
        await backend.record_calls(calls)
        rows = await backend.summarize_usage(UsageQuery(group_by=("tag:team",)))
        expected = {
            None: 6,
            "": 1,
            "0.1": 1,
            "1000000000000000": 1,
            "1e-07": 1,
            "7": 2,
            "7.0": 1,
            "9007199254740993": 1,
        }
        words: dict[str | None, int] = {"None": 1, "false": 1, "null": 1, "true": 2}
        assert {row.key["tag:team"]: row.calls for row in rows} == {**expected, **words}

    async def test_every_grouping_is_summed_exactly(self, backend: StorageBackend) -> None:
        calls = make_calls(250, seed=4)
        await record(backend, calls)
        for group_by in GROUPINGS:
            for edges in ((EARLIEST, LATEST), HOURS, DAYS, UNEVEN):
                await assert_sums(backend, calls, UsageQuery(group_by=group_by, edges=edges))

    async def test_every_filter_is_summed_exactly(self, backend: StorageBackend) -> None:
        calls = make_calls(250, seed=5)
        await record(backend, calls)
        for filters in FILTERS:
            for group_by in ((), ("model_name",), ("id_at_origin", "tag:team")):
                for edges in ((EARLIEST, LATEST), UNEVEN):
                    await assert_sums(backend, calls, UsageQuery(filters, group_by, edges))

    async def test_any_grouping_sums_to_the_ungrouped_total(self, backend: StorageBackend) -> None:
        await record(backend, make_calls(200, seed=6))
        [whole] = await backend.summarize_usage(UsageQuery(edges=DAYS))
        for group_by in GROUPINGS:
            rows = await backend.summarize_usage(UsageQuery(group_by=group_by, edges=DAYS))
            assert sum(row.calls for row in rows) == whole.calls
            assert sum((row.cost for row in rows), Decimal(0)) == whole.cost
            assert sum(row.total_tokens for row in rows) == whole.total_tokens

    async def test_kept_totals_agree_with_the_calls(self, backend: StorageBackend) -> None:
        calls = make_calls(100, seed=9)
        for batch in (calls[:60], calls[40:]):
            await backend.record_calls(batch)
        for repair in (False, True):
            report = await backend.check_totals(repair)
            assert (report.wrong, report.repaired) == (0, 0)
        await assert_sums(backend, calls, UsageQuery(group_by=("status", "period"), edges=DAYS))

    async def test_a_year_of_days_may_be_asked_for_at_once(self, backend: StorageBackend) -> None:
        start = datetime(2024, 1, 1, tzinfo=EPOCH.tzinfo)
        calls = make_calls(100, seed=7, start=start, days=366)
        await backend.record_calls(calls)
        days = tuple(start + timedelta(days=day) for day in range(367))
        await assert_sums(backend, calls, UsageQuery(group_by=("period", "status"), edges=days))
