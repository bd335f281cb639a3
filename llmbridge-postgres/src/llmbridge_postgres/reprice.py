"""Changing of the costs of stored calls."""

from __future__ import annotations

from collections.abc import Sequence

from llmbridge.storage import CostChange, to_units
from llmbridge.storage.toolkit.rollups import PRICED

from . import rollups, schema
from .codec import by_column
from .connection import Connection
from .rollups import TIMES, USERS


def _difference(name: str) -> str:
    """Return SQL for the change of a sum, over calls that have just got new costs."""
    before = rollups.of_a_call(name, "previous_cost", "previous_cost_reason")
    after = rollups.of_a_call(name)
    return f"sum(coalesce({after}, 0)::numeric - coalesce({before}, 0))"


_DIFFERENCES = {name: _difference(name) for name in PRICED}
#: One statement: it updates the calls whose costs differ, and adds the differences to the rollups of folded calls.
_REPRICE = f"""
WITH changed AS (
    UPDATE {{{{tables.llmbridge_calls}}}} AS calls
    SET previous_cost = estimated_cost, previous_cost_reason = calls.cost_reason, estimated_cost = change.cost,
        cost_source = change.cost_source, cost_reason = change.cost_reason, price_version = change.price_version,
        price_factor = change.price_factor, repriced_at = change.at
    FROM unnest($1::uuid[], $2::bigint[], $3::text[], $4::text[], $5::text[], $6::bigint[], $7::timestamptz[])
        AS change (id, cost, cost_source, cost_reason, price_version, price_factor, at)
    WHERE calls.id = change.id
        AND called_at >= coalesce((SELECT watermark FROM {{{{tables.llmbridge_state}}}}), '-infinity')
        AND (estimated_cost, calls.cost_source, calls.cost_reason, calls.price_version, calls.price_factor)
            IS DISTINCT FROM
            (change.cost, change.cost_source, change.cost_reason, change.price_version, change.price_factor)
    RETURNING calls.*
),
folded AS (SELECT * FROM changed WHERE {rollups.FOLDED}),
users AS ({rollups.add(USERS, rollups.users_of("folded", _DIFFERENCES, {}), PRICED, ())}),
times AS ({rollups.add(TIMES, rollups.times_of("folded", _DIFFERENCES, {}), PRICED, ())})
SELECT count(*) FROM changed
"""


async def reprice(connection: Connection, changes: Sequence[CostChange], where: str) -> int:
    """Give calls new costs, and return how many calls were changed."""
    latest = {change.id: change for change in changes}
    rows = [
        (
            change.id,
            None if change.cost is None else to_units(change.cost),
            change.cost_source,
            change.cost_reason,
            change.price_version,
            None if change.price_factor is None else to_units(change.price_factor),
            change.at,
        )
        for change in latest.values()
    ]
    async with connection.rollup_transaction():
        repriced: int = await connection.fetch_value(_REPRICE, *by_column(rows, 7))
        await schema.check_writable(connection, where)
    return repriced
