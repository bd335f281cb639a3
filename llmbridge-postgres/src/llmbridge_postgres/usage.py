"""Usage queries: sums of rollups, and of calls where no whole cell covers the range or calls are not folded yet."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import asyncpg

from llmbridge.storage import EARLIEST, LATEST, UsageQuery, UsageRow
from llmbridge.storage.toolkit.rollups import HISTOGRAMS, NUMBERS, RollupPlan, UsageRows
from llmbridge.storage.toolkit.time_cells import EPOCH, Part, micros

from . import rollups
from .connection import Connection
from .filters import Parameters, conditions, expression
from .rollups import OPEN, TIMES, USERS

#: The watermark, the open lots, and the first and the last cell.
_STATE = (
    f"SELECT watermark, ARRAY({OPEN} ORDER BY number) AS lots, first, last "
    "FROM {{tables.llmbridge_state}} CROSS JOIN"
)
_STATE_OF_USERS = f"{_STATE} (SELECT min(day), max(day) FROM {USERS}) AS cells (first, last)"
_STATE_OF_TIMES = f"{_STATE} (SELECT min(start), max(start) FROM {TIMES}) AS cells (first, last)"
_CALLS = "{{tables.llmbridge_calls}}"

_STATUSES_OF_ROWS = "string_agg(status || ':' || calls, ',')"
_TEXTS_OF_ROWS = tuple(f"string_agg({name}, ',')" for name in HISTOGRAMS)


class _Sums(NamedTuple):
    """Columns of sums: statuses, histograms, numbers. `is_exact`: the numbers are read as texts of any length."""

    of_rows: str
    of_calls: str
    is_exact: bool


def _sums(of_row: str, of_call: str, *, is_exact: bool) -> _Sums:
    return _Sums(
        ", ".join((_STATUSES_OF_ROWS, *_TEXTS_OF_ROWS, *(of_row.format(name) for name in NUMBERS))),
        ", ".join(
            (
                "status || ':' || count(*)",
                *rollups.TEXTS.values(),
                *(of_call.format(sql) for sql in rollups.SUMS.values()),
            )
        ),
        is_exact,
    )


#: Sums of bigints are several times faster than sums of numerics, and raise an error if they overflow.
_FAST = _sums("sum({}::bigint)::bigint", "({})::bigint", is_exact=False)
_EXACT = _sums("sum({})::text", "({})::text", is_exact=True)
#: Up to this many rows, the result is assembled on the event loop, otherwise in a thread.
_FEW = 200
#: Calls in gaps up to this long (in microseconds) are found by the index on time.
_SHORT = 2 * 86_400 * 10**6


async def summarize(connection: Connection, query: UsageQuery) -> list[UsageRow]:
    """Return the rows of a query from one snapshot. They are assembled after the connection was returned. If a sum
    exceeds 64 bits, the query is run once more, in another snapshot."""
    plan = RollupPlan(query)
    sums = _FAST
    try:
        found = await _found(connection, plan, sums)
    except asyncpg.NumericValueOutOfRangeError:
        sums = _EXACT
        found = await _found(connection, plan, sums)
    rows = UsageRows(query)
    end = len(query.group_by) + 1

    def assemble() -> list[UsageRow]:
        for row in found:
            statuses, response, first_token, *numbers = row[end:]
            numbers = [int(number) for number in numbers] if sums.is_exact else numbers
            rows.add(row[1:end], statuses, numbers, response, first_token, row[0])
        return rows.rows()

    return assemble() if len(found) <= _FEW else await asyncio.to_thread(assemble)


async def _found(connection: Connection, plan: RollupPlan, sums: _Sums) -> list[Any]:
    """Return the rows to add up for a query: the sign, the fields of the grouping, and the columns of `sums`."""
    is_short = all(last - first <= _SHORT for first, last in plan.coverage.gaps)
    async with connection.snapshot(by_index=is_short):
        [state] = await connection.fetch(_STATE_OF_USERS if plan.by_user else _STATE_OF_TIMES)
        watermark = None if state["watermark"] is None else state["watermark"].replace(tzinfo=UTC)
        if watermark is not None:
            await _refuse_if_cut(connection, plan, watermark)
        found: list[Any] = []
        if plan.parts and state["first"] is not None:
            found += await _of_rollups(connection, plan, sums, state["first"], state["last"])
        found += await _of_gaps(connection, plan, sums, watermark or EARLIEST, is_short=is_short)
        if state["lots"] and plan.parts:
            found += await _of_tail(connection, plan, sums, state["lots"])
    return found


async def _refuse_if_cut(connection: Connection, plan: RollupPlan, watermark: datetime) -> None:
    ranges = plan.purged(watermark)
    if not ranges:
        return
    parameters = Parameters()
    start = "day" if plan.by_user else "start"
    firsts, lasts = (parameters.add(list(column), "bigint[]") for column in zip(*ranges, strict=True))
    wanted = [f"kept.{start} >= cut.first", f"kept.{start} < cut.last", *_filters(plan, parameters)]
    if not plan.by_user:
        wanted.append(f"kept.grain = {plan.grains[-1]}")
    source = f"unnest({firsts}, {lasts}) AS cut (first, last) JOIN {USERS if plan.by_user else TIMES} AS kept"
    statement = f"SELECT max(kept.{start}) FROM {source} ON {' AND '.join(wanted)}"
    plan.refuse_if_cut(await connection.fetch_value(statement, *parameters.values), watermark)


def _filters(plan: RollupPlan, parameters: Parameters) -> list[str]:
    """Return the filters of a query as conditions on rollups. A single value is compared with `=`, so that the index is
    used for the next column of the key too."""
    wanted = []
    for name, accepted in plan.filters.items():
        if len(accepted) == 1:
            wanted.append(f"kept.{name} = {parameters.add(accepted[0], 'text')}")
        else:
            wanted.append(f"kept.{name} = ANY ({parameters.add(accepted, 'text[]')})")
    return wanted


async def _of_rollups(connection: Connection, plan: RollupPlan, sums: _Sums, first: int, last: int) -> list[Any]:
    """Return the sums of the rollups in the parts, from the day of the cell `first` to that of the cell `last`.

    Each cell is looked up individually, so that the index is used for origin and user too. That depends on no
    statistics and reads no rows of other users. Only if there are very many cells, all rows of the range are read.
    """
    day = plan.grains[0]
    parts = list(_within(plan.parts, first // day * day, last // day * day + day))
    count = sum((part.end - part.start) // part.grain for part in parts)
    start = "day" if plan.by_user else "start"
    if count <= rollups.MAX_CELLS:
        parts = [
            Part(part.grain, cell, cell + part.grain, part.period, part.sign)
            for part in parts
            for cell in range(part.start, part.end, part.grain)
        ]
        wanted = [f"kept.{start} = parts.first"]
    else:
        wanted = [f"kept.{start} >= parts.first", f"kept.{start} < parts.last"]
    if not parts:
        return []
    parameters = Parameters()
    columns = ([getattr(part, name) for part in parts] for name in ("grain", "start", "end", "period", "sign"))
    arrays = ", ".join(parameters.add(column, "bigint[]") for column in columns)
    if not plan.by_user:
        wanted.append("kept.grain = parts.grain")
    wanted += _filters(plan, parameters)
    keys = ["sign", *("period" if name == "period" else f"kept.{name}" for name in plan.query.group_by)]
    statement = " ".join(
        (
            "SELECT",
            ", ".join((*keys, sums.of_rows)),
            f"FROM unnest({arrays}) AS parts (grain, first, last, period, sign)",
            f"JOIN {USERS if plan.by_user else TIMES} AS kept ON",
            " AND ".join(wanted),
            "GROUP BY",
            ", ".join(str(number + 1) for number in range(len(keys))),
        )
    )
    return await connection.fetch(statement, *parameters.values)


def _within(parts: Sequence[Part], first: int, last: int) -> Iterator[Part]:
    """Yield the parts, limited to a range of whole days."""
    for part in parts:
        start, end = max(part.start, first), min(part.end, last)
        if start < end:
            yield Part(part.grain, start, end, part.period, part.sign)


async def _of_gaps(
    connection: Connection, plan: RollupPlan, sums: _Sums, not_purged: datetime, *, is_short: bool
) -> list[Any]:
    """Return the sums of the calls in the gaps, from the time `not_purged` on."""
    first_bound = micros(not_purged)
    gaps = [(max(first, first_bound), last) for first, last in plan.coverage.gaps if last > first_bound]
    if not gaps:
        return []
    parameters = Parameters()
    if len(gaps) == 1:
        first, last = (parameters.add(_instant(bound), "timestamptz") for bound in gaps[0])
        source, wanted = _CALLS, [f"called_at >= {first}", f"called_at < {last}"]
    else:
        firsts, lasts = (
            parameters.add([_instant(bound) for bound in column], "timestamptz[]") for column in zip(*gaps, strict=True)
        )
        gap = f"unnest({firsts}, {lasts}) AS gap (first, last)"
        source, wanted = f"{_CALLS} JOIN {gap} ON called_at >= first AND called_at < last", []
    is_of_user = {"origin", "id_at_origin"} <= plan.query.filters.keys()
    return await _scan(connection, plan, sums, parameters, source, wanted, by_origin=is_of_user or not is_short)


async def _of_tail(connection: Connection, plan: RollupPlan, sums: _Sums, lots: list[int]) -> list[Any]:
    """Return the sums of the calls that are not folded, except those in the gaps. Only the condition on the lot can use
    an index: PostgreSQL has no statistics that say how few these calls are."""
    parameters = Parameters()
    edges = plan.query.edges
    bounds = [edges[0], *(_instant(bound) for bound in plan.coverage.bounds), edges[-1]]
    wanted = [
        f"lot = ANY ({parameters.add(lots, 'bigint[]')})",
        f"width_bucket(called_at, {parameters.add(bounds, 'timestamptz[]')}) % 2 = 1",
    ]
    return await _scan(connection, plan, sums, parameters, _CALLS, wanted, by_origin=False)


async def _scan(
    connection: Connection,
    plan: RollupPlan,
    sums: _Sums,
    parameters: Parameters,
    source: str,
    wanted: Sequence[str],
    *,
    by_origin: bool,
) -> list[Any]:
    """Return sums of calls, grouped as the query says and by status. With `by_origin`, PostgreSQL may use the index by
    user for the origin."""
    query = plan.query
    keys = ["1", *(_key(field, query, parameters) for field in query.group_by)]
    where = [*wanted, *conditions(query.filters, parameters, by_origin=by_origin)]
    statement = " ".join(
        (
            "SELECT",
            ", ".join((*keys, sums.of_calls)),
            "FROM",
            source,
            *(("WHERE", " AND ".join(where)) if where else ()),
            "GROUP BY",
            ", ".join((*(str(number + 1) for number in range(1, len(keys))), "status")),
        )
    )
    return await connection.fetch(statement, *parameters.values)


def _key(field: str, query: UsageQuery, parameters: Parameters) -> str:
    if field != "period":
        return expression(field, parameters)
    return f"width_bucket(called_at, {parameters.add(list(query.edges), 'timestamptz[]')}) - 1"


def _instant(bound: int) -> datetime:
    """Return the UTC time of microseconds since 1970, at most LATEST: the last cell ends after all possible times."""
    return EPOCH + timedelta(microseconds=bound) if bound < micros(LATEST) else LATEST
