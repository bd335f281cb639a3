"""Checking and repairing of rollups: they are computed again from the stored calls, day by day."""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager
from datetime import UTC

from llmbridge.storage import EARLIEST, TotalsReport
from llmbridge.storage.toolkit.rollups import differing
from llmbridge.storage.toolkit.time_cells import SECOND, micros

from . import rollups, schema
from .connection import Connection
from .rollups import TIMES, USERS

DAY = 86_400
#: The first second that can have calls.
FIRST = micros(EARLIEST) // SECOND

_NEXT_CALL = "SELECT min(called_at) FROM {{tables.llmbridge_calls}} WHERE called_at >= $1"
_NEXT_USER = f"SELECT min(day) FROM {USERS} WHERE day >= $1"
_NEXT_TIME = f"SELECT min(start) FROM {TIMES} WHERE start >= $1"
_OF_DAY = {
    USERS: rollups.selected(USERS, f"{USERS} WHERE day >= $1 AND day < $2"),
    TIMES: rollups.selected(TIMES, f"{TIMES} WHERE start >= $1 AND start < $2"),
}


async def next_day(connection: Connection, start: int) -> int | None:
    """Return the first day (in seconds) from `start` on that has calls or rollups and is not purged; None: there is
    none."""
    async with connection.snapshot():
        watermark = await rollups.watermark(connection)
        start = max(start, micros(watermark) // SECOND) if watermark is not None else start
        call = await connection.fetch_value(_NEXT_CALL, rollups.instant(start))
        found = [await connection.fetch_value(statement, start) for statement in (_NEXT_USER, _NEXT_TIME)]
    found.append(None if call is None else micros(call.replace(tzinfo=UTC)) // SECOND)
    return min((second // DAY * DAY for second in found if second is not None), default=None)


async def check_day(connection: Connection, day: int, repair: bool, where: str) -> TotalsReport:
    """Compute the rows of one day again, and with `repair` correct those that are wrong."""
    checked = wrong = 0
    one_view: AbstractAsyncContextManager[None] = connection.rollup_transaction() if repair else connection.snapshot()
    async with one_view:
        for table, statement in _OF_DAY.items():
            kept = rollups.by_key(await connection.fetch(statement, day, day + DAY))
            counted = await rollups.counted(connection, table, day, day + DAY)
            keys = await asyncio.to_thread(differing, kept, counted)
            checked += len({**kept, **counted})
            wrong += len(keys)
            if repair:
                await rollups.delete(connection, table, [key for key in keys if key not in counted])
                await rollups.put(connection, table, [counted[key] for key in keys if key in counted])
        if repair and wrong:
            await schema.check_writable(connection, where)
    return TotalsReport(checked, wrong, wrong if repair else 0)
