"""Rollups of calls for SQL backends: their columns, which of them a query reads, and the result from their sums.

A backend has two tables with one row for each cell, provider, model and status: by user and UTC day (`USER_KEY`), and
by period of time (`TIME_KEY`, the grains of `time_cells`). Each row has the sums of its calls (`NUMBERS`) and two
histograms of their times. Calls are folded into the rows some time after they were recorded. Calls that are not folded
yet, the tail, are summed for each query in the same snapshot.

A histogram is a text of entries separated by commas, each `BUCKET` (one call) or `BUCKET:CALLS`. It is the sum of its
entries: a bucket may occur in several, and CALLS may be negative. So two histograms are merged by joining their texts,
and one is subtracted from another by appending its negative. The text is shortened to one entry for each bucket only
when it has grown by another `HISTOGRAM_STEP` characters. Most rows have few calls, so this is much cheaper than keeping
every text sorted, and no text is longer than its shortest form and one step.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from operator import add, itemgetter
from typing import Any, NamedTuple

from ..._shared.money import from_units, to_units
from ..reference import GRAINS as KEPT
from ..reference import none_first, purged_detail, too_fine
from ..types import Grain, TotalsRow, UsageQuery, UsageRow, usage_row
from .time_cells import EPOCH, GRAINS, SECOND, USER_GRAINS, Coverage, Part, cover, micros

#: The keys of the two tables. `id_at_origin` is '' for calls without a user; `day` and `start` are seconds since 1970.
USER_KEY = ("day", "origin", "id_at_origin", "provider", "model_name", "status")
TIME_KEY = ("grain", "start", "origin", "provider", "model_name", "status")

#: The sums of a row, by the names of `UsageRow`; cost in units of 1e-12 dollar.
NUMBERS = (
    "calls",
    "requests",
    "unmeasured_calls",
    "unpriced_calls",
    "response_time_ms_count",
    "cost",
    "total_tokens",
    "prompt_tokens",
    "completion_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "reasoning_tokens",
    "response_time_ms_sum",
)
#: The sums that change with the cost of a call.
PRICED = ("unmeasured_calls", "unpriced_calls", "cost")
HISTOGRAMS = ("response_time_histogram", "first_token_histogram")
#: Number of characters by which a histogram grows before it is shortened.
HISTOGRAM_STEP = 1_500

_COST = NUMBERS.index("cost")
#: Fields of a query that are columns of both tables.
_COLUMNS = ("origin", "provider", "model_name", "status")


def read_histogram(text: str | None) -> dict[int, int]:
    """Return bucket -> calls, in order and without zeros."""
    found: dict[int, int] = {}
    for entry, times in Counter(text.split(",")).items() if text else ():
        bucket, _, calls = entry.partition(":")
        index = int(bucket)
        found[index] = found.get(index, 0) + int(calls or 1) * times
    return {bucket: found[bucket] for bucket in sorted(found) if found[bucket]}


def write_histogram(counts: Mapping[int, int]) -> str | None:
    """Return the shortest text of a histogram; None if it has no calls."""
    return ",".join([str(bucket) if calls == 1 else f"{bucket}:{calls}" for bucket, calls in counts.items()]) or None


def subtract(counts: Mapping[Any, int], taken: Mapping[Any, int]) -> dict[Any, int]:
    """Return `counts` minus `taken`, in the same order and without zeros."""
    if not taken:
        return dict(counts)
    left = {key: counts.get(key, 0) - taken.get(key, 0) for key in {**counts, **taken}}
    return {key: number for key, number in left.items() if number}


class RollupPlan:
    """Plan of a query: the cells of one of the tables that it reads, and the calls where no cell fits.

    `by_user` selects the table. `coverage.parts` are the cells; those with sign -1 are subtracted. `coverage.gaps` are
    the ranges of time that are summed from the calls themselves, as the tail is.
    """

    def __init__(self, query: UsageQuery) -> None:
        fields = {*query.filters, *query.group_by} - {"period"}
        self.query = query
        self.by_user = "id_at_origin" in fields
        self.grains = USER_GRAINS if self.by_user else GRAINS
        self._is_too_fine = bool(too_fine(fields))
        if self._is_too_fine:
            self.coverage = Coverage((), ((micros(query.edges[0]), micros(query.edges[-1])),))
        else:
            self.coverage = cover(query.edges, self.grains)

    @property
    def parts(self) -> tuple[Part, ...]:
        """The cells that the query reads."""
        return self.coverage.parts

    @property
    def filters(self) -> dict[str, list[str]]:
        """Return the values that the query accepts, by column of the table."""
        given = self.query.filters
        accepted = {name: [value for value in given[name] if value] for name in _COLUMNS if name in given}
        if "id_at_origin" in given:
            users = given["id_at_origin"]
            accepted["id_at_origin"] = [*filter(None, users), *([""] if None in users else [])]
        return accepted

    def purged(self, watermark: datetime) -> list[tuple[int, int]]:
        """Return ranges [first, last) of starts, in seconds, of purged cells of the finest grain that the query would
        cut."""
        grain, end = self.grains[-1], micros(watermark) // SECOND
        found = [(lo // SECOND // grain * grain, min(-(-hi // SECOND), end)) for lo, hi in self.coverage.gaps]
        return [(lo, hi) for lo, hi in found if lo < hi]

    def refuse_if_cut(self, last: int | None, watermark: datetime) -> None:
        """Refuse a query that cuts purged cells. `last` is the greatest start of a row that passes the filters in the
        ranges of `purged` (None: there is none).

        :raises PurgedDetailError: there is such a row
        """
        if last is not None:
            end = EPOCH + timedelta(seconds=last + self.grains[-1])
            raise purged_detail(self.query, watermark if self._is_too_fine else end)


class Histogram(Mapping[int, int]):
    """Mapping bucket -> calls, equal to a dict. It is parsed when it is first read, which most callers never do."""

    __slots__ = ("_added", "_counted", "_taken")

    def __init__(self, added: str | None, taken: str | None = None) -> None:
        self._added = added
        self._taken = taken
        self._counted: dict[int, int] | None = None

    def _counts(self) -> dict[int, int]:
        if self._counted is None:
            self._counted = subtract(read_histogram(self._added), read_histogram(self._taken))
            self._added = self._taken = None
        return self._counted

    def __getitem__(self, bucket: int) -> int:
        return self._counts()[bucket]

    def __iter__(self) -> Iterator[int]:
        return iter(self._counts())

    def __len__(self) -> int:
        return len(self._counts())

    def __repr__(self) -> str:
        return repr(self._counts())

    def __reduce__(self) -> tuple[type[dict[int, int]], tuple[dict[int, int]]]:
        return dict, (self._counts(),)


#: Sums of one group: numbers, and the texts of statuses, response times and first tokens, first the added ones, then
#: the subtracted ones. A plain tuple, because a result may have thousands.
_Sums = tuple[Any, ...]


def _plus(one: _Sums, other: _Sums) -> _Sums:
    numbers = list(map(add, one[0], other[0]))
    return (numbers, *map(_joined, one[1:], other[1:]))


def _joined(text: str | None, more: str | None) -> str | None:
    return f"{text},{more}" if text and more else text or more


class UsageRows:
    """The rows of a result, computed from sums that a backend has read."""

    def __init__(self, query: UsageQuery) -> None:
        self._fields = query.group_by
        self._groups: dict[tuple[Any, ...], _Sums] = {}
        self._user = self._fields.index("id_at_origin") if "id_at_origin" in self._fields else None

    def add(
        self,
        key: tuple[Any, ...],
        statuses: str,
        numbers: Sequence[int],
        response: str | None,
        first_token: str | None,
        sign: int = 1,
    ) -> None:
        """Add sums (`sign` -1: subtract them) to the group that has `key` in the fields of `group_by`.

        `statuses` is `STATUS:CALLS,…`, in which a status may occur more than once; `numbers` are those of NUMBERS. No
        user is '' or None. The histograms are texts; None: there is none.
        """
        if self._user is not None and not key[self._user]:
            key = (*key[: self._user], None, *key[self._user + 1 :])
        sums: _Sums = (numbers, statuses, response, first_token, None, None, None)
        if sign < 0:
            sums = ([-number for number in numbers], None, None, None, statuses, response, first_token)
        known = self._groups.get(key)
        self._groups[key] = sums if known is None else _plus(known, sums)

    def rows(self) -> list[UsageRow]:
        """Return the rows in the order of the contract."""
        fields = self._fields
        found = [(key, _row(fields, key, sums)) for key, sums in self._groups.items() if sums[0][0]]
        if not found and not fields:
            return [UsageRow()]
        try:
            found.sort(key=itemgetter(0))
        except TypeError:  # some keys have None where others have text
            found.sort(key=lambda pair: none_first(pair[0]))
        return [row for _, row in found]


def _row(fields: tuple[str, ...], key: tuple[Any, ...], sums: _Sums) -> UsageRow:
    numbers, statuses, response, first_token, taken_statuses, taken_response, taken_first_token = sums
    calls, requests, unmeasured, unpriced, timed, cost, total, prompt, completion, read, write, reasoning, ms = numbers
    by_status = _read_statuses(statuses)
    if taken_statuses:
        by_status = subtract(by_status, _read_statuses(taken_statuses))
    labels = dict(zip(fields, key, strict=True))
    return usage_row(
        labels,
        labels.pop("period", None),
        calls,
        requests,
        by_status,
        prompt,
        completion,
        total,
        read,
        write,
        reasoning,
        from_units(cost),
        unpriced,
        unmeasured,
        ms,
        timed,
        Histogram(response, taken_response),
        Histogram(first_token, taken_first_token),
    )


def _read_statuses(text: str | None) -> dict[str, int]:
    found: dict[str, int] = {}
    for entry in text.split(",") if text else ():
        status, _, calls = entry.partition(":")
        found[status] = found.get(status, 0) + int(calls)
    return found


class Rollup(NamedTuple):
    """One row of a table: its key in the order of USER_KEY or TIME_KEY, and its sums."""

    key: tuple[Any, ...]
    numbers: tuple[int, ...]
    response: str | None
    first_token: str | None


def to_totals_row(grain: Grain, rollup: Rollup) -> TotalsRow:
    """Return a row of purged days in the form of the contract: `day` from the table by user, `quarter` from the other
    one."""
    names = USER_KEY if grain == "day" else TIME_KEY
    key = dict(zip(names, rollup.key, strict=True))
    start = key.pop("day") if grain == "day" else key.pop("start")
    key.pop("grain", None)
    if grain == "day":
        key["id_at_origin"] = key["id_at_origin"] or None
    numbers: dict[str, Any] = dict(zip(NUMBERS, rollup.numbers, strict=True))
    numbers["cost"] = from_units(numbers["cost"])
    sums = UsageRow(
        by_status={key["status"]: rollup.numbers[0]},
        response_time_histogram=read_histogram(rollup.response),
        first_token_histogram=read_histogram(rollup.first_token),
        **numbers,
    )
    return TotalsRow(grain, EPOCH + timedelta(seconds=start), key, sums)


def from_totals_row(row: TotalsRow) -> Rollup:
    """Return the row of a table that has these sums."""
    start = micros(row.start) // SECOND
    place: dict[str, Any] = {**row.key, "day": start, "start": start, "grain": int(KEPT[row.grain].total_seconds())}
    place["id_at_origin"] = place.get("id_at_origin") or ""
    numbers = [getattr(row.sums, name) for name in NUMBERS]
    numbers[_COST] = to_units(row.sums.cost)
    return Rollup(
        tuple(place[name] for name in (USER_KEY if row.grain == "day" else TIME_KEY)),
        tuple(numbers),
        write_histogram(row.sums.response_time_histogram),
        write_histogram(row.sums.first_token_histogram),
    )


def differing(
    kept: Mapping[tuple[Any, ...], Rollup], counted: Mapping[tuple[Any, ...], Rollup]
) -> list[tuple[Any, ...]]:
    """Return the keys whose rows differ."""
    return [key for key in {**kept, **counted} if not _are_equal(kept.get(key), counted.get(key))]


def _are_equal(one: Rollup | None, other: Rollup | None) -> bool:
    if one is None or other is None:
        return False
    return one.numbers == other.numbers and all(
        read_histogram(mine) == read_histogram(theirs) for mine, theirs in zip(one[2:], other[2:], strict=True)
    )
