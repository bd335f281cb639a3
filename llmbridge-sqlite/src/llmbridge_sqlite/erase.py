"""Removal of a user's name from calls and rollups. The sums stay."""

from __future__ import annotations

import json
import sqlite3

from llmbridge.storage.toolkit.time_cells import SECOND

from . import rollups
from .rollup_statements import ADD_NAMED_DAYS, DAY, USERS, cell_of_call

#: How many calls, and how many days of rollups, one transaction changes. Others can write between two transactions.
_CHUNK, _DAYS = 2_000, 500

_NAMED_CALLS = "SELECT number, called_at FROM llmbridge_calls WHERE (origin, id_at_origin) = (?, ?) LIMIT ?"
_ERASE = "UPDATE llmbridge_calls SET id_at_origin = NULL WHERE number IN (SELECT value FROM json_each(?))"
#: Rows that have no calls of the user any more.
_DELETE_EMPTY = f"""
DELETE FROM {USERS}
WHERE (origin, id_at_origin, calls) = (:origin, :user, 0) AND day IN (
    SELECT {cell_of_call(DAY)} FROM llmbridge_calls WHERE number IN (SELECT value FROM json_each(:numbers))
)
"""  # noqa: S608  names of ours
#: The first days of a user. Each existing day is looked up, because no index begins with the user.
_NAMED_DAYS = f"""
WITH RECURSIVE days (day) AS (
    SELECT MIN(day) FROM {USERS}
    UNION ALL
    SELECT (SELECT MIN(day) FROM {USERS} WHERE day > days.day) FROM days WHERE day IS NOT NULL
)
SELECT kept.day, COUNT(*) FROM days CROSS JOIN {USERS} AS kept
WHERE kept.day = days.day AND (kept.origin, kept.id_at_origin) = (?, ?) GROUP BY 1 ORDER BY 1 LIMIT ?
"""  # noqa: S608  names of ours
_FORGET = f"""
DELETE FROM {USERS}
WHERE day IN (SELECT value FROM json_each(:days)) AND (origin, id_at_origin) = (:origin, :user)
"""  # noqa: S608  names of ours


def erase(connection: sqlite3.Connection, origin: str, user: str) -> tuple[int, bool]:
    """Remove a user's name from some calls; if no call has it any more, from the rollups of some days. Return how many
    calls and rows of purged days were changed, and whether there may be more.

    The sums of these calls are moved to rollups without a user in the same transaction, so that results are exact after
    each one.
    """
    first = rollups.state(connection).first
    found = connection.execute(_NAMED_CALLS, (origin, user, _CHUNK)).fetchall()
    kept = [number for number, called_at in found if called_at >= first]
    rollups.change_users(connection, "-", kept)
    connection.execute(_DELETE_EMPTY, {"origin": origin, "user": user, "numbers": json.dumps(kept)})
    connection.execute(_ERASE, (json.dumps([number for number, _ in found]),))
    rollups.change_users(connection, "+", kept)
    if len(found) == _CHUNK:
        return len(kept), True
    rows, may_go_on = _erase_days(connection, origin, user, first)
    return len(kept) + rows, may_go_on


def _erase_days(connection: sqlite3.Connection, origin: str, user: str, first: int) -> tuple[int, bool]:
    """Remove a user's name from the rollups of some days. Return how many of these rows belong to purged days (before
    the microsecond `first`), and whether there may be more."""
    found = connection.execute(_NAMED_DAYS, (origin, user, _DAYS)).fetchall()
    days = {"origin": origin, "user": user, "days": json.dumps([day for day, _ in found])}
    connection.execute(ADD_NAMED_DAYS, days)
    connection.execute(_FORGET, days)
    return sum(rows for day, rows in found if day * SECOND < first), len(found) == _DAYS
