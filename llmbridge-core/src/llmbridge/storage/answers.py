"""The answer to a question about usage, put together from sheets of totals and from sums of calls."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import zip_longest
from operator import itemgetter
from typing import Any

from pydantic_core import from_json

from .._shared.money import from_units
from .reference import none_first, purged_detail, too_fine
from .sheets import counts, full, split
from .toolkit.time_cells import EPOCH, GRAINS, SECOND, USER_GRAINS, Coverage, cover, micros
from .types import UsageQuery, UsageRow, usage_row

_LINE_FIELDS = ("provider", "model_name", "status")
_BY_STATUS, _KEY = 2, 3
_FEW = 8


class Histogram(Mapping[int, int]):
    """bucket -> calls, equal to a dict. It is counted when it is first looked at, which most askers never do."""

    __slots__ = ("_counted", "_entries", "_which")

    def __init__(self, entries: _Entries, which: int) -> None:
        self._entries: _Entries | None = entries
        self._which = which
        self._counted: dict[int, int] = {}

    def _counts(self) -> dict[int, int]:
        entries, self._entries = self._entries, None
        if entries is not None:
            self._counted = _count(entries, self._which)
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


class _Source:
    """Where lines come from: whether they are added or taken away (`sign`), and the text of their histograms, read at
    most once."""

    __slots__ = ("_read", "_text", "sign")

    def __init__(self, sign: int, text: str, read: list[Sequence[str]] | None = None) -> None:
        self.sign = sign
        self._text = text
        self._read = read

    def histograms(self, index: int) -> Sequence[str]:
        if self._read is None:
            self._read = from_json(self._text)
        return self._read[index]


#: What one row of the answer is summed from, all in one list since there are many: a line as `sheets` has it in its
#: sums, its source, where its histograms are there (None: it has none), and so on.
_Entries = list[Any]


def _count(entries: _Entries, which: int) -> dict[int, int]:
    signed: dict[int, list[str]] = {1: [], -1: []}
    for source, index in zip(entries[1::3], entries[2::3], strict=True):
        if index is not None:
            signed[source.sign].append(source.histograms(index)[which])
    added, taken = (counts(",".join(filter(None, signed[sign]))) for sign in (1, -1))
    left = {bucket: calls - taken.get(bucket, 0) for bucket, calls in added.items()}
    return {bucket: calls for bucket, calls in left.items() if calls}


def _line_key(fields: Sequence[str]) -> Callable[[Sequence[Any]], Any]:
    """What gives the fields of a line: the one, or a tuple of several."""
    key = itemgetter(*map(_LINE_FIELDS.index, fields))
    if "status" not in fields:
        return key
    return lambda line: key((*line[:_BY_STATUS], *line[_BY_STATUS]))


class Plan:
    """What a question needs: sheets of users or of times, and where a scan of the calls themselves.

    `by_user` tells which sheets; `coverage` which of them and where the gaps are. A backend hands over, from one
    snapshot, every sheet of the parts that its own conditions on origin and user let through, the sums of all calls
    in the gaps, and the sums of those calls elsewhere in the question that are in no sheet yet.
    """

    def __init__(self, query: UsageQuery) -> None:
        self.query = query
        fields = {*query.filters, *query.group_by} - {"period"}
        self.by_user = "id_at_origin" in fields
        self.grains = USER_GRAINS if self.by_user else GRAINS
        if too_fine(fields):
            self.coverage = Coverage((), ((micros(query.edges[0]), micros(query.edges[-1])),))
        else:
            self.coverage = cover(query.edges, self.grains)
        self._by_status = "status" in fields
        self._accepted = [
            (_line_key([name]), frozenset(query.filters[name])) for name in _LINE_FIELDS if name in query.filters
        ]
        self._of_line = [name for name in query.group_by if name in _LINE_FIELDS]
        self._of_sheet = [name for name in query.group_by if name not in _LINE_FIELDS]
        self._line_key = _line_key(self._of_line) if self._of_line else None
        self._groups: defaultdict[tuple[Any, ...], defaultdict[Any, _Entries]] = defaultdict(lambda: defaultdict(list))
        self._takes = any(part.sign < 0 for part in self.coverage.parts)

    def accepted_keys(self) -> dict[str, list[str]]:
        """What sheets must have in their keys, which a backend looks up: origins, and for users those too, as sheets
        name them."""
        named = ("origin", "id_at_origin") if self.by_user else ("origin",)
        accepted = {name: [v for v in self.query.filters[name] if v] for name in named if name in self.query.filters}
        if None in self.query.filters.get("id_at_origin", ()):
            accepted["id_at_origin"].append("")
        return accepted

    def purged(self, watermark: datetime) -> list[tuple[int, int]]:
        """Ranges (seconds) of starts of purged cells, of the last grain, that the question would cut."""
        grain, end = self.grains[-1], micros(watermark) // SECOND
        found = [(lo // SECOND // grain * grain, min(-(-hi // SECOND), end)) for lo, hi in self.coverage.gaps]
        return [(lo, hi) for lo, hi in found if lo < hi]

    def refuse_if_cut(self, sheets: Iterable[tuple[int, str, str]], watermark: datetime) -> None:
        """Look at the starts, sums and failures of all purged sheets of the ranges that `purged` gave.

        :raises PurgedDetailError: some hold calls that the question asks for
        """
        cut = (start for start, sums, failures in sheets if self._wanted(sums, failures))
        if too_fine({*self.query.filters, *self.query.group_by}):
            last = next(cut, None)
            earliest = watermark
        else:
            last = max(cut, default=None)
            earliest = watermark if last is None else EPOCH + timedelta(seconds=last + self.grains[-1])
        if last is not None:
            raise purged_detail(self.query, earliest)

    def add_sheet(
        self, origin: str, user: str, uses: Sequence[tuple[int, int]], sums: str, failures: str, histograms: str
    ) -> None:
        """Take a sheet for its uses, periods with signs. `user` is '' where there is none."""
        lines, line_key = self._wanted(sums, failures), self._line_key
        if not lines:
            return
        values: dict[str, Any] = {"origin": origin, "id_at_origin": user or None}
        for period, sign in uses:
            values["period"] = period
            groups, source = self._groups[tuple([values[name] for name in self._of_sheet])], _Source(sign, histograms)
            for index, line in lines:
                groups[None if line_key is None else line_key(line)].extend((line, source, index))

    def add_scan(
        self, key: Sequence[Any], status: str, numbers: Sequence[int], response: str | None, first_token: str | None
    ) -> None:
        """Take sums of calls that have `key` in the fields of group_by and one status. `numbers` are those of
        `sheets.NUMBERS`; the histograms are texts as `sheets` has them, None for none."""
        values = dict(zip(self.query.group_by, key, strict=True))
        of_line = tuple(values[name] for name in self._of_line)
        groups = self._groups[tuple(values[name] for name in self._of_sheet)]
        entries = groups[None if not of_line else of_line[0] if len(of_line) == 1 else of_line]
        line = [None, None, {status: numbers[0]}, *numbers[1:]]
        entries.extend((line, _Source(1, "", [(response or "", first_token or "")]), 0))

    def _wanted(self, sums: str, failures: str) -> list[tuple[int | None, list[Any]]]:
        """The lines of a sheet that the question asks for, and where their histograms are."""
        lines = from_json(sums)
        found: Iterable[tuple[int | None, list[Any]]] = (
            split(lines, from_json(failures)) if self._by_status else enumerate(lines)
        )
        for key, accepted in self._accepted:
            found = [entry for entry in found if key(entry[1]) in accepted]
        return list(found)

    def rows(self) -> list[UsageRow]:
        """The answer."""
        found: list[tuple[tuple[Any, ...], UsageRow]] = []
        asked, made = self.query.group_by, (*self._of_sheet, *self._of_line)
        several, ordered = len(self._of_line) > 1, asked == made
        for of_sheet, groups in self._groups.items():
            for of_line, entries in groups.items():
                key = of_sheet if of_line is None else (*of_sheet, *of_line) if several else (*of_sheet, of_line)
                if not ordered:
                    key = tuple([key[made.index(name)] for name in asked])
                row = self._row(dict(zip(asked, key, strict=True)), entries)
                if row.calls:
                    found.append((key, row))
        if not found and not self.query.group_by:
            return [UsageRow()]
        try:
            found.sort(key=itemgetter(0))
        except TypeError:  # some have a None where others have text
            found.sort(key=lambda pair: none_first(pair[0]))
        return [row for _, row in found]

    def _row(self, labels: dict[str, Any], entries: _Entries) -> UsageRow:
        lines = entries[::3]
        if self._takes:
            signed = list(zip(lines, entries[1::3], strict=True))
            numbers, by_status = _add([line for line, source in signed if source.sign > 0])
            away, away_by_status = _add([line for line, source in signed if source.sign < 0])
            numbers = [a - b for a, b in zip(numbers, away, strict=True)]
            by_status = {
                status: left for status, calls in by_status.items() if (left := calls - away_by_status.get(status, 0))
            }
        elif len(lines) == 1:  # as in a series of whole days, the most of all; nobody else has this line
            by_status, numbers = lines[0][_BY_STATUS], full(lines[0][_KEY:])
        else:
            numbers, by_status = _add(lines)
        requests, unmeasured, unpriced, cost, total, prompt, completion, timed, ms, *cached = numbers
        cache_read, reasoning, cache_write = cached
        return usage_row(
            labels,
            labels.pop("period", None),
            sum(by_status.values()),
            requests,
            by_status,
            prompt,
            completion,
            total,
            cache_read,
            cache_write,
            reasoning,
            from_units(cost),
            unpriced,
            unmeasured,
            ms,
            timed,
            Histogram(entries, 0),
            Histogram(entries, 1),
        )


def _add(lines: Sequence[list[Any]]) -> tuple[list[int], dict[str, int]]:
    """The numbers of the lines, added up, and the calls by status. Few lines are mostly one long one and short ones."""
    by_status: dict[str, int] = {}
    for line in lines:
        for status, calls in line[_BY_STATUS].items():
            by_status[status] = by_status.get(status, 0) + calls
    if len(lines) > _FEW:
        return full([sum(column) for column in list(zip_longest(*lines, fillvalue=0))[_KEY:]]), by_status
    longest = max(lines, key=len, default=[])
    numbers = full(longest[_KEY:])
    for line in lines:
        if line is not longest:
            for index in range(_KEY, len(line)):
                numbers[index - _KEY] += line[index]
    return numbers, by_status
