"""Totals counted anew, day by day, from the calls that are stored."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

from llmbridge.storage import EARLIEST, TotalsReport
from llmbridge.storage.sheets import Sheets, compare, examine
from llmbridge.storage.toolkit.time_cells import GRAINS, SECOND, micros

from . import rollups

DAY = 86_400
#: The first second that has calls.
FIRST = micros(EARLIEST) // SECOND

_NEXT_CALL = "SELECT MIN(called_at) FROM llmbridge_calls WHERE called_at >= ?"
_NEXT_TOTAL = """
SELECT MIN(start) FROM (
    SELECT MIN(start) AS start FROM llmbridge_user_totals WHERE start >= :from
    UNION ALL
    SELECT (SELECT MIN(start) FROM llmbridge_totals WHERE grain = value AND start >= :from) FROM json_each(:grains)
)
"""
_CALLS = "llmbridge_calls WHERE called_at >= ? AND called_at < ? AND number <= ?"
_USERS = "SELECT origin, id_at_origin, start, sums, failures, histograms FROM llmbridge_user_totals WHERE start = ?"
_TIMES = """
SELECT grain, start, origin, sums, failures, histograms FROM llmbridge_totals
WHERE grain = ? AND start >= ? AND start < ?
"""


def next_day(connection: sqlite3.Connection, start: int) -> int | None:
    """The first day (seconds) from `start` on that has calls or totals and was not purged; None: there is none."""
    watermark = rollups.state(connection).watermark
    start = max(start, watermark // SECOND) if watermark is not None else start
    (call,) = connection.execute(_NEXT_CALL, (start * SECOND,)).fetchone()
    (total,) = connection.execute(_NEXT_TOTAL, {"from": start, "grains": str(list(GRAINS))}).fetchone()
    found = [second for second in (None if call is None else call // SECOND, total) if second is not None]
    return min(found) // DAY * DAY if found else None


def check_day(connection: sqlite3.Connection, day: int, repair: bool) -> TotalsReport:
    """Count the totals of one day anew, and put right what is wrong."""
    bounds = (day * SECOND, (day + DAY) * SECOND, rollups.state(connection).folded)
    expected, kept = rollups.summed(connection, _CALLS, bounds), _kept(connection, day)
    checked, wrong = compare(kept, expected)
    if repair:
        for user in wrong.users:
            rollups.put_user(connection, user, expected.users[user])
        for time in wrong.times:
            rollups.put_time(connection, time, expected.times[time])
    bad = wrong.lines()
    return TotalsReport(checked, bad, bad if repair else 0)


def _kept(connection: sqlite3.Connection, day: int) -> Sheets:
    kept = Sheets()
    for origin, user, start, *texts in connection.execute(_USERS, (day,)):
        kept.users[origin, user, start] = examine(*texts)
    for row in _times(connection, day):
        kept.times[row[:3]] = examine(*row[3:])
    return kept


def _times(connection: sqlite3.Connection, day: int) -> Iterator[tuple[int, int, str, str, str, str]]:
    for grain in GRAINS:
        yield from connection.execute(_TIMES, (grain, day, day + DAY))
