"""Sums of usage, made by a scan of the calls. PostgreSQL sums whole numbers exactly, whatever their size.

Each group is cut by status as well, which gives `by_status` and the times of successful calls for nothing; core's
`Sums` puts the pieces together.
"""

from __future__ import annotations

from typing import Any

from llmbridge.storage import UsageQuery, UsageRow, from_units
from llmbridge.storage.reference import Sums, none_first

from .filters import Parameters, conditions, expression
from .session import Session

_COUNTS = {
    "calls": "count(*)",
    "requests": "count(*) FILTER (WHERE attempt = 1)",
    "unpriced_calls": (
        "count(*) FILTER (WHERE estimated_cost IS NULL "
        "AND (cost_reason IS NULL OR cost_reason NOT IN ('not_billed', 'synthetic')))"
    ),
    "unmeasured_calls": "count(*) FILTER (WHERE total_tokens IS NULL AND cost_reason IS DISTINCT FROM 'not_billed')",
    "response_time_ms_count": "count(response_time_ms) FILTER (WHERE status = 'success')",
}
_TOTALS = {
    "prompt_tokens": "sum(prompt_tokens)",
    "completion_tokens": "sum(completion_tokens)",
    "total_tokens": "sum(total_tokens)",
    "cache_read_tokens": "sum(cache_read_tokens)",
    "cache_write_tokens": "sum(cache_write_tokens)",
    "reasoning_tokens": "sum(reasoning_tokens)",
    "cost": "sum(estimated_cost)",
    "response_time_ms_sum": "sum(response_time_ms) FILTER (WHERE status = 'success')",
}
_AGGREGATES = ", ".join((*_COUNTS.values(), *_TOTALS.values()))
_HISTOGRAMS = {"response_time_histogram": "response_bucket", "first_token_histogram": "first_token_bucket"}


async def summarize(session: Session, query: UsageQuery) -> list[UsageRow]:
    """The rows of a query, from one snapshot."""
    parameters = Parameters()
    keys = [_key(field, query, parameters) for field in query.group_by]
    first, last = (parameters.add(edge, "timestamptz") for edge in (query.edges[0], query.edges[-1]))
    where = [f"called_at >= {first}", f"called_at < {last}", *conditions(query.filters, parameters)]
    width = len(keys)
    groups: dict[tuple[Any, ...], Sums] = {} if query.group_by else {(): Sums()}
    async with session.snapshot():
        for row in await session.fetch(_scan([*keys, "status"], _AGGREGATES, where), *parameters.values):
            key, status, sums = tuple(row[:width]), row[width], row[width + 1 :]
            groups.setdefault(key, Sums()).add_row(_piece(status, sums))
        for histogram, bucket in _HISTOGRAMS.items():
            statement = _scan([*keys, bucket], "count(*)", [*where, f"{bucket} IS NOT NULL"])
            for row in await session.fetch(statement, *parameters.values):
                counted: dict[str, Any] = {histogram: {row[width]: row[width + 1]}}
                groups[tuple(row[:width])].add_row(UsageRow(**counted))
    return [_labelled(query, key, groups[key]) for key in sorted(groups, key=none_first)]


def _scan(keys: list[str], aggregates: str, where: list[str]) -> str:
    return " ".join(
        (
            "SELECT",
            ", ".join((*keys, aggregates)),
            "FROM {{tables.llmbridge_calls}} WHERE",
            " AND ".join(where),
            "GROUP BY",
            ", ".join(str(number) for number in range(1, len(keys) + 1)),
        )
    )


def _key(field: str, query: UsageQuery, parameters: Parameters) -> str:
    if field != "period":
        return expression(field, parameters)
    return f"width_bucket(called_at, {parameters.add(list(query.edges), 'timestamptz[]')}) - 1"


def _piece(status: str, sums: tuple[Any, ...]) -> UsageRow:
    numbers: dict[str, Any] = {name: int(number or 0) for name, number in zip((*_COUNTS, *_TOTALS), sums, strict=True)}
    numbers["cost"] = from_units(numbers["cost"])
    return UsageRow(by_status={status: numbers["calls"]}, **numbers)


def _labelled(query: UsageQuery, key: tuple[Any, ...], sums: Sums) -> UsageRow:
    labels = dict(zip(query.group_by, key, strict=True))
    period = labels.pop("period", None)
    return sums.row(labels, period)
