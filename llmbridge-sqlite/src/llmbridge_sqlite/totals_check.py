"""Checking and repairing of rollups: they are computed again from the stored calls, day by day."""

from __future__ import annotations

import sqlite3

from llmbridge.storage import EARLIEST, TotalsReport
from llmbridge.storage.toolkit.rollups import differing
from llmbridge.storage.toolkit.time_cells import GRAINS, SECOND, micros

from . import rollups
from .rollup_statements import DAY, DELETE, PUT, ROW, TIMES, USERS

#: The first second that can have calls.
FIRST = micros(EARLIEST) // SECOND

_NEXT_CALL = "SELECT MIN(called_at) FROM llmbridge_calls WHERE called_at >= ?"
_NEXT_USER = f"SELECT MIN(day) FROM {USERS} WHERE day >= ?"  # noqa: S608  names of ours
_NEXT_TIME = f"SELECT MIN(start) FROM {TIMES} WHERE grain = ? AND start >= ?"  # noqa: S608  names of ours
_USERS = f"SELECT {ROW[USERS]} FROM {USERS} WHERE day = ?"  # noqa: S608  names of ours
_TIMES = f"SELECT {ROW[TIMES]} FROM {TIMES} WHERE grain = ? AND start >= ? AND start < ?"  # noqa: S608  names of ours


def next_day(connection: sqlite3.Connection, start: int) -> int | None:
    """Return the first day (in seconds) from `start` on that has calls or rollups and is not purged; None: there is
    none."""
    watermark = rollups.state(connection).watermark
    start = max(start, watermark // SECOND) if watermark is not None else start
    (call,) = connection.execute(_NEXT_CALL, (start * SECOND,)).fetchone()
    found = [None if call is None else call // SECOND, *connection.execute(_NEXT_USER, (start,)).fetchone()]
    for grain in GRAINS:
        found += connection.execute(_NEXT_TIME, (grain, start)).fetchone()
    seconds = [second for second in found if second is not None]
    return min(seconds) // DAY * DAY if seconds else None


def check_day(connection: sqlite3.Connection, day: int, repair: bool) -> TotalsReport:
    """Compute the rows of one day again, and with `repair` correct those that are wrong."""
    counted = rollups.count(connection, day * SECOND, (day + DAY) * SECOND)
    times = [row for grain in GRAINS for row in connection.execute(_TIMES, (grain, day, day + DAY))]
    kept = {USERS: rollups.by_key(connection.execute(_USERS, (day,))), TIMES: rollups.by_key(times)}
    checked = wrong = 0
    for table in (USERS, TIMES):
        checked += len({**kept[table], **counted[table]})
        keys = differing(kept[table], counted[table])
        wrong += len(keys)
        if repair:
            connection.executemany(DELETE[table], keys)
            right = [counted[table][key] for key in keys if key in counted[table]]
            connection.executemany(PUT[table], map(rollups.encode, right))
    return TotalsReport(checked, wrong, wrong if repair else 0)
