"""Totals counted anew, day by day, from the calls that are stored."""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager
from datetime import UTC

from llmbridge.storage import EARLIEST, TotalsReport
from llmbridge.storage.sheets import Sheets, compare, examine
from llmbridge.storage.toolkit.time_cells import GRAINS, SECOND, micros

from . import rollups, schema
from .connection import Session

DAY = 86_400
#: The first second that has calls.
FIRST = micros(EARLIEST) // SECOND

_NEXT_CALL = "SELECT min(called_at) FROM {{tables.llmbridge_calls}} WHERE called_at >= $1"
_NEXT_TOTAL = """
SELECT min(start) FROM (
    SELECT min(start) AS start FROM {{tables.llmbridge_user_totals}} WHERE start >= $1
    UNION ALL
    SELECT (SELECT min(start) FROM {{tables.llmbridge_totals}} AS totals WHERE totals.grain = one.grain AND start >= $1)
    FROM unnest($2::bigint[]) AS one (grain)
) AS firsts
"""
_CALLS = " ".join(
    (
        "{{tables.llmbridge_calls}} WHERE called_at >= $1 AND called_at < $2 AND lot <> ALL (ARRAY(",
        rollups.OPEN,
        "))",
    )
)
_USERS = """
SELECT origin, id_at_origin, start, sums, failures, histograms
FROM {{tables.llmbridge_user_totals}} WHERE start = $1
"""
_TIMES = """
SELECT grain, start, origin, sums, failures, histograms FROM {{tables.llmbridge_totals}}
WHERE grain = ANY ($1::bigint[]) AND start >= $2 AND start < $3
"""


async def next_day(session: Session, start: int) -> int | None:
    """The first day (seconds) from `start` on that has calls or totals and was not purged; None: there is none."""
    async with session.snapshot():
        watermark = await rollups.watermark(session)
        start = max(start, micros(watermark) // SECOND) if watermark is not None else start
        call = await session.fetch_value(_NEXT_CALL, rollups.instant(start))
        total = await session.fetch_value(_NEXT_TOTAL, start, list(GRAINS))
    found = [None if call is None else micros(call.replace(tzinfo=UTC)) // SECOND, total]
    return min((second for second in found if second is not None), default=None)


async def check_day(session: Session, start: int, repair: bool, where: str) -> TotalsReport:
    """Count the totals of the day of `start` anew, and put right what is wrong."""
    day = start // DAY * DAY
    one_view: AbstractAsyncContextManager[None] = session.turn() if repair else session.snapshot()
    async with one_view:
        kept = Sheets()
        for origin, user, at, *texts in await session.fetch(_USERS, day):
            kept.users[origin, user, at] = examine(*texts)
        for grain, at, origin, *texts in await session.fetch(_TIMES, list(GRAINS), day, day + DAY):
            kept.times[grain, at, origin] = examine(*texts)
        expected = await rollups.summed(session, _CALLS, rollups.instant(day), rollups.instant(day + DAY))
        checked, wrong = await asyncio.to_thread(compare, kept, expected)
        bad = wrong.lines()
        if repair and bad:
            right = Sheets()
            right.users.update({place: expected.users[place] for place in wrong.users})
            right.times.update({place: expected.times[place] for place in wrong.times})
            await rollups.put(session, right)
            await schema.check_writable(session, where)
    return TotalsReport(checked, bad, bad if repair else 0)
