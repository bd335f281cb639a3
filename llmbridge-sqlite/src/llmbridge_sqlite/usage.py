"""Sums of usage, from the totals, and from the calls themselves where no total tells."""

from __future__ import annotations

import json
import sqlite3
from bisect import bisect_right
from collections.abc import Sequence
from functools import partial
from typing import Any

from llmbridge.storage import EARLIEST, UsageQuery, UsageRow
from llmbridge.storage.answers import Plan
from llmbridge.storage.toolkit.time_cells import Uses

from .codec import from_micros, to_micros
from .filters import conditions, define_tag, expression
from .rollups import state, sums

_USER_SHEETS = "SELECT origin, id_at_origin, start, sums, failures, histograms FROM llmbridge_user_totals"
_TIME_SHEETS = "SELECT origin, '', start, sums, failures, histograms FROM llmbridge_totals"


def summarize(connection: sqlite3.Connection, query: UsageQuery) -> list[UsageRow]:
    """The rows of a query. Belongs into one read transaction, since it reads more than once."""
    plan = Plan(query)
    now = state(connection)
    if now.watermark is not None:
        purged_before = from_micros(now.watermark)
        cut = (
            (start, sums, failures)
            for found in plan.purged(purged_before)
            for _, _, start, sums, failures, _ in _sheets(connection, plan, plan.grains[-1], found)
        )
        plan.refuse_if_cut(cut, purged_before)
    for grain in plan.grains:
        uses = Uses([part for part in plan.coverage.parts if part.grain == grain])
        for found in uses.ranges():
            for origin, user, start, *texts in _sheets(connection, plan, grain, found):
                plan.add_sheet(origin, user, uses.of(start), *texts)
    scan = _Scan(connection, plan)
    for gap in plan.coverage.gaps:
        scan.gap(*gap, now.first)
    if plan.coverage.parts:
        scan.tail(now.folded)
    return plan.rows()


def _sheets(
    connection: sqlite3.Connection, plan: Plan, grain: int, starts: tuple[int, int]
) -> list[tuple[str, str, int, str, str, str]]:
    """Sheets that begin in a range and pass the filters by which they are kept."""
    parameters: dict[str, Any] = {"grain": grain, "first": starts[0], "last": starts[1]}
    wanted = (
        ["start >= :first", "start < :last"] if plan.by_user else ["grain = :grain", "start >= :first", "start < :last"]
    )
    for name, accepted in plan.accepted_keys().items():
        wanted.append(f"{name} IN (SELECT value FROM json_each(:{name}))")  # noqa: S608  a name of the plan
        parameters[name] = json.dumps(accepted)
    statement = " ".join((_USER_SHEETS if plan.by_user else _TIME_SHEETS, "WHERE", " AND ".join(wanted)))
    return connection.execute(statement, parameters).fetchall()


class _Scan:
    """Sums of calls themselves, grouped as a question wants them, and by status."""

    def __init__(self, connection: sqlite3.Connection, plan: Plan) -> None:
        self._connection = connection
        self._plan = plan
        query = plan.query
        self._parameters: dict[str, Any] = {}
        self._keys = [self._key(field, query) for field in query.group_by]
        self._filters = conditions(query.filters, self._parameters)
        define_tag(connection)

    def _key(self, field: str, query: UsageQuery) -> str:
        if field != "period":
            return expression(field, self._parameters, "group_tag")
        edges = [to_micros(edge) for edge in query.edges]
        self._connection.create_function("llmbridge_edges_passed", 1, partial(bisect_right, edges), deterministic=True)
        return "llmbridge_edges_passed(called_at) - 1"

    def gap(self, first: int, last: int, not_purged: int) -> None:
        """Sum the calls of a range from the first microsecond on that is not purged. One open below is nearly the whole
        table, which an index would only read in a slower order; `+` keeps SQLite from using one."""
        column = "+called_at" if first == to_micros(EARLIEST) else "called_at"
        wanted = [f"{column} >= :first", f"{column} < :last", *self._filters]
        self._add("llmbridge_calls", wanted, max(first, not_purged), last)

    def tail(self, folded: int) -> None:
        """Sum the calls of the question that are in no total, but those of its gaps, for which Python is asked last."""
        self._parameters["folded"] = folded
        wanted = ["number > :folded", "called_at >= :first", "called_at < :last", *self._filters]
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
        calls = " ".join((source, "WHERE", " AND ".join(wanted)))
        parameters = {**self._parameters, "first": first, "last": last}
        for row in sums(self._connection, [*self._keys, "status"], calls, parameters):
            status, response, first_token, *numbers = row[width:]
            self._plan.add_scan(row[:width], status, numbers, response, first_token)
