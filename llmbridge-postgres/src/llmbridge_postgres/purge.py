"""Purging: calls go, and their rollups stay.

Calls before the watermark are purged, whether or not they are deleted yet: no reader and no change of calls sees them.
"""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

from llmbridge.storage import EARLIEST, LATEST

from . import rollups, schema
from .connection import Connection

#: Where a call stands in the order of times: its `called_at` and id.
Place = tuple[datetime, UUID]
#: Before all calls, and behind them.
BEFORE_ALL: Place = (EARLIEST, UUID(int=0))
_BEHIND_ALL: Place = (LATEST, UUID(int=2**128 - 1))

#: Calls that one transaction deletes: others write in between.
_CHUNK = 5_000

_MOVE_WATERMARK = "UPDATE {{tables.llmbridge_state}} SET watermark = $1"
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
    """Purge the calls before a midnight: their rollups have them all, and from now on stand for them. The calls
    themselves count no more; `delete` takes them away, now or after the next purge."""
    async with connection.turn(shuts_out_writers=True):
        await connection.execute(_MAY_DELETE)  # without the right to delete nothing is purged
        await move_watermark(connection, to)
        await schema.check_writable(connection, where)


async def move_watermark(connection: Connection, to: datetime) -> None:
    """Move the watermark up to a midnight. Belongs into a turn that shuts out writers. All lots are folded and so
    closed, so a writer takes a new one and with it the new watermark."""
    watermark = await rollups.watermark(connection)
    if watermark is None or to > watermark:
        await rollups.fold(connection, await rollups.open_lots(connection))
        await connection.execute(_MOVE_WATERMARK, to)


async def delete(connection: Connection, after: Place, where: str) -> tuple[int, Place | None]:
    """Delete some of the calls that were purged, the oldest `after` a place, before which there is none; return how
    many, and the place of the last one (None: there are no more)."""
    async with connection.turn():
        nth = await connection.fetch(_NTH, *after, _CHUNK - 1)
        last = (nth[0]["called_at"].replace(tzinfo=UTC), nth[0]["id"]) if nth else None
        deleted: int = await connection.fetch_value(_DELETE, *after, *(last or _BEHIND_ALL))
        await schema.check_writable(connection, where)
    return deleted, last
