"""Calls that go while their totals stay, and the totals of purged days as other stores take them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from llmbridge.storage import TotalsPage, TotalsRow
from llmbridge.storage.coverage import GRAINS, SECOND, micros
from llmbridge.storage.sheets import Sheets, line_of, place_line, rows_of, unpack

from . import schema, totals
from .session import Session

#: Calls that one transaction deletes, more only if one day has more: others write in between.
_CHUNK = 5_000
_PAGE = 100

#: Whoever records calls holds a lock on the lots until it has committed, and reads the watermark after it has it.
_KEEP_WRITERS_OUT = "LOCK TABLE {{tables.llmbridge_lots}} IN EXCLUSIVE MODE"
_NTH = "SELECT called_at FROM {{tables.llmbridge_calls}} WHERE called_at < $1 ORDER BY called_at LIMIT 1 OFFSET $2"
_DELETE = "DELETE FROM {{tables.llmbridge_calls}} WHERE called_at < $1"
_MOVE_WATERMARK = "UPDATE {{tables.llmbridge_state}} SET watermark = greatest(watermark, $1)"
_USER_PAGE = """
SELECT start, origin, id_at_origin, sums, histograms FROM {{tables.llmbridge_user_totals}}
WHERE (start, origin, id_at_origin) > ($1::bigint, $2::text, $3::text) AND start < $4
ORDER BY start, origin, id_at_origin LIMIT $5
"""
_TIME_PAGE = """
SELECT start, origin, '', sums, histograms FROM {{tables.llmbridge_totals}}
WHERE grain = $1 AND (start, origin) > ($2::bigint, $3::text) AND start < $4 ORDER BY start, origin LIMIT $5
"""


async def purge(session: Session, before: datetime, where: str) -> tuple[int, bool]:
    """Delete the oldest calls before a midnight, whole days of them; how many, and whether this was the last of it."""
    async with session.turn():
        watermark = await totals.watermark(session)
        if watermark is not None and before <= watermark:
            return 0, True
        await session.execute(_KEEP_WRITERS_OUT)
        nth = await session.fetch_value(_NTH, before, _CHUNK)
        end = before if nth is None else min(before, _midnight(nth) + timedelta(days=1))
        await totals.fold(session, await totals.open_lots(session))
        deleted = await session.execute(_DELETE, end)
        await session.execute(_MOVE_WATERMARK, end)
        await schema.check_writable(session, where)
    return deleted, end == before


def _midnight(at: datetime) -> datetime:
    return at.replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=UTC)


async def read_totals(session: Session, cursor: str | None) -> TotalsPage:
    """A page of totals of purged days: sheets of users by day, then of quarters of an hour. The cursor is the key
    of the page's last sheet."""
    async with session.snapshot():
        watermark = await totals.watermark(session)
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
        await session.execute(_KEEP_WRITERS_OUT)
        places = {place for place, _ in lines}
        users = [place for place in places if isinstance(place[0], str)]
        times = [place for place in places if isinstance(place[0], int)]
        kept = await totals.read(session, users, times)
        standing: dict[Any, Any] = {**kept.users, **kept.times}
        differences = Sheets()
        for (place, key), line in lines.items():
            before = standing[place].get(key)
            if before is not None:
                line.add(before.negative())
            place_line(differences, place, key, line)
        await totals.add(session, differences)
        if watermark is not None:
            await session.execute(_MOVE_WATERMARK, watermark)
        await schema.check_writable(session, where)
