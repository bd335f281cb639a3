"""Sheets of totals: packed and read without loss, added in any order, the same as counting all calls at once."""

from __future__ import annotations

import json
from dataclasses import FrozenInstanceError
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmbridge.storage import UsageQuery
from llmbridge.storage.answers import Plan
from llmbridge.storage.histogram import bucket
from llmbridge.storage.reference import NEVER_PRICED, summarize
from llmbridge.storage.sheets import (
    Line,
    Sheets,
    Texts,
    compare,
    counts,
    examine,
    extend,
    fold,
    line_of,
    pack,
    rows_of,
    unpack,
    written,
)
from llmbridge.storage.toolkit.time_cells import GRAINS, Uses, micros
from llmbridge.testing import make_calls
from llmbridge.testing.comparison import assert_same
from llmbridge.testing.records import make_totals

CALLS = make_calls(300, seed=41)


def sums(call: Any) -> tuple[Any, ...]:
    """A call alone as a backend sums it to be folded, behind the start of its cell."""
    succeeded = call.status == "success"
    response = call.response_time_ms if succeeded else None
    first_token = call.time_to_first_token_ms if succeeded else None
    return (
        call.provider,
        call.model_name,
        call.status,
        None if response is None else str(bucket(response)),
        None if first_token is None else str(bucket(first_token)),
        1,
        int(call.attempt == 1),
        int(call.total_tokens is None and call.cost_reason != "not_billed"),
        int(call.estimated_cost is None and call.cost_reason not in NEVER_PRICED),
        0 if call.estimated_cost is None else int(call.estimated_cost.scaleb(12)),
        call.total_tokens or 0,
        call.prompt_tokens or 0,
        call.completion_tokens or 0,
        int(response is not None),
        response or 0,
        call.cache_read_tokens or 0,
        call.reasoning_tokens or 0,
        call.cache_write_tokens or 0,
    )


def folded(calls: list[Any]) -> Sheets:
    """The sheets of calls of which none is summed with another one yet."""
    seconds = [micros(call.called_at) // 1_000_000 for call in calls]
    users = [
        (call.origin, call.id_at_origin or "", second // 86_400 * 86_400, *sums(call))
        for call, second in zip(calls, seconds, strict=True)
    ]
    quarters = [(call.origin, second // 900 * 900, *sums(call)) for call, second in zip(calls, seconds, strict=True)]
    return fold(users, quarters)


def kept(parts: list[list[Any]]) -> dict[Any, Texts]:
    """The texts that a store has after it folded one part after the other."""
    texts: dict[Any, Texts] = {}
    for part in parts:
        sheets = folded(part)
        for key, sheet in (*sheets.users.items(), *sheets.times.items()):
            texts[key] = extend(texts[key], sheet) if key in texts else pack(sheet)
    return texts


def opened(texts: dict[Any, Texts]) -> Sheets:
    sheets = Sheets()
    for key, text in texts.items():
        (sheets.users if isinstance(key[0], str) else sheets.times)[key] = unpack(*text)
    return sheets


@settings(max_examples=50, deadline=None)
@given(cuts=st.lists(st.integers(0, len(CALLS)), max_size=6), order=st.randoms(use_true_random=False))
def test_folding_in_any_parts_and_order_is_folding_at_once(cuts, order):
    calls = order.sample(CALLS, len(CALLS))
    bounds = [0, *sorted(cuts), len(calls)]
    parts = [calls[start:end] for start, end in pairwise(bounds)]
    checked, wrong = compare(opened(kept(parts)), folded(CALLS))
    assert checked > len(CALLS)
    assert wrong.lines() == 0


def test_what_is_wrong_is_found_line_by_line():
    sheets = folded(CALLS)
    key, sheet = next(iter(sheets.users.items()))
    sheet.pop(next(iter(sheet)))
    sheets.times.pop(next(iter(sheets.times)))
    _, wrong = compare(sheets, folded(CALLS))
    assert list(wrong.users) == [key]
    assert len(wrong.times) == 1


def test_a_negative_line_takes_everything_away():
    for sheet in folded(CALLS).users.values():
        taken = {line_key: line.negative() for line_key, line in sheet.items()}
        assert extend(pack(sheet), taken) == ("[]", "[]", "[]")


@pytest.mark.parametrize(
    "texts",
    [
        ('[["p","m",{"error":2},2,0,0,500]]', '[["p","m","error",2,0,0,5]]', '[["",""]]'),
        ('[["p","m",{"error":2},2]]', '[["p","m","error",2]]', '[["1,2",""]]'),
        ('[["p","m",{"success":2},2]]', '[["p","m","error",2]]', '[["1,2",""]]'),
        ('[["p","m",{"success":2},2]]', '[["p","m","success",2]]', '[["1,2",""]]'),
        ('[["p","m",{"error":2},2]]', '[["p","m","error",2]]', "[]"),
        ('[["p","m",{"error":2},2]]', '[["p","m","error",2],["p","m","error",2]]', '[["",""]]'),
        ('[["p","m",{"error":2},2],["p","m",{"error":2},2]]', '[["p","m","error",2]]', '[["",""],["",""]]'),
    ],
)
def test_texts_that_contradict_each_other_are_no_sheet_of_calls(texts):
    assert any(not key[0] or not line.numbers[0] for key, line in examine(*texts).items())


def test_a_sheet_of_calls_is_what_it_seems():
    for sheet in folded(CALLS).times.values():
        examined = examine(*pack(sheet))
        assert {key: line.counted() for key, line in examined.items()} == {
            key: line.counted() for key, line in sheet.items()
        }


def test_only_successful_calls_have_times():
    failed = Line([2] * 13, "1,2", "3")
    sums, failures, histograms = pack({("p", "m", "timeout"): failed})
    assert json.loads(histograms) == [["", ""]]
    assert unpack(sums, failures, histograms)["p", "m", "timeout"].numbers == failed.numbers


def test_texts_are_json():
    sums, failures, histograms = pack(max(folded(CALLS).times.values(), key=len))
    assert len(json.loads(sums)) == len(json.loads(histograms)) > 1
    assert len(json.loads(failures)) > 1


@given(st.dictionaries(st.integers(0, 4095), st.integers(1, 2**70) | st.integers(-(2**70), -1)))
def test_a_histogram_is_read_as_it_was_written(histogram):
    assert counts(written(histogram)) == histogram


def test_sheets_are_the_totals_of_the_contract():
    sheets = folded(CALLS)
    days = [
        total
        for (origin, user, start), sheet in sorted(sheets.users.items(), key=lambda item: (item[0][2], item[0]))
        for total in rows_of("day", start, origin, user, sheet)
    ]
    quarters = [
        total
        for (grain, start, origin), sheet in sorted(sheets.times.items())
        if grain == GRAINS[-1]
        for total in rows_of("quarter", start, origin, None, sheet)
    ]
    assert_same([*days, *quarters], make_totals(CALLS))
    for total in (*days, *quarters):
        place, key, line = line_of(total)
        where = sheets.users if isinstance(place[0], str) else sheets.times
        assert where[place][key].counted() == line.counted()


def test_an_answer_from_sheets_is_the_law():
    texts = kept([CALLS[:100], CALLS[100:]])
    for group_by in ((), ("status",), ("model_name", "origin"), ("id_at_origin", "provider")):
        plan = Plan(UsageQuery(group_by=group_by))
        [part] = plan.coverage.parts
        uses = Uses([part])
        for key, sheet in texts.items():
            if plan.by_user == isinstance(key[0], str) and (plan.by_user or key[0] == part.grain):
                origin, user, start = key if plan.by_user else (key[2], "", key[1])
                plan.add_sheet(origin, user, uses.of(start), *sheet)
        rows = plan.rows()
        assert_same(rows, summarize(CALLS, plan.query))
        with pytest.raises(FrozenInstanceError):
            rows[0].calls = 0
