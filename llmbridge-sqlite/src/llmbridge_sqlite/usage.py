"""Usage queries: sums of rollups, and of calls where no whole cell covers the range or calls are not folded yet."""

from __future__ import annotations

import json
import sqlite3
from bisect import bisect_right
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from llmbridge.storage import EARLIEST, UsageQuery, UsageRow
from llmbridge.storage.toolkit.rollups import HISTOGRAMS, NUMBERS, RollupPlan, UsageRows
from llmbridge.storage.toolkit.time_cells import Part

from .codec import from_micros, to_micros
from .filters import conditions, define_tag, expression
from .rollup_statements import COUNTS, DOLLAR, LOW, OF_A_CALL, TIMES, USERS, WIDE
from .rollups import last, state

_MILLIONTH = 10**6
_HALVED = NUMBERS[len(COUNTS) :]

#: Sums of rows. The last column of the first is not 0 if a sum exceeds 32 bits; the second is in parts that do not
#: overflow.
_SUMS_OF_ROWS = ", ".join(
    (
        *(f"SUM({name})" for name in (*COUNTS, "cost_dollars", "cost_rest", *WIDE)),
        f"SUM({' + '.join(f'{name}_high' for name in WIDE)})",
    )
)
_PARTS_OF_ROWS = ", ".join(
    (
        *(f"SUM({name})" for name in (*COUNTS, "cost_dollars")),
        f"SUM(cost_rest / {_MILLIONTH}), SUM(cost_rest % {_MILLIONTH})",
        *(f"SUM({name})" for name in WIDE),
        *(f"SUM({name}_high)" for name in WIDE),
    )
)
_TEXTS_OF_ROWS = ", ".join(("group_concat(status || ':' || calls)", *(f"group_concat({name})" for name in HISTOGRAMS)))

#: Sums of calls: as whole numbers, for which SUM raises an error if they overflow, and in two parts.
_SUMS_OF_CALLS = ", ".join((*(f"SUM({OF_A_CALL[name]})" for name in NUMBERS), "0"))
_HALVES_OF_CALLS = ", ".join(
    (
        *(f"SUM({OF_A_CALL[name]})" for name in COUNTS),
        *(f"SUM({OF_A_CALL[name]} & {LOW})" for name in _HALVED),
        *(f"SUM({OF_A_CALL[name]} >> 32)" for name in _HALVED),
    )
)
_TEXTS_OF_CALLS = "status || ':' || COUNT(*), group_concat(response_bucket), group_concat(first_token_bucket)"
#: The number of text columns.
_TEXTS = 1 + len(HISTOGRAMS)

#: The cells that a query reads. Each existing cell is found from the one before it. The next columns of the key are the
#: origin and the user, so the rows of a user are found without reading rows of others.
_CELLS = """
WITH RECURSIVE parts (grain, first, last, period, sign) AS (
    SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]'), json_extract(value, '$[2]'),
        json_extract(value, '$[3]'), json_extract(value, '$[4]')
    FROM json_each(:parts)
),
cells (grain, cell, last, period, sign) AS (
    SELECT
        grain,
        (SELECT MIN({start}) FROM {table} AS kept WHERE {same_grain} {start} >= first AND {start} < last),
        last,
        period,
        sign
    FROM parts AS wanted
    UNION ALL
    SELECT
        grain,
        (SELECT MIN({start}) FROM {table} AS kept WHERE {same_grain} {start} > cell AND {start} < last),
        last,
        period,
        sign
    FROM cells AS wanted
    WHERE cell IS NOT NULL
)
"""
_ROWS = "SELECT {columns} FROM cells AS wanted CROSS JOIN {table} AS kept WHERE {same_grain} {start} = cell"
_OF_USERS = {"table": USERS, "start": "kept.day", "same_grain": ""}
_OF_TIMES = {"table": TIMES, "start": "kept.start", "same_grain": "kept.grain = wanted.grain AND"}


def summarize(connection: sqlite3.Connection, query: UsageQuery) -> list[UsageRow]:
    """Return the rows of a query. Call this in a read transaction, because it reads more than once."""
    plan, rows = RollupPlan(query), UsageRows(query)
    now = state(connection)
    if now.watermark is not None:
        _refuse_if_cut(connection, plan, now.watermark)
    if plan.parts:
        _add_rollups(connection, plan, rows)
    scan = _Scan(connection, plan, rows)
    for gap in plan.coverage.gaps:
        scan.gap(*gap, now.first)
    if plan.parts and last(connection) > now.folded:
        scan.tail(now.folded)
    return rows.rows()


def _refuse_if_cut(connection: sqlite3.Connection, plan: RollupPlan, watermark: int) -> None:
    purged_before = from_micros(watermark)
    cut = [Part(plan.grains[-1], first, end, 0, 1) for first, end in plan.purged(purged_before)]
    if cut:
        statement, parameters = _rows_of(plan, cut, "MAX(cell)")
        [(start,)] = connection.execute(statement, parameters)
        plan.refuse_if_cut(start, purged_before)


def _rows_of(plan: RollupPlan, parts: Sequence[Part], columns: str) -> tuple[str, dict[str, Any]]:
    """Return the SELECT of columns of the rollups in the parts that pass the filters, and its parameters."""
    table = _OF_USERS if plan.by_user else _OF_TIMES
    wanted = [" ".join((_CELLS.format(**table), _ROWS.format(columns=columns, **table)))]
    parameters: dict[str, Any] = {
        "parts": json.dumps([(part.grain, part.start, part.end, part.period, part.sign) for part in parts])
    }
    wanted += conditions(plan.filters, parameters, prefix="kept.")
    return " AND ".join(wanted), parameters


def _add_rollups(connection: sqlite3.Connection, plan: RollupPlan, rows: UsageRows) -> None:
    """Add the sums of the rollups that the query reads."""
    keys = [name if name == "period" else f"kept.{name}" for name in plan.query.group_by]

    def find(sums: str) -> list[tuple[Any, ...]]:
        columns = ", ".join((*keys, "sign", _TEXTS_OF_ROWS, sums))
        statement, parameters = _rows_of(plan, plan.parts, columns)
        return connection.execute(f"{statement} GROUP BY {', '.join((*keys, 'sign'))}", parameters).fetchall()

    width = len(keys)
    before = width + 1 + _TEXTS
    found, numbers = _exactly(find, _SUMS_OF_ROWS, _PARTS_OF_ROWS, _of_sums, _of_parts)
    for row in found:
        sign, statuses, response, first_token = row[width:before]
        rows.add(row[:width], statuses, numbers(row[before:]), response, first_token, sign)


#: Converts the columns of sums of a row to numbers.
_Numbers = Callable[[Sequence[int]], Sequence[int]]


def _exactly(
    find: Callable[[str], list[tuple[Any, ...]]], plain: str, exact: str, of_plain: _Numbers, of_exact: _Numbers
) -> tuple[list[tuple[Any, ...]], _Numbers]:
    """Return the rows of `find`, and the function that converts their sums to numbers. The plain sums are used, or, if
    they overflow, which is rare, the exact ones, which are slower."""
    try:
        found = find(plain)
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_ERROR:
            raise
    else:
        if not any(row[-1] for row in found):
            return found, of_plain
    return find(exact), of_exact


def _of_sums(sums: Sequence[int]) -> Sequence[int]:
    before = len(COUNTS)
    return (*sums[:before], sums[before] * DOLLAR + sums[before + 1], *sums[before + 2 : -1])


def _of_parts(sums: Sequence[int]) -> Sequence[int]:
    before, wide = len(COUNTS), len(WIDE)
    dollars, millionths, rest = sums[before : before + 3]
    lows, highs = sums[before + 3 : before + 3 + wide], sums[before + 3 + wide :]
    cost = dollars * DOLLAR + millionths * _MILLIONTH + rest
    return (*sums[:before], cost, *(low + (high << 32) for low, high in zip(lows, highs, strict=True)))


def _of_halves(sums: Sequence[int]) -> Sequence[int]:
    lows, highs = sums[len(COUNTS) : len(NUMBERS)], sums[len(NUMBERS) :]
    return (*sums[: len(COUNTS)], *(low + (high << 32) for low, high in zip(lows, highs, strict=True)))


class _Scan:
    """Sums of calls, grouped as the query says and by status."""

    def __init__(self, connection: sqlite3.Connection, plan: RollupPlan, rows: UsageRows) -> None:
        self._connection = connection
        self._plan = plan
        self._rows = rows
        self._parameters: dict[str, Any] = {}
        self._keys = [self._key(field, plan.query) for field in plan.query.group_by]
        define_tag(connection)

    def _key(self, field: str, query: UsageQuery) -> str:
        if field != "period":
            return expression(field, self._parameters, "group_tag")
        edges = [to_micros(edge) for edge in query.edges]
        self._connection.create_function("llmbridge_edges_passed", 1, partial(bisect_right, edges), deterministic=True)
        return "llmbridge_edges_passed(called_at) - 1"

    def gap(self, first: int, until: int, not_purged: int) -> None:
        """Sum the calls of a range, from the microsecond `not_purged` on.

        A range is usually short, so the index by time is best. SQLite would choose the index by user because of its
        first column, `origin`, and read all calls of the origin. `+` prevents this, unless the query filters by user
        too. A range without a start is nearly the whole table, and no index reads that faster.
        """
        filters = self._plan.query.filters
        is_of_user = {"origin", "id_at_origin"} <= filters.keys()
        column = "+called_at" if first == to_micros(EARLIEST) else "called_at"
        wanted = [
            f"{column} >= :first",
            f"{column} < :last",
            *conditions(filters, self._parameters, prefix="" if is_of_user else "+"),
        ]
        self._add("llmbridge_calls", wanted, max(first, not_purged), until)

    def tail(self, folded: int) -> None:
        """Sum the calls of the query that are not folded, except those in its gaps. The condition that calls Python is
        the last one, because it is the slowest."""
        self._parameters["folded"] = folded
        wanted = [
            "number > :folded",
            "called_at >= :first",
            "called_at < :last",
            *conditions(self._plan.query.filters, self._parameters),
        ]
        bounds = self._plan.coverage.bounds
        if bounds:
            self._connection.create_function(
                "llmbridge_bounds_passed", 1, partial(bisect_right, bounds), deterministic=True
            )
            wanted.append("llmbridge_bounds_passed(called_at) % 2 = 0")
        edges = self._plan.query.edges
        self._add("llmbridge_calls NOT INDEXED", wanted, to_micros(edges[0]), to_micros(edges[-1]))

    def _add(self, source: str, wanted: Sequence[str], first: int, last: int) -> None:
        width = len(self._keys)
        parameters = {**self._parameters, "first": first, "last": last}
        groups = ", ".join(str(number + 1) for number in range(width))

        def find(sums: str) -> list[tuple[Any, ...]]:
            columns = ", ".join((*self._keys, _TEXTS_OF_CALLS, sums))
            by = f"GROUP BY {groups}, status" if groups else "GROUP BY status"
            statement = " ".join(("SELECT", columns, "FROM", source, "WHERE", " AND ".join(wanted), by))
            return self._connection.execute(statement, parameters).fetchall()

        before = width + _TEXTS
        found, numbers = _exactly(find, _SUMS_OF_CALLS, _HALVES_OF_CALLS, lambda sums: sums[:-1], _of_halves)
        for row in found:
            statuses, response, first_token = row[width:before]
            self._rows.add(row[:width], statuses, numbers(row[before:]), response, first_token)
