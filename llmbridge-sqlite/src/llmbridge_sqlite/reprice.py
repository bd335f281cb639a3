"""Changing of the costs of stored calls."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from llmbridge.storage import CostChange, to_units

from . import rollups
from .codec import to_micros

_READ = """
SELECT number, estimated_cost, cost_source, cost_reason, price_version, price_factor FROM llmbridge_calls
WHERE id = ? AND called_at >= (SELECT coalesce(watermark, -9223372036854775808) FROM llmbridge_state)
"""
_REPRICE = """
UPDATE llmbridge_calls SET previous_cost = estimated_cost, previous_cost_reason = cost_reason, estimated_cost = ?,
    cost_source = ?, cost_reason = ?, price_version = ?, price_factor = ?, repriced_at = ?
WHERE number = ?
"""


def reprice(connection: sqlite3.Connection, changes: Sequence[CostChange]) -> int:
    """Give calls new costs, and return how many calls were changed. In the rollups of folded calls, the old costs are
    subtracted and the new ones added."""
    rows = []
    for change in {change.id: change for change in changes}.values():
        stored = connection.execute(_READ, (change.id.bytes,)).fetchone()
        if stored is None:
            continue
        units = None if change.cost is None else to_units(change.cost)
        number, *before = stored
        factor = None if change.price_factor is None else to_units(change.price_factor)
        after = [units, change.cost_source, change.cost_reason, change.price_version, factor]
        if before != after:
            rows.append((*after, to_micros(change.at), number))
    numbers = [row[-1] for row in rows]
    rollups.change_costs(connection, "-", numbers)
    connection.executemany(_REPRICE, rows)
    rollups.change_costs(connection, "+", numbers)
    return len(rows)
