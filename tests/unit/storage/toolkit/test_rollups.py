"""Rollups: histograms that merge, sums of cells that equal the reference, and rows of purged days."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmbridge.errors import PurgedDetailError
from llmbridge.schemas import CallRecord
from llmbridge.storage import EARLIEST, LATEST, UsageQuery, to_units
from llmbridge.storage.histogram import bucket
from llmbridge.storage.reference import NEVER_PRICED, summarize
from llmbridge.storage.toolkit.rollups import (
    NUMBERS,
    TIME_KEY,
    USER_KEY,
    Histogram,
    Rollup,
    RollupPlan,
    UsageRows,
    differing,
    from_totals_row,
    read_histogram,
    subtract,
    to_totals_row,
    write_histogram,
)
from llmbridge.storage.toolkit.time_cells import GRAINS, USER_GRAINS, micros
from llmbridge.testing import make_calls
from llmbridge.testing.comparison import assert_same
from llmbridge.testing.records import EPOCH, make_totals

CALLS = make_calls(300, seed=41)
QUESTIONS = (
    UsageQuery(),
    UsageQuery(group_by=("status",)),
    UsageQuery(group_by=("model_name", "origin")),
    UsageQuery(group_by=("id_at_origin", "provider")),
    UsageQuery({"id_at_origin": (None, "user-1")}, ("id_at_origin",)),
    UsageQuery({"status": ("timeout", "success"), "origin": (CALLS[0].origin, "")}, ("provider",)),
    UsageQuery(
        group_by=("period", "model_name"),
        edges=tuple(EPOCH + timedelta(hours=number * 24, minutes=15) for number in range(-1, 12)),
    ),
)

_counts = st.dictionaries(st.integers(0, 4095), st.integers(1, 2**70) | st.integers(-(2**70), -1), max_size=20)


def rollup(key: tuple[Any, ...], call: CallRecord) -> Rollup:
    """The row of a call alone."""
    succeeded = call.status == "success"
    response = call.response_time_ms if succeeded else None
    first_token = call.time_to_first_token_ms if succeeded else None
    numbers = {
        "calls": 1,
        "requests": int(call.attempt == 1),
        "unmeasured_calls": int(call.total_tokens is None and call.cost_reason != "not_billed"),
        "unpriced_calls": int(call.estimated_cost is None and call.cost_reason not in NEVER_PRICED),
        "response_time_ms_count": int(response is not None),
        "cost": 0 if call.estimated_cost is None else to_units(call.estimated_cost),
        **{name: getattr(call, name) or 0 for name in NUMBERS if name.endswith("_tokens")},
        "response_time_ms_sum": response or 0,
    }
    return Rollup(
        key,
        tuple(numbers[name] for name in NUMBERS),
        None if response is None else str(bucket(response)),
        None if first_token is None else str(bucket(first_token)),
    )


def rows_of(calls: list[CallRecord]) -> list[Rollup]:
    """The rows of calls of which none is summed with another one."""
    rows = []
    for call in calls:
        second = micros(call.called_at) // 1_000_000
        names = (call.provider, call.model_name, call.status)
        day = second // USER_GRAINS[0] * USER_GRAINS[0]
        rows.append(rollup((day, call.origin, call.id_at_origin or "", *names), call))
        rows += [rollup((grain, second // grain * grain, call.origin, *names), call) for grain in GRAINS]
    return rows


def folded(rows: list[Rollup]) -> dict[tuple[Any, ...], Rollup]:
    """Rows with one key added up."""
    found: dict[tuple[Any, ...], Rollup] = {}
    for row in rows:
        kept = found.get(row.key)
        texts = (
            (row[2:])
            if kept is None
            else [",".join(filter(None, pair)) for pair in zip(kept[2:], row[2:], strict=True)]
        )
        numbers = row.numbers if kept is None else tuple(map(sum, zip(kept.numbers, row.numbers, strict=True)))
        found[row.key] = Rollup(row.key, numbers, *texts)
    return found


@given(_counts)
def test_a_histogram_is_read_as_it_was_written(counts):
    ordered = {index: counts[index] for index in sorted(counts)}
    assert read_histogram(write_histogram(ordered)) == counts
    assert list(read_histogram(write_histogram(ordered))) == sorted(counts)


@given(_counts, _counts)
def test_histograms_are_merged_by_writing_one_behind_the_other(one, other):
    texts = filter(None, (write_histogram(one), write_histogram(other)))
    sums = {index: one.get(index, 0) + other.get(index, 0) for index in {**one, **other}}
    assert read_histogram(",".join(texts)) == {index: calls for index, calls in sums.items() if calls}


@given(_counts)
def test_a_histogram_taken_from_itself_is_empty(counts):
    assert subtract(counts, counts) == {}
    assert write_histogram({}) is None
    assert Histogram(write_histogram(counts), write_histogram(counts)) == {}


def test_a_bucket_without_a_number_is_one_call():
    assert read_histogram("7,7,5:3,7:2") == {5: 3, 7: 4}
    assert write_histogram({5: 3, 7: 1}) == "5:3,7"


@pytest.mark.parametrize("query", QUESTIONS)
@settings(max_examples=5, deadline=None)
@given(cuts=st.lists(st.integers(0, len(CALLS)), max_size=4))
def test_the_sums_of_cells_are_the_answer_of_the_law(query, cuts):
    """However the calls are folded, and whatever is left to a scan."""
    last = max([0, *cuts])
    rows = folded(rows_of(CALLS[:last]))
    plan, answer = RollupPlan(query), UsageRows(query)
    names = USER_KEY if plan.by_user else TIME_KEY
    for part in plan.parts:
        for row in rows.values():
            if isinstance(row.key[1], str) != plan.by_user:
                continue
            key = dict(zip(names, row.key, strict=True))
            start = key["day" if plan.by_user else "start"]
            accepted = all(key[name] in values for name, values in plan.filters.items())
            if accepted and key.get("grain", part.grain) == part.grain and part.start <= start < part.end:
                key["period"] = part.period
                statuses = f"{key['status']}:{row.numbers[0]}"
                answer.add(tuple(key[name] for name in query.group_by), statuses, *row[1:], part.sign)
    gaps = plan.coverage.gaps
    scanned = [
        call
        for number, call in enumerate(CALLS)
        if number >= last or any(start <= micros(call.called_at) < end for start, end in gaps)
    ]
    for row in summarize(scanned, UsageQuery(query.filters, (*query.group_by, *_status(query)), query.edges)):
        key = {**row.key, "period": row.period}
        [(status, calls)] = row.by_status.items()
        sums = [to_units(row.cost) if name == "cost" else getattr(row, name) for name in NUMBERS]
        texts = map(write_histogram, (row.response_time_histogram, row.first_token_histogram))
        answer.add(tuple(key[name] for name in query.group_by), f"{status}:{calls}", sums, *texts)
    found = answer.rows()
    assert_same(found, summarize(CALLS, query))
    with pytest.raises(FrozenInstanceError):
        found[0].calls = 0


def _status(query: UsageQuery) -> tuple[str, ...]:
    return () if "status" in query.group_by else ("status",)


def test_what_is_taken_away_leaves_nothing():
    answer = UsageRows(UsageQuery(group_by=("model_name",)))
    numbers = tuple(range(1, len(NUMBERS) + 1))
    answer.add(("m",), "success:1", numbers, "5", None)
    answer.add(("m",), "success:1", numbers, "5", None, -1)
    assert answer.rows() == []


def test_rows_are_the_totals_of_the_contract():
    rows = folded(rows_of(CALLS))
    quarters = [key for key in rows if key[0] == GRAINS[-1]]
    days = [key for key in rows if isinstance(key[1], str)]
    totals = [
        *(to_totals_row("day", rows[key]) for key in sorted(days)),
        *(to_totals_row("quarter", rows[key]) for key in sorted(quarters)),
    ]
    assert_same(totals, make_totals(CALLS))
    assert not differing(
        {key: rows[key] for key in (*days, *quarters)}, {row.key: row for row in map(from_totals_row, totals)}
    )


def test_rows_that_differ_are_found_by_their_keys():
    rows = folded(rows_of(CALLS))
    first, second, third, *_ = rows
    assert not differing(rows, folded(rows_of(CALLS[::-1])))
    changed = dict(rows)
    del changed[first]
    changed[second] = rows[second]._replace(numbers=(0,) * len(NUMBERS))
    changed[third] = rows[third]._replace(first_token="4000")
    assert set(differing(changed, rows)) == set(differing(rows, changed)) == {first, second, third}


def test_a_question_that_cuts_purged_cells_is_refused_with_the_end_of_the_last():
    midnight = EPOCH.replace(hour=0)
    watermark = midnight + timedelta(days=3)
    cutting = UsageQuery(edges=(midnight + timedelta(minutes=7), LATEST))
    plan = RollupPlan(cutting)
    [(first, last)] = plan.purged(watermark)
    assert (first, last) == (micros(midnight) // 10**6, micros(midnight) // 10**6 + 900)
    plan.refuse_if_cut(None, watermark)
    with pytest.raises(PurgedDetailError) as caught:
        plan.refuse_if_cut(first, watermark)
    assert caught.value.earliest == midnight + timedelta(minutes=15)
    tagged = RollupPlan(UsageQuery({"tag:team": ("a",)}, edges=(EARLIEST, LATEST)))
    assert not tagged.parts
    with pytest.raises(PurgedDetailError) as caught:
        tagged.refuse_if_cut(first, watermark)
    assert caught.value.earliest == watermark
