"""Calls that go while their totals stay, and the totals of purged days as other stores take them.

Calls before the watermark are purged, whether or not they are deleted yet: no reader and no change of calls sees them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from llmbridge.storage import EARLIEST, LATEST, TotalsPage, TotalsRow
from llmbridge.storage.sheets import Sheets, line_of, place_line, rows_of, unpack
from llmbridge.storage.toolkit.time_cells import GRAINS, SECOND, micros

from . import rollups, schema
from .connection import Session

#: Where a call stands in the order of times: its `called_at` and id.
Place = tuple[datetime, UUID]
#: Before all calls, and behind them.
BEFORE_ALL: Place = (EARLIEST, UUID(int=0))
_BEHIND_ALL: Place = (LATEST, UUID(int=2**128 - 1))

#: Calls that one transaction deletes: others write in between.
_CHUNK = 5_000
_PAGE = 100

#: Whoever records calls holds a lock on the lots until it has committed, and reads the watermark after it has it.
_KEEP_WRITERS_OUT = "LOCK TABLE {{tables.llmbridge_lots}} IN EXCLUSIVE MODE"
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
        "DELETE FROM {{tables.llmbridge_calls}} WHERE",
        _PURGED,
        "AND (called_at, id) <= ($3::timestamptz, $4::uuid)",
    )
)
_USER_PAGE = """
SELECT start, origin, id_at_origin, sums, failures, histograms FROM {{tables.llmbridge_user_totals}}
WHERE (start, origin, id_at_origin) > ($1::bigint, $2::text, $3::text) AND start < $4
ORDER BY start, origin, id_at_origin LIMIT $5
"""
_TIME_PAGE = """
SELECT start, origin, '', sums, failures, histograms FROM {{tables.llmbridge_totals}}
WHERE grain = $1 AND (start, origin) > ($2::bigint, $3::text) AND start < $4 ORDER BY start, origin LIMIT $5
"""


async def purge(session: Session, to: datetime, where: str) -> None:
    """Purge the calls before a midnight: their totals have them all, and from now on stand for them. The calls
    themselves count no more; `delete` takes them away, now or after the next purge."""
    async with session.turn():
        await session.execute(_MAY_DELETE)  # who lacks the right purges nothing
        await _move_watermark(session, to)
        await schema.check_writable(session, where)


async def _move_watermark(session: Session, to: datetime) -> None:
    watermark = await rollups.watermark(session)
    if watermark is None or to > watermark:
        await session.execute(_KEEP_WRITERS_OUT)
        await rollups.fold(session, await rollups.open_lots(session))
        await session.execute(_MOVE_WATERMARK, to)


async def delete(session: Session, after: Place, where: str) -> tuple[int, Place | None]:
    """Delete some of the calls that were purged, the oldest `after` a place, before which there is none; how many, and
    the place of the last one (None: there are no more)."""
    async with session.turn():
        nth = await session.fetch(_NTH, *after, _CHUNK - 1)
        last = (nth[0]["called_at"].replace(tzinfo=UTC), nth[0]["id"]) if nth else None
        deleted = await session.execute(_DELETE, *after, *(last or _BEHIND_ALL))
        await schema.check_writable(session, where)
    return deleted, last


async def read_totals(session: Session, cursor: str | None) -> TotalsPage:
    """A page of totals of purged days: sheets of users by day, then of quarters of an hour. The cursor is the key
    of the page's last sheet."""
    async with session.snapshot():
        watermark = await rollups.watermark(session)
        if watermark is None:
            return TotalsPage([], None, None)
        end = micros(watermark) // SECOND
        grain, *after = json.loads(cursor) if cursor else ("day", -(2**63), "", "")
        found: list[tuple[Any, ...]] = []
        if grain == "day":
            found = [("day", *row) for row in await session.fetch(_USER_PAGE, *after, end, _PAGE + 1)]
            after = [-(2**63), "", ""]
        if len(found) <= _PAGE:
            more = await session.fetch(_TIME_PAGE, GRAINS[-1], *after[:2], end, _PAGE + 1 - len(found))
            found += [("quarter", *row) for row in more]
    rows = [
        row
        for grain, start, origin, user, *texts in found[:_PAGE]
        for row in rows_of(grain, start, origin, user, unpack(*texts))
    ]
    return TotalsPage(rows, json.dumps(found[_PAGE - 1][:4]) if len(found) > _PAGE else None, watermark)


async def write_totals(session: Session, rows: Sequence[TotalsRow], watermark: datetime | None, where: str) -> None:
    """Replace totals by the difference to what stands there, which coarser sheets take over."""
    lines = {(place, key): line for place, key, line in map(line_of, rows)}
    async with session.turn():
        if watermark is not None:
            await _move_watermark(session, watermark)
        places = {place for place, _ in lines}
        users = [place for place in places if isinstance(place[0], str)]
        times = [place for place in places if isinstance(place[0], int)]
        kept = await rollups.read(session, users, times)
        standing: dict[Any, Any] = {**kept.users, **kept.times}
        differences = Sheets()
        for (place, key), line in lines.items():
            before = standing[place].get(key)
            if before is not None:
                line.add(before.negative())
            place_line(differences, place, key, line)
        await rollups.add(session, differences)
        await schema.check_writable(session, where)
