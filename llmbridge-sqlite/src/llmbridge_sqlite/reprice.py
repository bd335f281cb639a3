"""What is changed in calls that are stored: their costs, and the name of a user who is forgotten."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence

from llmbridge.storage import CostChange, sheets, to_units
from llmbridge.storage.sheets import Sheets, cost_change
from llmbridge.storage.toolkit.time_cells import SECOND

from . import rollups
from .codec import to_micros

_READ = """
SELECT number, origin, id_at_origin, called_at, provider, model_name, status, total_tokens, estimated_cost, cost_reason,
    cost_source, price_version
FROM llmbridge_calls
WHERE id = ? AND called_at >= (SELECT coalesce(watermark, -9223372036854775808) FROM llmbridge_state)
"""
_REPRICE = """
UPDATE llmbridge_calls SET previous_cost = estimated_cost, previous_cost_reason = cost_reason, estimated_cost = ?,
    cost_source = ?, cost_reason = ?, price_version = ?, repriced_at = ?
WHERE number = ?
"""
#: Calls that one transaction takes the name from, and days: others write in between.
_CHUNK, _DAYS = 2_000, 500
_NAMED_CALLS = "SELECT number, called_at FROM llmbridge_calls WHERE (origin, id_at_origin) = (?, ?) LIMIT ?"
_FOLDED = "llmbridge_calls WHERE number IN (SELECT value FROM json_each(?)) AND number <= ?"
_ERASE = "UPDATE llmbridge_calls SET id_at_origin = NULL WHERE number IN (SELECT value FROM json_each(?))"
_NAMED_DAYS = "SELECT start FROM llmbridge_user_totals WHERE (origin, id_at_origin) = (?, ?) ORDER BY start LIMIT ?"
_FORGET = "DELETE FROM llmbridge_user_totals WHERE (origin, id_at_origin, start) = (?, ?, ?)"


def reprice(connection: sqlite3.Connection, changes: Sequence[CostChange]) -> int:
    """Give calls new costs. Totals follow by the difference, where they have the call already."""
    folded = rollups.state(connection).folded
    differences, repriced = Sheets(), 0
    for change in {change.id: change for change in changes}.values():
        row = connection.execute(_READ, (change.id.bytes,)).fetchone()
        if row is None:
            continue
        number, origin, user, called_at, provider, model_name, status, tokens, cost, reason, source, version = row
        units = None if change.cost is None else to_units(change.cost)
        if (units, change.cost_source, change.cost_reason, change.price_version) == (cost, source, reason, version):
            continue
        connection.execute(
            _REPRICE,
            (units, change.cost_source, change.cost_reason, change.price_version, to_micros(change.at), number),
        )
        repriced += 1
        if number <= folded:
            line = cost_change((cost, reason), (units, change.cost_reason), measured=tokens is not None)
            differences.add(origin, user, called_at, (provider, model_name, status), line)
    rollups.add(connection, differences)
    return repriced


def erase(connection: sqlite3.Connection, origin: str, user: str) -> tuple[int, bool]:
    """Take a user's name from some of his calls, and once it stands on none of them, from totals of some days. How many
    calls and lines of purged days that changed, and whether there may be more.

    Sums that the totals have of these calls lose the name with them, so that answers are exact in between.
    """
    now = rollups.state(connection)
    found = connection.execute(_NAMED_CALLS, (origin, user, _CHUNK)).fetchall()
    kept = [number for number, called_at in found if called_at >= now.first]
    named = sheets.fold(rollups.sums(connection, rollups.OF_USERS, _FOLDED, (json.dumps(kept), now.folded)), ()).users
    moved = Sheets()
    for place, sheet in named.items():
        moved.users[place] = {key: line.negative() for key, line in sheet.items()}
        moved.users[origin, "", place[2]] = sheet
    rollups.add(connection, moved)
    connection.execute(_ERASE, (json.dumps([number for number, _ in found]),))
    if len(found) == _CHUNK:
        return len(kept), True
    lines, may_go_on = _erase_days(connection, origin, user, now.first)
    return len(kept) + lines, may_go_on


def _erase_days(connection: sqlite3.Connection, origin: str, user: str, first: int) -> tuple[int, bool]:
    """Take a user's name from the totals of some days; how many of their lines are of days before the `first`
    microsecond that is not purged, and whether there may be more."""
    days = [start for (start,) in connection.execute(_NAMED_DAYS, (origin, user, _DAYS)).fetchall()]
    nameless, lines = Sheets(), 0
    for start in days:
        sheet = rollups.read(connection, (origin, user, start))
        nameless.users[origin, "", start] = sheet
        lines += len(sheet) if start * SECOND < first else 0
        connection.execute(_FORGET, (origin, user, start))
    rollups.add(connection, nameless)
    return lines, len(days) == _DAYS
