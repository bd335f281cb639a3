"""Every time in a bucket is within 1.1 % of the bucket's value, on every machine."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmbridge.storage import histogram

times = st.integers(0, 2**63 - 1) | st.integers(0, 100_000)


@given(times)
def test_a_bucket_stands_for_its_times_within_1_1_percent(ms: int) -> None:
    assert abs(histogram.value(histogram.bucket(ms)) - ms) <= 0.011 * ms


@given(times)
def test_a_bucket_holds_the_times_between_its_edges(ms: int) -> None:
    index = histogram.bucket(ms)
    assert histogram.EDGES[index] <= ms < histogram.EDGES[index + 1]


def test_small_times_are_exact() -> None:
    assert [histogram.value(histogram.bucket(ms)) for ms in range(46)] == list(range(46))


def test_the_numbers_of_the_buckets_never_change() -> None:
    known = {0: 0, 1: 1, 45: 45, 100: 95, 1_000: 212, 60_000: 401, 2**63 - 1: 1902}
    assert {ms: histogram.bucket(ms) for ms in known} == known


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=50), st.sampled_from([50, 95, 99, 100, 0]))
def test_a_percentile_is_that_of_the_times_within_1_1_percent(times_ms: list[int], percent: int) -> None:
    counts: dict[int, int] = {}
    for ms in times_ms:
        counts[histogram.bucket(ms)] = counts.get(histogram.bucket(ms), 0) + 1
    rank = max(1, -(-percent * len(times_ms) // 100))
    exact = sorted(times_ms)[rank - 1]
    found = histogram.percentile(counts, percent)
    assert found is not None
    assert abs(found - exact) <= 0.011 * exact


@pytest.mark.parametrize(("percent", "calls"), [(99.9, 1000), (99.99, 10_000), (55, 100), (7, 100)])
def test_a_percentile_counts_no_call_too_many(percent: float, calls: int) -> None:
    below = round(percent * calls / 100)
    assert histogram.percentile({1: below, 40: calls - below}, percent) == 1


def test_no_calls_have_no_percentile() -> None:
    assert histogram.percentile({}, 50) is None
