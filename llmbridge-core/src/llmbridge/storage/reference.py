"""Reference implementation of usage sums: every backend's `summarize_usage` must return the same.

A simple backend may return `summarize` over its rows.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Hashable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from .._shared.money import from_units, to_units
from ..errors import PurgedDetailError
from ..schemas import CallRecord
from .histogram import bucket
from .types import EARLIEST, TAG_PREFIX, Grain, TotalsRow, UsageQuery, UsageRow

#: Length of a cell of purged totals.
GRAINS: Mapping[Grain, timedelta] = {"day": timedelta(days=1), "quarter": timedelta(minutes=15)}

#: Key fields of a cell of each grain.
CELL_KEYS: Mapping[Grain, tuple[str, ...]] = {
    "day": ("origin", "id_at_origin", "provider", "model_name", "status"),
    "quarter": ("origin", "provider", "model_name", "status"),
}

#: Reasons for which a call without a cost is not counted as unpriced.
NEVER_PRICED = frozenset({"not_billed", "synthetic"})

_TOKENS = (
    "prompt_tokens",
    "completion_tokens",
    "total_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "reasoning_tokens",
)
_COUNTS = (
    "calls",
    "requests",
    *_TOKENS,
    "unpriced_calls",
    "unmeasured_calls",
    "response_time_ms_sum",
    "response_time_ms_count",
)
_HISTOGRAMS = ("by_status", "response_time_histogram", "first_token_histogram")


class Sums:
    """Running sums of one group: exact, without an upper limit."""

    def __init__(self) -> None:
        self._counts = dict.fromkeys(_COUNTS, 0)
        self._units = 0
        self._histograms: dict[str, dict[Any, int]] = {name: {} for name in _HISTOGRAMS}

    def add_call(self, call: CallRecord) -> None:
        """Add one call."""
        counts = self._counts
        counts["calls"] += 1
        counts["requests"] += call.attempt == 1
        self._count("by_status", call.status)
        for name in _TOKENS:
            counts[name] += getattr(call, name) or 0
        if call.estimated_cost is not None:
            self._units += to_units(call.estimated_cost)
        elif call.cost_reason not in NEVER_PRICED:
            counts["unpriced_calls"] += 1
        if call.total_tokens is None and call.cost_reason != "not_billed":
            counts["unmeasured_calls"] += 1
        if call.status == "success":
            if call.response_time_ms is not None:
                counts["response_time_ms_sum"] += call.response_time_ms
                counts["response_time_ms_count"] += 1
                self._count("response_time_histogram", bucket(call.response_time_ms))
            if call.time_to_first_token_ms is not None:
                self._count("first_token_histogram", bucket(call.time_to_first_token_ms))

    def add_row(self, row: UsageRow) -> None:
        """Add the sums of another row."""
        for name in _COUNTS:
            self._counts[name] += getattr(row, name)
        self._units += to_units(row.cost)
        for name in _HISTOGRAMS:
            for key, number in getattr(row, name).items():
                self._count(name, key, number)

    def _count(self, name: str, key: Any, number: int = 1) -> None:
        self._histograms[name][key] = self._histograms[name].get(key, 0) + number

    def row(self, key: dict[str, Any] | None = None, period: int | None = None) -> UsageRow:
        """Return the current sums."""
        sums: dict[str, Any] = {**self._counts, **self._histograms}
        return UsageRow(key=key or {}, period=period, cost=from_units(self._units), **sums)


def summarize(
    calls: Iterable[CallRecord],
    query: UsageQuery,
    totals: Sequence[TotalsRow] = (),
    watermark: datetime = EARLIEST,
) -> list[UsageRow]:
    """Return the result of `query` over `calls` and over the `totals` of days purged before `watermark`.

    :raises PurgedDetailError: an edge of the query cuts a matching cell of purged totals, or the query needs a tag or
        an error_type or a response_model of purged calls
    """
    groups: dict[tuple[Hashable, ...], Sums] = {}
    if not query.group_by:
        groups[()] = Sums()
    for call in calls:
        period = interval(query.edges, call.called_at)
        if period is not None and all(field_value(call, f) in accepted for f, accepted in query.filters.items()):
            key = tuple(period if name == "period" else field_value(call, name) for name in query.group_by)
            groups.setdefault(key, Sums()).add_call(call)
    for cell in _matching_cells(query, totals, watermark):
        period = interval(query.edges, cell.start)
        key = tuple(period if name == "period" else cell.key[name] for name in query.group_by)
        groups.setdefault(key, Sums()).add_row(cell.sums)
    return [_labelled(query, key, groups[key]) for key in sorted(groups, key=none_first)]


def interval(edges: Sequence[datetime], at: datetime) -> int | None:
    """Return the index of the interval of `edges` that contains `at`; None if there is none."""
    index = bisect_right(edges, at) - 1
    return index if 0 <= index < len(edges) - 1 else None


def field_value(call: CallRecord, name: str) -> str | None:
    """Return the value of a call for a field of a filter or a grouping, also for `tag:NAME`."""
    if name.startswith(TAG_PREFIX):
        return tag_value(call.metadata, name.removeprefix(TAG_PREFIX))
    found: str | None = getattr(call, name)
    return found


def tag_value(metadata: Mapping[str, Any] | None, name: str) -> str | None:
    """Return a top-level value of `metadata` as a tag: text as it is, a number or bool as its JSON text, else None."""
    found = (metadata or {}).get(name)
    if isinstance(found, str):
        return found
    return json.dumps(found) if isinstance(found, bool | int | float) else None


def none_first(key: Iterable[Any]) -> tuple[tuple[bool, Any], ...]:
    """Return a sort key that puts None before every value."""
    return tuple((part is not None, part if part is not None else "") for part in key)


def _labelled(query: UsageQuery, key: tuple[Any, ...], sums: Sums) -> UsageRow:
    labels = dict(zip(query.group_by, key, strict=True))
    period = labels.pop("period", None)
    return sums.row(labels, period)


def too_fine(fields: Iterable[str]) -> list[str]:
    """Return the fields of a query that totals do not contain, sorted."""
    return sorted(set(fields) - {*CELL_KEYS["day"], "period"})


def purged_detail(query: UsageQuery, earliest: datetime) -> PurgedDetailError:
    """Return the error for a query that needs more detail than the totals of purged calls have.

    :param earliest: the end of the last cell that an edge of the query cuts; for fields that are `too_fine`, the
        watermark
    """
    fields = {*query.filters, *query.group_by}
    ask = f"from {earliest.isoformat()} on"
    if lacking := too_fine(fields):
        what = f"{', '.join(lacking)} of purged calls"
    else:
        what = "parts of a purged UTC day" if "id_at_origin" in fields else "parts of a purged quarter of an hour"
        if earliest >= query.edges[-1]:
            ask = f"until {earliest.isoformat()} or from then on"
    return PurgedDetailError(f"the totals of purged calls do not contain {what}; ask {ask}", earliest=earliest)


def _matching_cells(query: UsageQuery, totals: Sequence[TotalsRow], watermark: datetime) -> Sequence[TotalsRow]:
    fields = {*query.filters, *query.group_by}
    grain: Grain = "day" if "id_at_origin" in fields else "quarter"
    inside: list[TotalsRow] = []
    cut: list[datetime] = []
    for cell in totals:
        if cell.grain != grain or not all(
            cell.key[name] in accepted for name, accepted in query.filters.items() if name in cell.key
        ):
            continue
        end = cell.start + GRAINS[grain]
        if any(cell.start < edge < end for edge in query.edges):
            cut.append(end)
        elif interval(query.edges, cell.start) is not None:
            inside.append(cell)
    if too_fine(fields) and (cut or inside):
        raise purged_detail(query, watermark)
    if cut:
        raise purged_detail(query, max(cut))
    return inside
