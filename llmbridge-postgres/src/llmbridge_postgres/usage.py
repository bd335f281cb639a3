"""Sums of usage, from the totals, and from the calls themselves where no total tells."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from llmbridge.storage import EARLIEST, LATEST, UsageQuery, UsageRow
from llmbridge.storage.answers import Plan
from llmbridge.storage.toolkit.time_cells import EPOCH, Uses, micros

from .connection import Session
from .filters import Parameters, conditions, expression
from .rollups import AGGREGATES, open_lots, watermark

#: `OFFSET 0` makes PostgreSQL look every range up by itself: not knowing how short they are, it would rather compare
#: all sheets with all of them.
_SHEETS = """
SELECT wanted.grain, {key}, start, sums, failures, histograms
FROM unnest($1::bigint[], $2::bigint[], $3::bigint[]) AS wanted (grain, first, last)
CROSS JOIN LATERAL (SELECT * FROM {table} AS totals WHERE {where} OFFSET 0) AS sheet
"""
_USER_SHEETS = ("origin, id_at_origin", "{{tables.llmbridge_user_totals}}", ["start >= first", "start < last"])
_TIME_SHEETS = (
    "origin, ''",
    "{{tables.llmbridge_totals}}",
    ["totals.grain = wanted.grain", "start >= first", "start < last"],
)
_CALLS = "{{tables.llmbridge_calls}}"

#: The grain of a sheet, and its first and last start.
Range = tuple[int, int, int]


async def summarize(session: Session, query: UsageQuery) -> list[UsageRow]:
    """The rows of a query, from one snapshot; put together beside the event loop, once the connection is free for the
    next question."""
    plan = Plan(query)
    uses = {grain: Uses([part for part in plan.coverage.parts if part.grain == grain]) for grain in plan.grains}
    async with session.snapshot():
        purged_before = await watermark(session)
        cut: list[Any] = []
        if purged_before is not None and (purged := plan.purged(purged_before)):
            cut = await _sheets(session, plan, [(plan.grains[-1], *starts) for starts in purged])
        wanted = [(grain, *starts) for grain, of_grain in uses.items() for starts in of_grain.ranges()]
        kept = await _sheets(session, plan, wanted) if wanted else []
        scanned = await _gaps(session, plan, purged_before or EARLIEST)
        lots = await open_lots(session) if plan.coverage.parts else []
        scanned += await _tail(session, plan, lots) if lots else []

    def answer() -> list[UsageRow]:
        if purged_before is not None:
            plan.refuse_if_cut(((start, *texts[:2]) for _, _, _, start, *texts in cut), purged_before)
        for grain, origin, user, start, *texts in kept:
            plan.add_sheet(origin, user, uses[grain].of(start), *texts)
        width = len(query.group_by)
        for row in scanned:
            status, *numbers, response, first_token = row[width:]
            plan.add_scan(row[:width], status, [int(number) for number in numbers], response, first_token)
        return plan.rows()

    return await asyncio.to_thread(answer)


async def _sheets(session: Session, plan: Plan, wanted: Sequence[Range]) -> list[Any]:
    """Sheets that begin in one of the ranges and pass the filters by which they are kept."""
    parameters = Parameters()
    for column in zip(*wanted, strict=True):
        parameters.add(list(column), "bigint[]")
    accepted = [f"{name} = ANY ({parameters.add(values, 'text[]')})" for name, values in plan.accepted_keys().items()]
    key, table, ranges = _USER_SHEETS if plan.by_user else _TIME_SHEETS
    statement = _SHEETS.format(key=key, table=table, where=" AND ".join((*ranges, *accepted)))
    return await session.fetch(statement, *parameters.values)


async def _gaps(session: Session, plan: Plan, not_purged: datetime) -> list[Any]:
    """Sums of the calls in the gaps, from the first instant on that is not purged."""
    first_bound = micros(not_purged)
    gaps = [(max(first, first_bound), last) for first, last in plan.coverage.gaps if last > first_bound]
    if not gaps:
        return []
    parameters = Parameters()
    if len(gaps) == 1:
        first, last = (parameters.add(_instant(bound), "timestamptz") for bound in gaps[0])
        return await _scan(session, plan, parameters, _CALLS, [f"called_at >= {first}", f"called_at < {last}"])
    firsts, lasts = (
        parameters.add([_instant(bound) for bound in column], "timestamptz[]") for column in zip(*gaps, strict=True)
    )
    gap = f"unnest({firsts}, {lasts}) AS gap (first, last)"
    source = f"{_CALLS} JOIN {gap} ON called_at >= first AND called_at < last"
    return await _scan(session, plan, parameters, source, [])


async def _tail(session: Session, plan: Plan, lots: list[int]) -> list[Any]:
    """Sums of the calls of the question that are in no total, but those of its gaps. `OFFSET 0` makes PostgreSQL begin
    with the lots, which it cannot know to be the fewest."""
    parameters = Parameters()
    edges = plan.query.edges
    first, last = (parameters.add(edge, "timestamptz") for edge in (edges[0], edges[-1]))
    wanted = [f"called_at >= {first}", f"called_at < {last}"]
    if plan.coverage.gaps:
        bounds = parameters.add([_instant(bound) for bound in plan.coverage.bounds], "timestamptz[]")
        wanted.append(f"width_bucket(called_at, {bounds}) % 2 = 0")
    source = f"(SELECT * FROM {_CALLS} WHERE lot = ANY ({parameters.add(lots, 'bigint[]')}) OFFSET 0) AS tail"  # noqa: S608
    return await _scan(session, plan, parameters, source, wanted)


async def _scan(session: Session, plan: Plan, parameters: Parameters, source: str, wanted: Sequence[str]) -> list[Any]:
    """Sums of calls, grouped as the question wants them, and by status."""
    query = plan.query
    keys = [_key(field, query, parameters) for field in query.group_by]
    where = [*wanted, *conditions(query.filters, parameters)]
    statement = " ".join(
        (
            "SELECT",
            ", ".join((*keys, "status", AGGREGATES)),
            "FROM",
            source,
            *(("WHERE", " AND ".join(where)) if where else ()),
            "GROUP BY",
            ", ".join(str(number) for number in range(1, len(keys) + 2)),
        )
    )
    return await session.fetch(statement, *parameters.values)


def _key(field: str, query: UsageQuery, parameters: Parameters) -> str:
    if field != "period":
        return expression(field, parameters)
    return f"width_bucket(called_at, {parameters.add(list(query.edges), 'timestamptz[]')}) - 1"


def _instant(bound: int) -> datetime:
    """The UTC time of microseconds since 1970; where the last cell ends, beyond all times, the last one."""
    return EPOCH + timedelta(microseconds=bound) if bound < micros(LATEST) else LATEST
