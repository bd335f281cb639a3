"""What is changed in calls that are stored: their costs, and the name of a user who is forgotten."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC

from llmbridge.storage import CostChange, to_units
from llmbridge.storage.sheets import Sheets, cost_change
from llmbridge.storage.toolkit.time_cells import SECOND, micros

from . import rollups, schema
from .codec import by_column
from .connection import Session

_READ = """
SELECT calls.id, origin, id_at_origin, called_at, provider, model_name, status, total_tokens, estimated_cost,
    cost_reason, cost_source, price_version, coalesce(folded, true) AS folded
FROM {{tables.llmbridge_calls}} AS calls LEFT JOIN {{tables.llmbridge_lots}} AS lots ON lots.number = calls.lot
WHERE calls.id = ANY ($1::uuid[])
    AND called_at >= coalesce((SELECT watermark FROM {{tables.llmbridge_state}}), '-infinity')
"""
_REPRICE = """
UPDATE {{tables.llmbridge_calls}} AS calls
SET previous_cost = estimated_cost, previous_cost_reason = calls.cost_reason, estimated_cost = change.cost,
    cost_source = change.cost_source, cost_reason = change.cost_reason, price_version = change.price_version,
    repriced_at = change.at
FROM unnest($1::uuid[], $2::bigint[], $3::text[], $4::text[], $5::text[], $6::timestamptz[])
    AS change (id, cost, cost_source, cost_reason, price_version, at)
WHERE calls.id = change.id
"""
#: Calls that one transaction takes the name from, and days: others write in between.
_CHUNK, _DAYS = 5_000, 500
_NAMED_CALLS = """
SELECT id, called_at >= coalesce((SELECT watermark FROM {{tables.llmbridge_state}}), '-infinity') AS is_kept
FROM {{tables.llmbridge_calls}} WHERE (origin, id_at_origin) = ($1, $2) LIMIT $3
"""
_FOLDED = " ".join(
    ("{{tables.llmbridge_calls}} WHERE id = ANY ($1::uuid[]) AND lot <> ALL (ARRAY(", rollups.OPEN, "))")
)
_ERASE = "UPDATE {{tables.llmbridge_calls}} SET id_at_origin = NULL WHERE id = ANY ($1::uuid[])"
_NAMED_DAYS = """
SELECT start FROM {{tables.llmbridge_user_totals}} WHERE (origin, id_at_origin) = ($1, $2) ORDER BY start LIMIT $3
"""
_FORGET = """
DELETE FROM {{tables.llmbridge_user_totals}} WHERE (origin, id_at_origin) = ($1, $2) AND start = ANY ($3::bigint[])
"""


async def reprice(session: Session, changes: Sequence[CostChange], where: str) -> int:
    """Give calls new costs. Totals follow by the difference, where they have the call already."""
    latest = {change.id: change for change in changes}
    async with session.turn():
        differences = Sheets()
        rows = []
        for row in await session.fetch(_READ, list(latest)):
            change = latest[row["id"]]
            units = None if change.cost is None else to_units(change.cost)
            after = units, change.cost_source, change.cost_reason, change.price_version
            if after == (row["estimated_cost"], row["cost_source"], row["cost_reason"], row["price_version"]):
                continue
            rows.append((change.id, *after, change.at))
            if row["folded"]:
                before = row["estimated_cost"], row["cost_reason"]
                line = cost_change(before, (units, change.cost_reason), measured=row["total_tokens"] is not None)
                key = row["provider"], row["model_name"], row["status"]
                at = micros(row["called_at"].replace(tzinfo=UTC))
                differences.add(row["origin"], row["id_at_origin"], at, key, line)
        repriced = await session.execute(_REPRICE, *by_column(rows, 6))
        await rollups.add(session, differences)
        await schema.check_writable(session, where)
    return repriced


async def erase(session: Session, origin: str, user: str, where: str) -> tuple[int, bool]:
    """Take a user's name from some of his calls, and once it stands on none of them, from totals of some days. How many
    calls and lines of purged days that changed, and whether there may be more.

    Sums that the totals have of these calls lose the name with them, so that answers are exact in between.
    """
    async with session.turn():
        found = await session.fetch(_NAMED_CALLS, origin, user, _CHUNK)
        kept = [row["id"] for row in found if row["is_kept"]]
        named = (await rollups.summed(session, _FOLDED, kept, users_only=True)).users
        moved = Sheets()
        for place, sheet in named.items():
            moved.users[place] = {key: line.negative() for key, line in sheet.items()}
            moved.users[origin, "", place[2]] = sheet
        await rollups.add(session, moved)
        await session.execute(_ERASE, [row["id"] for row in found])
        changed, may_go_on = len(kept), len(found) == _CHUNK
        if not may_go_on:
            lines, may_go_on = await _erase_days(session, origin, user)
            changed += lines
        await schema.check_writable(session, where)
    return changed, may_go_on


async def _erase_days(session: Session, origin: str, user: str) -> tuple[int, bool]:
    """Take a user's name from the totals of some days; how many of their lines are of purged days, and whether there
    may be more."""
    days = [row["start"] for row in await session.fetch(_NAMED_DAYS, origin, user, _DAYS)]
    if not days:
        return 0, False
    named = await rollups.read(session, [(origin, user, start) for start in days], [])
    nameless = Sheets()
    nameless.users.update({(origin, "", start): sheet for (_, _, start), sheet in named.users.items()})
    await session.execute(_FORGET, origin, user, days)
    await rollups.add(session, nameless)
    watermark = await rollups.watermark(session)
    purged = [] if watermark is None else [start for start in days if start * SECOND < micros(watermark)]
    return sum(len(named.users[origin, user, start]) for start in purged), len(days) == _DAYS
