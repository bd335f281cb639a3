"""Sums of usage, made by a scan of the calls.

SQLite's SUM raises beyond 64 bits, so every sum is made of its values' upper and lower 32 bits and put together
here. Each group is cut by status as well, which gives `by_status` and the times of successful calls for nothing.
"""

from __future__ import annotations

import sqlite3
from bisect import bisect_right
from functools import partial
from typing import Any

from llmbridge.storage import EARLIEST, UsageQuery, UsageRow, from_units
from llmbridge.storage.reference import none_first

from .codec import to_micros
from .filters import conditions, define_tag, expression

_COUNTS = {
    "calls": "COUNT(*)",
    "requests": "COUNT(*) FILTER (WHERE attempt = 1)",
    "unpriced_calls": (
        "COUNT(*) FILTER (WHERE estimated_cost IS NULL "
        "AND cost_reason IS NOT 'not_billed' AND cost_reason IS NOT 'synthetic')"
    ),
    "unmeasured_calls": "COUNT(*) FILTER (WHERE total_tokens IS NULL AND cost_reason IS NOT 'not_billed')",
    "response_time_ms_count": "COUNT(response_time_ms)",
}
_SUMMED = {
    "prompt_tokens": "prompt_tokens",
    "completion_tokens": "completion_tokens",
    "total_tokens": "total_tokens",
    "cache_read_tokens": "cache_read_tokens",
    "cache_write_tokens": "cache_write_tokens",
    "reasoning_tokens": "reasoning_tokens",
    "cost": "estimated_cost",
    "response_time_ms_sum": "response_time_ms",
}
_OF_SUCCESSES = frozenset({"response_time_ms_sum", "response_time_ms_count"})

_AGGREGATES = ", ".join(
    (
        *_COUNTS.values(),
        *(f"SUM({column} >> 32), SUM({column} & 4294967295)" for column in _SUMMED.values()),
    )
)
_HISTOGRAMS = {"response_time_histogram": "response_bucket", "first_token_histogram": "first_token_bucket"}

Key = tuple[Any, ...]


class _Group:
    """The sums of one group."""

    def __init__(self) -> None:
        self._sums = dict.fromkeys((*_COUNTS, *_SUMMED), 0)
        self._by_status: dict[str, int] = {}
        self._histograms: dict[str, dict[int, int]] = {name: {} for name in _HISTOGRAMS}

    def add(self, status: str, aggregates: tuple[int | None, ...]) -> None:
        counts, halves = aggregates[: len(_COUNTS)], aggregates[len(_COUNTS) :]
        sums = (((high or 0) << 32) + (low or 0) for high, low in zip(halves[::2], halves[1::2], strict=True))
        for name, number in zip(self._sums, (*counts, *sums), strict=True):
            if status == "success" or name not in _OF_SUCCESSES:
                self._sums[name] += number or 0
        self._by_status[status] = self._by_status.get(status, 0) + (aggregates[0] or 0)

    def add_bucket(self, histogram: str, bucket: int, calls: int) -> None:
        self._histograms[histogram][bucket] = calls

    def row(self, labels: dict[str, Any]) -> UsageRow:
        period = labels.pop("period", None)
        sums: dict[str, Any] = {**self._sums, **self._histograms, "cost": from_units(self._sums["cost"])}
        return UsageRow(key=labels, period=period, by_status=self._by_status, **sums)


def summarize(connection: sqlite3.Connection, query: UsageQuery) -> list[UsageRow]:
    """The rows of a query. Belongs into one read transaction, since it scans more than once."""
    parameters: dict[str, Any] = {}
    keys = [_key(connection, field, query, parameters) for field in query.group_by]
    where = _where(query, parameters)
    define_tag(connection)

    groups: dict[Key, _Group] = {} if query.group_by else {(): _Group()}
    width = len(keys)
    for row in _scan(connection, [*keys, "status"], _AGGREGATES, where, parameters):
        groups.setdefault(row[:width], _Group()).add(row[width], row[width + 1 :])
    for histogram, bucket in _HISTOGRAMS.items():
        filled = [*where, f"{bucket} IS NOT NULL"]
        for row in _scan(connection, [*keys, bucket], "COUNT(*)", filled, parameters):
            groups[row[:width]].add_bucket(histogram, row[width], row[width + 1])
    return [groups[key].row(dict(zip(query.group_by, key, strict=True))) for key in sorted(groups, key=none_first)]


def _scan(
    connection: sqlite3.Connection, keys: list[str], aggregates: str, where: list[str], parameters: dict[str, Any]
) -> list[Key]:
    """One grouped scan; without keys SQLite would make a row of nothing, so there is always one."""
    statement = " ".join(
        (
            "SELECT",
            ", ".join((*keys, aggregates)),
            "FROM llmbridge_calls WHERE",
            " AND ".join(where),
            "GROUP BY",
            ", ".join(str(number) for number in range(1, len(keys) + 1)),
        )
    )
    return connection.execute(statement, parameters).fetchall()


def _key(connection: sqlite3.Connection, field: str, query: UsageQuery, parameters: dict[str, Any]) -> str:
    if field != "period":
        return expression(field, parameters, "group_tag")
    edges = [to_micros(edge) for edge in query.edges]
    connection.create_function("llmbridge_edges_passed", 1, partial(bisect_right, edges), deterministic=True)
    return "llmbridge_edges_passed(called_at) - 1"


def _where(query: UsageQuery, parameters: dict[str, Any]) -> list[str]:
    """The range as a whole and the filters. A range open below is nearly the whole table, which an index would
    only read in a slower order; `+` keeps SQLite from using one."""
    first, last = query.edges[0], query.edges[-1]
    parameters.update(first=to_micros(first), last=to_micros(last))
    column = "+called_at" if first == EARLIEST else "called_at"
    return [f"{column} >= :first", f"{column} < :last", *conditions(query.filters, parameters)]
