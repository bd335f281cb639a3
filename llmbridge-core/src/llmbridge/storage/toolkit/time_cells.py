"""Query planner for rollups: which time cells answer a usage query, and for which times the calls must be read.

Rollups have cells of a few grains, each aligned to its own length. An interval is covered by the coarsest cells that
fit. If it takes nearly all of a coarse cell, the whole cell is added and the rest of it is subtracted: sums allow that,
and it saves most of the cells of a local day. If an edge cuts one of the finest cells, the calls of that cell are
scanned.

Times are whole seconds since 1970 in UTC for cells, whole microseconds for scans.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise

from ..types import LATEST

#: Lengths of cells, in seconds, each a multiple of the next: with a user in the key, and without.
USER_GRAINS = (86_400,)
GRAINS = (86_400, 21_600, 3_600, 900)

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
#: Microseconds.
SECOND = 1_000_000


@dataclass(frozen=True, slots=True)
class Part:
    """Range of cells: those of `grain` that start in [start, end) are added to the interval `period` (`sign` 1), or
    subtracted from it (`sign` -1)."""

    grain: int
    start: int
    end: int
    period: int
    sign: int


@dataclass(frozen=True, slots=True)
class Coverage:
    """Plan of a query: the cells of `parts`, and the calls of `gaps`.

    Gaps are ranges [from, to) in microseconds, ascending and not adjacent. Every other time of the query is in the
    parts exactly once.
    """

    parts: tuple[Part, ...]
    gaps: tuple[tuple[int, int], ...]

    @property
    def bounds(self) -> list[int]:
        """The bounds of all gaps in order: a time with an odd number of bounds at or before it is in a gap."""
        return [bound for gap in self.gaps for bound in gap]


def micros(at: datetime) -> int:
    """Return the whole microseconds from 1970 to an aware time."""
    since = at - EPOCH
    return (since.days * 86_400 + since.seconds) * SECOND + since.microseconds


def cover(edges: Sequence[datetime], grains: Sequence[int]) -> Coverage:
    """Return how cells of `grains` (in seconds, the coarsest first) cover the intervals between `edges`."""
    finest = grains[-1] * SECOND
    instants = [micros(edge) for edge in edges]
    if edges[-1] == LATEST:  # no call is later, so the last cell is not cut
        instants[-1] = -(-instants[-1] // finest) * finest
    parts = tuple(
        part
        for period, (start, end) in enumerate(pairwise(instants))
        for part in _cells(-(-start // finest) * finest // SECOND, end // finest * finest // SECOND, grains, period)
    )
    return Coverage(parts, tuple(_gaps(instants, finest)))


def _gaps(instants: Sequence[int], finest: int) -> Iterator[tuple[int, int]]:
    """Yield the finest cells that an edge cuts, limited to the query; adjacent ones as one range."""
    first, last = instants[0], instants[-1]
    begun: tuple[int, int] | None = None
    for instant in instants:
        cell = instant // finest * finest
        if cell == instant:
            continue
        start, end = max(cell, first), min(cell + finest, last)
        if begun is not None and start <= begun[1]:
            begun = begun[0], end
            continue
        if begun is not None:
            yield begun
        begun = start, end
    if begun is not None:
        yield begun


def _cells(start: int, end: int, grains: Sequence[int], period: int, sign: int = 1) -> Iterator[Part]:
    """Yield the cells that cover [start, end); both bounds are aligned to the last of `grains`."""
    if start >= end:
        return
    grain, finer = grains[0], grains[1:]
    inner, outer = -(-start // grain) * grain, end // grain * grain
    if inner > outer:  # within one cell
        yield from _cells(start, end, finer, period, sign)
        return
    if 2 * (inner - start) > grain:
        yield from _cells(inner - grain, start, finer, period, -sign)
        inner -= grain
    else:
        yield from _cells(start, inner, finer, period, sign)
    if 2 * (end - outer) > grain:
        yield from _cells(end, outer + grain, finer, period, -sign)
        outer += grain
    else:
        yield from _cells(outer, end, finer, period, sign)
    if inner < outer:
        yield Part(grain, inner, outer, period, sign)
