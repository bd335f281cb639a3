"""Purging: calls of old days are deleted, their rollups stay.

All calls before the watermark count as purged, even if they are not deleted yet: no query and no change of calls sees
them.
"""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

from llmbridge.storage import EARLIEST, LATEST, MAX_CLOCK_SKEW

from . import rollups, schema
from .connection import Connection

#: The position of a call in the order of time: its `called_at` and id.
Place = tuple[datetime, UUID]
#: The positions before and after all calls.
BEFORE_ALL: Place = (EARLIEST, UUID(int=0))
_BEHIND_ALL: Place = (LATEST, UUID(int=2**128 - 1))

#: How many calls one transaction deletes. Others can write between two transactions.
_CHUNK = 5_000

_MOVE_WATERMARK = "UPDATE {{tables.llmbridge_state}} SET watermark = $1"
_FUTURE_WATERMARK = """
SELECT watermark FROM {{tables.llmbridge_state}} WHERE watermark > clock_timestamp() + $1::interval
"""
#: Back to the end of the last day that has totals of purged calls.
_LOWER_WATERMARK = f"""
UPDATE {{{{tables.llmbridge_state}}}}
SET watermark = (
    SELECT to_timestamp(max(day)) + interval '1 day' FROM {rollups.USERS} WHERE day < extract(epoch FROM watermark)
)
"""
_MAY_DELETE = "DELETE FROM {{tables.llmbridge_calls}} WHERE false"
_PURGED = """
(called_at, id) > ($1::timestamptz, $2::uuid) AND called_at < (SELECT watermark FROM {{tables.llmbridge_state}})
"""
_NTH = " ".join(
    (
        "SELECT called_at, id FROM {{tables.llmbridge_calls}} WHERE",
        _PURGED,
        "ORDER BY called_at, id LIMIT 1 OFFSET $3",
    )
)
_DELETE = " ".join(
    (
        "WITH deleted AS ( DELETE FROM {{tables.llmbridge_calls}} WHERE",
        _PURGED,
        "AND (called_at, id) <= ($3::timestamptz, $4::uuid) RETURNING id ) SELECT count(*) FROM deleted",
    )
)


async def purge(connection: Connection, to: datetime, where: str) -> None:
    """Purge the calls before a midnight. After this, only their rollups count; `delete` removes the calls, now or after
    the next purge."""
    async with connection.rollup_transaction(lock_out_writers=True):
        await connection.execute(_MAY_DELETE)  # fails without the privilege to delete, so that nothing is purged
        await move_watermark(connection, to)
        await schema.check_writable(connection, where)


async def move_watermark(connection: Connection, to: datetime) -> None:
    """Move the watermark forward to a midnight. Call this in a `rollup_transaction` that locks out writers. It folds
    all lots and so closes them; then each writer must open a new lot, and reads the new watermark."""
    watermark = await rollups.watermark(connection)
    if to > (watermark or EARLIEST):
        await rollups.fold(connection, await rollups.open_lots(connection))
        await connection.execute(_MOVE_WATERMARK, to)


async def future_watermark(connection: Connection) -> datetime | None:
    """Return the watermark if it is ahead of the server's clock, as `check_totals` means it, else None."""
    ahead: datetime | None = await connection.fetch_value(_FUTURE_WATERMARK, MAX_CLOCK_SKEW)
    return ahead


async def lower_watermark(connection: Connection, where: str) -> None:
    """Move a watermark that is ahead of the clock back to the end of the last purged day that has rollups. All lots are
    folded and so closed, as each writer has the old watermark until it opens a new lot."""
    async with connection.rollup_transaction(lock_out_writers=True):
        if await future_watermark(connection) is not None:
            await rollups.fold(connection, await rollups.open_lots(connection))
            await connection.execute(_LOWER_WATERMARK)
        await schema.check_writable(connection, where)


async def delete(connection: Connection, after: Place, where: str) -> tuple[int, Place | None]:
    """Delete the oldest purged calls after the position `after`, before which there are none. Return how many, and the
    position of the last one (None: there are no more)."""
    async with connection.rollup_transaction():
        nth = await connection.fetch(_NTH, *after, _CHUNK - 1)
        last = (nth[0]["called_at"].replace(tzinfo=UTC), nth[0]["id"]) if nth else None
        deleted: int = await connection.fetch_value(_DELETE, *after, *(last or _BEHIND_ALL))
        await schema.check_writable(connection, where)
    return deleted, last
