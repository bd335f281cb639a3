"""Log-scale buckets for times, mergeable by adding counts.

Bucket i holds the whole milliseconds from EDGES[i] up to EDGES[i + 1]. Edges grow by a factor of at most 1.022, so
the value given back for a bucket is within 1.1 % of every time in it; below 46 ms a bucket is one millisecond and
exact. The idea is DDSketch's (Masson, Rim, Lee: "DDSketch", VLDB 2019), with whole edges so that no logarithm is
taken and every machine agrees.
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
    """The bucket of a time in whole milliseconds, from 0 to 2**63 - 1."""
    return bisect_right(EDGES, ms) - 1


def value(index: int) -> float:
    """The time in milliseconds that stands for a bucket: the harmonic mean of its first and last time."""
    first, last = EDGES[index], EDGES[index + 1] - 1
    return 2 * first * last / (first + last) if last else 0.0


def percentile(histogram: Mapping[int, int], percent: float) -> float | None:
    """The time in milliseconds below or at which `percent` (0 to 100) of the calls lie, by nearest rank, within
    1.1 %; None for an empty histogram."""
    total = sum(histogram.values())
    if not total:
        return None
    # As it is written: 99.9 in binary is a little more, and of 1,000 calls would be the last.
    rank = min(max(1, ceil(Fraction(str(percent)) * total / 100)), total)
    for index in sorted(histogram):
        rank -= histogram[index]
        if rank <= 0:
            return value(index)
    raise AssertionError("unreachable: the ranks of a histogram sum to its total")
