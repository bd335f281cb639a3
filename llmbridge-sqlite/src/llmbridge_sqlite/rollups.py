"""Totals: calls folded into sheets some time after they were stored, and what is not folded yet.

A call's `number` rises in the order of commits, so all up to `folded` are in the sheets and the rest, the tail, is in
none. Every reader adds the tail in the same snapshot, so answers are exact whenever it is folded, and a crash leaves
nothing but a longer tail.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llmbridge.storage import EARLIEST, sheets
from llmbridge.storage.sheets import NUMBERS, LineKey, Sheet, Sheets, TimeKey, UserKey
from llmbridge.storage.toolkit.time_cells import GRAINS, SECOND, USER_GRAINS, micros

#: What a call counts to a total, by name of `sheets.NUMBERS`. The first four are 0 or 1.
_COUNTED = {
    "calls": "1",
    "requests": "(attempt = 1)",
    "unmeasured_calls": "(total_tokens IS NULL AND cost_reason IS NOT 'not_billed')",
    "unpriced_calls": (
        "(estimated_cost IS NULL AND cost_reason IS NOT 'not_billed' AND cost_reason IS NOT 'synthetic')"
    ),
    "response_time_ms_count": "(status = 'success' AND response_time_ms IS NOT NULL)",
}
_SUMMED = {
    "cost": "coalesce(estimated_cost, 0)",
    "response_time_ms_sum": "CASE status WHEN 'success' THEN coalesce(response_time_ms, 0) ELSE 0 END",
    **{name: f"coalesce({name}, 0)" for name in NUMBERS if name.endswith("_tokens")},
}
_HISTOGRAMS = "group_concat(response_bucket), group_concat(first_token_bucket)"
#: The numbers of calls, where no sum passes 64 bits, beyond which SQLite's SUM raises, and in upper and lower 32 bits.
_PLAIN = ", ".join(f"SUM({_COUNTED.get(name) or _SUMMED[name]})" for name in NUMBERS)
_EXACT = ", ".join(
    f"SUM({_COUNTED[name]}), 0"
    if name in _COUNTED
    else f"SUM(({_SUMMED[name]}) >> 32), SUM(({_SUMMED[name]}) & 4294967295)"
    for name in NUMBERS
)
_IS_WHOLE = [name in _COUNTED for name in NUMBERS]

#: The start in seconds of a call's cell, whose length is in microseconds.
_START = "(called_at - (called_at % {cell} + {cell}) % {cell}) / 1000000"
#: What stands before the sums that `sheets.fold` takes.
_LINE = ("provider", "model_name", "status")
OF_USERS = ("origin", "coalesce(id_at_origin, '')", _START.format(cell=USER_GRAINS[-1] * SECOND), *_LINE)
_OF_TIMES = ("origin", _START.format(cell=GRAINS[-1] * SECOND), *_LINE)

_EARLIEST = micros(EARLIEST)

_READ_STATE = "SELECT folded, watermark FROM llmbridge_state"
_LAST = "SELECT coalesce(MAX(number), 0) FROM llmbridge_calls"
_TAIL = "llmbridge_calls NOT INDEXED WHERE number > ? AND number <= ?"
_READ_USER = """
SELECT sums, failures, histograms FROM llmbridge_user_totals WHERE (origin, id_at_origin, start) = (?, ?, ?)
"""
_READ_TIME = "SELECT sums, failures, histograms FROM llmbridge_totals WHERE (grain, start, origin) = (?, ?, ?)"
_WRITE_USER = """
INSERT INTO llmbridge_user_totals (origin, id_at_origin, start, sums, failures, histograms) VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT DO UPDATE
SET sums = excluded.sums, failures = excluded.failures, histograms = excluded.histograms
"""
_WRITE_TIME = """
INSERT INTO llmbridge_totals (grain, start, origin, sums, failures, histograms) VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT DO UPDATE
SET sums = excluded.sums, failures = excluded.failures, histograms = excluded.histograms
"""
#: How many calls one transaction folds: others write in between.
_FOLD_AT_ONCE = 5_000


@dataclass(frozen=True, slots=True)
class State:
    """`folded`: the last number in the totals. `watermark`: microseconds; calls before it were purged (None: none)."""

    folded: int
    watermark: int | None

    @property
    def first(self) -> int:
        """The first microsecond that is not purged."""
        return _EARLIEST if self.watermark is None else self.watermark


def state(connection: sqlite3.Connection) -> State:
    """How far the totals are."""
    return State(*connection.execute(_READ_STATE).fetchone())


def last(connection: sqlite3.Connection) -> int:
    """The greatest number of a call; those beyond `folded` are in no total yet."""
    (number,) = connection.execute(_LAST).fetchone()
    return int(number)


def fold(connection: sqlite3.Connection, least: int = 1) -> tuple[int, bool]:
    """Fold calls of the tail, the oldest first, if there are `least`; how many, and whether there may be more."""
    folded, end = state(connection).folded, last(connection)
    if end - folded < max(least, 1):
        return 0, False
    upto = min(end, folded + _FOLD_AT_ONCE)
    add(connection, summed(connection, _TAIL, (folded, upto)))
    connection.execute("UPDATE llmbridge_state SET folded = ?", (upto,))
    return upto - folded, upto < end


def summed(connection: sqlite3.Connection, calls: str, parameters: Sequence[int]) -> Sheets:
    """The sheets of `calls`, which is what stands behind FROM, summed by SQLite as far as it can."""
    users, quarters = (sums(connection, keys, calls, parameters) for keys in (OF_USERS, _OF_TIMES))
    return sheets.fold(users, quarters)


def sums(
    connection: sqlite3.Connection, keys: Sequence[str], calls: str, parameters: Sequence[Any] | Mapping[str, Any]
) -> list[tuple[Any, ...]]:
    """For each combination of `keys` among `calls`, which is what stands behind FROM: these, the two histograms as
    texts (None: nothing), and the numbers in the order of `sheets.NUMBERS`."""
    groups = ", ".join(str(number) for number in range(1, len(keys) + 1))

    def found(numbers: str) -> list[tuple[Any, ...]]:
        statement = " ".join(("SELECT", ", ".join((*keys, _HISTOGRAMS, numbers)), "FROM", calls, "GROUP BY", groups))
        return connection.execute(statement, parameters).fetchall()

    try:  # most are far from 64 bits, and much cheaper so
        return found(_PLAIN)
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_ERROR:
            raise
    width = len(keys) + 2
    return [(*row[:width], *_whole(row[width:])) for row in found(_EXACT)]


def fold_all(connection: sqlite3.Connection) -> None:
    """Fold the whole tail in this transaction."""
    while fold(connection)[1]:
        pass


def add(connection: sqlite3.Connection, more: Sheets) -> None:
    """Add sheets to those that are kept."""
    for user, sheet in more.users.items():
        connection.execute(_WRITE_USER, (*user, *_extended(connection.execute(_READ_USER, user).fetchone(), sheet)))
    for time, sheet in more.times.items():
        connection.execute(_WRITE_TIME, (*time, *_extended(connection.execute(_READ_TIME, time).fetchone(), sheet)))


def read(connection: sqlite3.Connection, key: UserKey | TimeKey) -> Sheet:
    """The sheet of a key, without lines if there is none."""
    kept = connection.execute(_READ_TIME if isinstance(key[0], int) else _READ_USER, key).fetchone()
    return {} if kept is None else sheets.unpack(*kept)


def put_user(connection: sqlite3.Connection, key: UserKey, sheet: Mapping[LineKey, sheets.Line]) -> None:
    """Keep this sheet of a user, and no other."""
    connection.execute(_WRITE_USER, (*key, *sheets.pack(sheet)))


def put_time(connection: sqlite3.Connection, key: TimeKey, sheet: Mapping[LineKey, sheets.Line]) -> None:
    """Keep this sheet of a time, and no other."""
    connection.execute(_WRITE_TIME, (*key, *sheets.pack(sheet)))


def _extended(kept: sheets.Texts | None, sheet: Mapping[LineKey, sheets.Line]) -> sheets.Texts:
    return sheets.pack(sheet) if kept is None else sheets.extend(kept, sheet)


def _whole(halves: Sequence[int]) -> list[int]:
    pairs = zip(halves[::2], halves[1::2], strict=True)
    return [high if whole else (high << 32) + low for whole, (high, low) in zip(_IS_WHOLE, pairs, strict=True)]
