"""Rollups: rows with sums of calls. Calls are folded into them some time after they were stored.

The `number` of a call increases in the order of commits. All calls up to the number `folded` are in the rollups; the
later ones, the tail, are in none. Every query adds the tail in the same snapshot, so its result does not depend on when
calls are folded. After a crash the tail is only longer.

A fold sums a chunk of calls with GROUP BY and adds the sums to the rows that the calls belong to. It reads and writes
no other row, so its cost for each call does not depend on the names of the calls or on the number of rows.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from llmbridge.storage import EARLIEST
from llmbridge.storage.toolkit.rollups import USER_KEY, Rollup, read_histogram, subtract, write_histogram
from llmbridge.storage.toolkit.time_cells import GRAINS, micros

from . import rollup_statements as statements
from .rollup_statements import COUNTS, DOLLAR, LOW, TIMES, USERS, WIDE

_EARLIEST = micros(EARLIEST)

_READ_STATE = "SELECT folded, watermark FROM llmbridge_state"
_LAST = "SELECT coalesce(MAX(number), 0) FROM llmbridge_calls"
_SET_FOLDED = "UPDATE llmbridge_state SET folded = ?"
#: How many calls one transaction folds. Others can write between two transactions.
_FOLD_AT_ONCE = 5_000


@dataclass(frozen=True, slots=True)
class State:
    """The row of `llmbridge_state`. `folded`: the number of the last folded call. `watermark`: the microsecond before
    which calls are purged (None: none are)."""

    folded: int
    watermark: int | None

    @property
    def first(self) -> int:
        """The first microsecond that is not purged."""
        return _EARLIEST if self.watermark is None else self.watermark


def state(connection: sqlite3.Connection) -> State:
    """Return the state of the rollups."""
    return State(*connection.execute(_READ_STATE).fetchone())


def last(connection: sqlite3.Connection) -> int:
    """Return the number of the last call."""
    (number,) = connection.execute(_LAST).fetchone()
    return int(number)


def prepare(connection: sqlite3.Connection) -> None:
    """Define the SQL functions that statements on rollups use."""
    connection.create_function("llmbridge_shorten", 1, _shorten, deterministic=True)
    connection.create_function("llmbridge_subtract", 2, _subtract, deterministic=True)


def _shorten(histogram: str | None) -> str | None:
    return write_histogram(read_histogram(histogram))


def _subtract(histogram: str | None, taken: str | None) -> str | None:
    return write_histogram(subtract(read_histogram(histogram), read_histogram(taken)))


def fold(connection: sqlite3.Connection, least: int = 1) -> tuple[int, bool]:
    """Fold the oldest calls of the tail if it has at least `least`. Return how many, and whether there are more."""
    folded, end = state(connection).folded, last(connection)
    if end - folded < max(least, 1):
        return 0, False
    upto = min(end, folded + _FOLD_AT_ONCE)
    chunk = {"folded": folded, "upto": upto}
    statements.ADD_TO_USERS.run(connection, chunk)
    connection.execute(statements.MAKE_CELLS)
    statements.FILL_QUARTERS.run(connection, chunk)
    for finer, grain in pairwise(reversed(GRAINS)):
        connection.execute(statements.FILL_COARSER, {"grain": grain, "finer": finer})
    connection.execute(statements.ADD_TO_TIMES)
    connection.execute(statements.EMPTY_CELLS)
    connection.execute(_SET_FOLDED, (upto,))
    return upto - folded, upto < end


def fold_all(connection: sqlite3.Connection) -> None:
    """Fold the whole tail in this transaction."""
    while fold(connection)[1]:
        pass


def change_users(connection: sqlite3.Connection, sign: str, numbers: Sequence[int]) -> None:
    """Add calls to the rows by user, or subtract them with the sign '-'. Calls that are not folded are left out."""
    statements.CHANGE_USERS[sign].run(connection, _chosen(connection, numbers))


def change_costs(connection: sqlite3.Connection, sign: str, numbers: Sequence[int]) -> None:
    """Add the costs of calls to all their rows, or subtract them with the sign '-'. Calls that are not folded are left
    out."""
    chosen = _chosen(connection, numbers)
    statements.CHANGE_COSTS_OF_USERS[sign].run(connection, chosen)
    for grain in GRAINS:
        statements.CHANGE_COSTS_OF_TIMES[sign].run(connection, {**chosen, "grain": grain})


def _chosen(connection: sqlite3.Connection, numbers: Sequence[int]) -> dict[str, Any]:
    return {"numbers": json.dumps(numbers), "folded": state(connection).folded}


def count(connection: sqlite3.Connection, first: int, last: int) -> dict[str, dict[tuple[Any, ...], Rollup]]:
    """Return, by table, the rows that result from the folded calls of a range of microseconds."""
    stored = {"first": first, "last": last, "folded": state(connection).folded}
    times = [row for grain in GRAINS for row in statements.COUNT_TIMES.run(connection, {**stored, "grain": grain})]
    return {USERS: by_key(statements.COUNT_USERS.run(connection, stored)), TIMES: by_key(times)}


def by_key(rows: Iterable[Sequence[Any]]) -> dict[tuple[Any, ...], Rollup]:
    """Return decoded rows of a table by their keys."""
    return {rollup.key: rollup for rollup in map(decode, rows)}


def decode(row: Sequence[Any]) -> Rollup:
    """Return the rollup of a row with the columns of ROW."""
    width, before = len(USER_KEY), len(USER_KEY) + len(COUNTS)
    *columns, response, first_token = row
    dollars, rest = columns[before : before + 2]
    lows, highs = columns[before + 2 : -len(WIDE)], columns[-len(WIDE) :]
    wide = (low + (high << 32) for low, high in zip(lows, highs, strict=True))
    numbers = (*columns[width:before], dollars * DOLLAR + rest, *wide)
    return Rollup(tuple(columns[:width]), numbers, response, first_token)


def encode(rollup: Rollup) -> tuple[Any, ...]:
    """Return the row of a rollup, with the columns of ROW."""
    before = len(COUNTS)
    cost, wide = rollup.numbers[before], rollup.numbers[before + 1 :]
    lows, highs = ([number & LOW for number in wide], [number >> 32 for number in wide])
    return (
        *rollup.key,
        *rollup.numbers[:before],
        *divmod(cost, DOLLAR),
        *lows,
        *highs,
        rollup.response,
        rollup.first_token,
    )
