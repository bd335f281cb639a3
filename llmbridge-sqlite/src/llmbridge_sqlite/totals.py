"""Totals: calls folded into sheets some time after they were stored, and what is not folded yet.

A call's `number` rises in the order of commits, so all up to `folded` are in the sheets and the rest, the tail, is in
none. Every reader adds the tail in the same snapshot, so answers are exact whenever it is folded, and a crash leaves
nothing but a longer tail.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from llmbridge.storage import sheets
from llmbridge.storage.sheets import NUMBERS, LineKey, Sheet, Sheets, TimeKey, UserKey

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
_OF_A_CALL = {**_COUNTED, **_SUMMED}

#: A call as `sheets.fold` takes it.
ROW = ", ".join(
    (
        "origin, id_at_origin, called_at, provider, model_name, status, response_bucket, first_token_bucket",
        *(_OF_A_CALL[name] for name in NUMBERS),
    )
)
#: The sums of calls, read by `numbers`, and their histograms. SQLite's SUM raises beyond 64 bits, so what may
#: pass them is summed in upper and lower 32 bits.
AGGREGATES = ", ".join(
    (
        *(
            f"SUM({_COUNTED[name]}), 0"
            if name in _COUNTED
            else f"SUM(({_SUMMED[name]}) >> 32), SUM(({_SUMMED[name]}) & 4294967295)"
            for name in NUMBERS
        ),
        *(f"group_concat({bucket})" for bucket in ("response_bucket", "first_token_bucket")),
    )
)
_IS_WHOLE = [name in _COUNTED for name in NUMBERS]

_READ_STATE = "SELECT folded, watermark FROM llmbridge_state"
_LAST = "SELECT coalesce(MAX(number), 0) FROM llmbridge_calls"
_TAIL = " ".join(("SELECT number,", ROW, "FROM llmbridge_calls WHERE number > ? ORDER BY number LIMIT ?"))
_READ_USER = "SELECT sums, histograms FROM llmbridge_user_totals WHERE (origin, id_at_origin, start) = (?, ?, ?)"
_READ_TIME = "SELECT sums, histograms FROM llmbridge_totals WHERE (grain, start, origin) = (?, ?, ?)"
_WRITE_USER = """
INSERT INTO llmbridge_user_totals (origin, id_at_origin, start, sums, histograms) VALUES (?, ?, ?, ?, ?)
ON CONFLICT DO UPDATE SET sums = excluded.sums, histograms = excluded.histograms
"""
_WRITE_TIME = """
INSERT INTO llmbridge_totals (grain, start, origin, sums, histograms) VALUES (?, ?, ?, ?, ?)
ON CONFLICT DO UPDATE SET sums = excluded.sums, histograms = excluded.histograms
"""
_FOLD_AT_ONCE = 20_000


@dataclass(frozen=True, slots=True)
class State:
    """`folded`: the last number in the totals. `watermark`: microseconds; calls before it were purged (None: none)."""

    folded: int
    watermark: int | None


def state(connection: sqlite3.Connection) -> State:
    """How far the totals are."""
    return State(*connection.execute(_READ_STATE).fetchone())


def last(connection: sqlite3.Connection) -> int:
    """The greatest number of a call; those beyond `folded` are in no total yet."""
    (number,) = connection.execute(_LAST).fetchone()
    return int(number)


def fold(connection: sqlite3.Connection, least: int = 1) -> bool:
    """Fold calls of the tail, the oldest first, if there are `least`; whether there may be more."""
    folded = state(connection).folded
    if last(connection) - folded < least:
        return False
    rows = connection.execute(_TAIL, (folded, _FOLD_AT_ONCE)).fetchall()
    if rows:
        add(connection, sheets.fold([row[1:] for row in rows]))
        connection.execute("UPDATE llmbridge_state SET folded = ?", (rows[-1][0],))
    return len(rows) == _FOLD_AT_ONCE


def fold_all(connection: sqlite3.Connection) -> None:
    """Fold the whole tail in this transaction."""
    while fold(connection):
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


def _extended(kept: tuple[str, str] | None, sheet: Mapping[LineKey, sheets.Line]) -> tuple[str, str]:
    return sheets.pack(sheet) if kept is None else sheets.extend(kept, sheet)


def numbers(aggregates: Sequence[int | None]) -> list[int]:
    """The numbers of a row of AGGREGATES, in the order of `sheets.NUMBERS`."""
    halves = zip(aggregates[::2], aggregates[1::2], strict=True)
    return [
        (high or 0) if whole else ((high or 0) << 32) + (low or 0)
        for whole, (high, low) in zip(_IS_WHOLE, halves, strict=True)
    ]
