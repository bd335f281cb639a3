"""What is changed in calls that are stored: their costs, and the name of a user who is forgotten."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from llmbridge.storage import CostChange, to_units
from llmbridge.storage.sheets import Sheets, cost_change

from . import totals
from .codec import to_micros

_READ = """
SELECT number, origin, id_at_origin, called_at, provider, model_name, status, total_tokens, estimated_cost, cost_reason,
    cost_source, price_version
FROM llmbridge_calls WHERE id = ?
"""
_REPRICE = """
UPDATE llmbridge_calls SET previous_cost = estimated_cost, previous_cost_reason = cost_reason, estimated_cost = ?,
    cost_source = ?, cost_reason = ?, price_version = ?, repriced_at = ?
WHERE number = ?
"""
_ERASE = "UPDATE llmbridge_calls SET id_at_origin = NULL WHERE (origin, id_at_origin) = (?, ?)"
_NAMED = "SELECT start FROM llmbridge_user_totals WHERE (origin, id_at_origin) = (?, ?)"
_FORGET = "DELETE FROM llmbridge_user_totals WHERE (origin, id_at_origin) = (?, ?)"


def reprice(connection: sqlite3.Connection, changes: Sequence[CostChange]) -> int:
    """Give calls new costs. Totals follow by the difference, where they have the call already."""
    folded = totals.state(connection).folded
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
    totals.add(connection, differences)
    return repriced


def erase(connection: sqlite3.Connection, origin: str, user: str) -> int:
    """Take a user's name from calls and totals; how many rows that changed."""
    changed = connection.execute(_ERASE, (origin, user)).rowcount
    days = [start for (start,) in connection.execute(_NAMED, (origin, user)).fetchall()]
    nameless = Sheets()
    for start in days:
        nameless.users[origin, "", start] = totals.read(connection, (origin, user, start))
    connection.execute(_FORGET, (origin, user))
    totals.add(connection, nameless)
    return changed + len(days)
