"""Cells cover the range of any query: every instant once, with few cells."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmbridge._usage.periods import split, zone
from llmbridge.storage import EARLIEST, LATEST
from llmbridge.storage.toolkit.time_cells import GRAINS, USER_GRAINS, Coverage, cover, micros

START = datetime(2024, 3, 25, tzinfo=UTC)
SECOND = 1_000_000

_instants = st.builds(
    lambda steps, step: START + steps * step,
    st.integers(0, 3000),
    st.sampled_from(
        (
            timedelta(days=1) / 96,
            timedelta(minutes=15),
            timedelta(hours=1),
            timedelta(hours=6),
            timedelta(minutes=7),
            timedelta(microseconds=1),
        )
    ),
)
_edges = st.lists(_instants | st.sampled_from((EARLIEST, LATEST)), min_size=2, max_size=8, unique=True).map(
    lambda edges: tuple(sorted(edges))
)
_grains = st.sampled_from((GRAINS, USER_GRAINS, (3600, 900), (900,)))


def counted(coverage: Coverage, instant: int) -> dict[int, int]:
    """How often the parts count an instant (microseconds) to each period."""
    found: dict[int, int] = {}
    for part in coverage.parts:
        cell = instant // SECOND // part.grain * part.grain
        if part.start <= cell < part.end:
            found[part.period] = found.get(part.period, 0) + part.sign
    return {period: times for period, times in found.items() if times}


def in_gap(coverage: Coverage, instant: int) -> bool:
    return any(start <= instant < end for start, end in coverage.gaps)


@settings(max_examples=200, deadline=None)
@given(edges=_edges, grains=_grains, looked_at=st.lists(_instants, min_size=1, max_size=30))
def test_every_instant_is_counted_once_by_cells_or_lies_in_a_gap(edges, grains, looked_at):
    coverage = cover(edges, grains)
    for at in {*looked_at, *edges[:-1], *(edge - timedelta(microseconds=1) for edge in edges[1:])}:
        if at >= LATEST:
            continue
        period = next((i for i, edge in enumerate(edges[1:]) if edges[i] <= at < edge), None)
        if in_gap(coverage, micros(at)):
            assert period is not None
            cell = micros(at) // (grains[-1] * SECOND)
            assert any(micros(edge) // (grains[-1] * SECOND) == cell for edge in edges), "a gap that no edge made"
        else:
            assert counted(coverage, micros(at)) == ({} if period is None else {period: 1})


@settings(max_examples=200, deadline=None)
@given(edges=_edges, grains=_grains)
def test_gaps_rise_and_do_not_touch_and_cells_are_aligned(edges, grains):
    coverage = cover(edges, grains)
    assert coverage.bounds == sorted(set(coverage.bounds))
    for part in coverage.parts:
        assert part.grain in grains
        assert part.start < part.end
        assert part.start % part.grain == part.end % part.grain == 0


def days(tz: str, n: int = 90) -> Coverage:
    since = datetime(2024, 2, 1, tzinfo=zone(tz)).astimezone(UTC)
    return cover(split(since, since + timedelta(days=n), "day", zone(tz)).edges, GRAINS)


def test_days_in_utc_are_cells_of_a_day():
    coverage = days("UTC")
    assert coverage.gaps == ()
    assert [(part.grain, part.end - part.start) for part in coverage.parts] == [(86_400, 86_400)] * 90


@pytest.mark.parametrize(("tz", "most"), [("Europe/Madrid", 5), ("Asia/Kathmandu", 5), ("Pacific/Kiritimati", 9)])
def test_days_of_a_zone_take_few_cells_each(tz, most):
    coverage = days(tz)
    assert coverage.gaps == ()
    assert sum((part.end - part.start) // part.grain for part in coverage.parts) <= most * 91


def test_all_time_is_one_part_without_a_gap():
    coverage = cover((EARLIEST, LATEST), GRAINS)
    assert coverage.gaps == ()
    assert len(coverage.parts) == 1
