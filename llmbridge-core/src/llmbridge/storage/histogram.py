"""Log-scale histogram buckets for durations, merged by adding counts.

Bucket i holds the whole milliseconds from EDGES[i] up to, but not including, EDGES[i + 1]. Edges grow by a factor of at
most 1.022, so the value of a bucket is within 1.1 % of every duration in it. Below 46 ms a bucket is one millisecond,
so its value is exact. The idea is that of DDSketch (Masson, Rim, Lee: "DDSketch", VLDB 2019). Edges are whole numbers,
so no logarithm is needed and every machine computes the same buckets.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from fractions import Fraction
from math import ceil

_GROWTH = (1022, 1000)
_LONGEST = 2**63


def _edges() -> tuple[int, ...]:
    edges = [0]
    while edges[-1] < _LONGEST:
        edges.append(max(edges[-1] + 1, edges[-1] * _GROWTH[0] // _GROWTH[1]))
    return tuple(edges)


EDGES = _edges()


def bucket(ms: int) -> int:
    """Return the bucket of a duration in whole milliseconds, from 0 to 2**63 - 1."""
    return bisect_right(EDGES, ms) - 1


def value(index: int) -> float:
    """Return the duration in ms that represents a bucket: the harmonic mean of its first and last millisecond."""
    first, last = EDGES[index], EDGES[index + 1] - 1
    return 2 * first * last / (first + last) if last else 0.0


def percentile(histogram: Mapping[int, int], percent: float) -> float | None:
    """Return the percentile in ms by nearest rank, within 1.1 %; None for an empty histogram.

    :param percent: 0 to 100; 50 is the median
    """
    total = sum(histogram.values())
    if not total:
        return None
    # Exact decimal: the float 99.9 is a little more than 99.9, which would select the last of 1,000 calls.
    rank = min(max(1, ceil(Fraction(str(percent)) * total / 100)), total)
    for index in sorted(histogram):
        rank -= histogram[index]
        if rank <= 0:
            return value(index)
    raise AssertionError("unreachable: the ranks of a histogram sum to its total")
