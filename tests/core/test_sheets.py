"""Sheets of totals: packed and read without loss, added in any order, the same as counting all calls at once."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from llmbridge.storage import UsageQuery
from llmbridge.storage.answers import Plan
from llmbridge.storage.coverage import GRAINS, Uses, micros
from llmbridge.storage.histogram import bucket
from llmbridge.storage.reference import NEVER_PRICED, summarize
from llmbridge.storage.sheets import Sheets, compare, counts, extend, fold, line_of, pack, rows_of, unpack, written
from llmbridge.testing import make_calls
from llmbridge.testing.comparison import assert_same
from llmbridge.testing.records import make_totals

CALLS = make_calls(300, seed=41)


def row(call: Any) -> tuple[Any, ...]:
    """A call as a backend reads it to be folded."""
    succeeded = call.status == "success"
    response = call.response_time_ms if succeeded else None
    first_token = call.time_to_first_token_ms if succeeded else None
    return (
        call.origin,
        call.id_at_origin,
        micros(call.called_at),
        call.provider,
        call.model_name,
        call.status,
        None if response is None else bucket(response),
        None if first_token is None else bucket(first_token),
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


ROWS = list(map(row, CALLS))


def kept(parts: list[list[tuple[Any, ...]]]) -> dict[Any, tuple[str, str]]:
    """The texts that a store has after it folded one part after the other."""
    texts: dict[Any, tuple[str, str]] = {}
    for part in parts:
        sheets = fold(part)
        for key, sheet in (*sheets.users.items(), *sheets.times.items()):
            texts[key] = extend(texts[key], sheet) if key in texts else pack(sheet)
    return texts


def opened(texts: dict[Any, tuple[str, str]]) -> Sheets:
    sheets = Sheets()
    for key, text in texts.items():
        (sheets.users if isinstance(key[0], str) else sheets.times)[key] = unpack(*text)
    return sheets


@settings(max_examples=50, deadline=None)
@given(cuts=st.lists(st.integers(0, len(ROWS)), max_size=6), order=st.randoms(use_true_random=False))
def test_folding_in_any_parts_and_order_is_folding_at_once(cuts, order):
    rows = order.sample(ROWS, len(ROWS))
    bounds = [0, *sorted(cuts), len(rows)]
    parts = [rows[start:end] for start, end in pairwise(bounds)]
    checked, wrong = compare(opened(kept(parts)), fold(ROWS))
    assert checked > len(CALLS)
    assert wrong.lines() == 0


def test_what_is_wrong_is_found_line_by_line():
    sheets = fold(ROWS)
    key, sheet = next(iter(sheets.users.items()))
    sheet.pop(next(iter(sheet)))
    sheets.times.pop(next(iter(sheets.times)))
    _, wrong = compare(sheets, fold(ROWS))
    assert list(wrong.users) == [key]
    assert len(wrong.times) == 1


def test_a_negative_line_takes_everything_away():
    for sheet in fold(ROWS).users.values():
        taken = {line_key: line.negative() for line_key, line in sheet.items()}
        assert extend(pack(sheet), taken) == ("[]", "[]")


def test_texts_are_json():
    sums, histograms = pack(fold(ROWS).times[86_400, micros(CALLS[0].called_at) // 86_400_000_000 * 86_400, "app"])
    assert len(json.loads(sums)) == len(json.loads(histograms)) > 1


@given(st.dictionaries(st.integers(0, 4095), st.integers(1, 2**70) | st.integers(-(2**70), -1)))
def test_a_histogram_is_read_as_it_was_written(histogram):
    assert counts(written(histogram)) == histogram


def test_sheets_are_the_totals_of_the_contract():
    sheets = fold(ROWS)
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
    texts = kept([ROWS[:100], ROWS[100:]])
    for group_by in ((), ("status",), ("model_name", "origin"), ("id_at_origin", "provider")):
        plan = Plan(UsageQuery(group_by=group_by))
        [part] = plan.coverage.parts
        uses = Uses([part])
        for key, (sums, histograms) in texts.items():
            if plan.by_user == isinstance(key[0], str) and (plan.by_user or key[0] == part.grain):
                origin, user, start = key if plan.by_user else (key[2], "", key[1])
                plan.add_sheet(origin, user, uses.of(start), sums, histograms)
        assert_same(plan.rows(), summarize(CALLS, plan.query))
