"""Totals: calls folded into sheets some time after they were stored, and what is not folded yet.

A writer marks its calls with the number of its lot, and touches the lot in the same transaction. Who folds a lot closes
it first, which waits for that transaction and keeps others out; then all calls of the lot are there to be read, and no
more can come. So a call is either in a closed lot and in the sheets, or in an open one, the tail, and in none; every
reader adds the tail in the same snapshot. A process that dies leaves an open lot, which another one folds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from llmbridge.storage import LATEST, sheets
from llmbridge.storage.sheets import NUMBERS, Sheet, Sheets, TimeKey, UserKey
from llmbridge.storage.toolkit.time_cells import EPOCH, GRAINS, USER_GRAINS, micros

from . import schema
from .connection import Session

#: What a call counts to a total, by name of `sheets.NUMBERS`.
_OF_A_CALL = {
    "calls": "1",
    "requests": "(attempt = 1)::int",
    "unmeasured_calls": "(total_tokens IS NULL AND cost_reason IS DISTINCT FROM 'not_billed')::int",
    "unpriced_calls": (
        "(estimated_cost IS NULL AND (cost_reason IS NULL OR cost_reason NOT IN ('not_billed', 'synthetic')))::int"
    ),
    "cost": "coalesce(estimated_cost, 0)",
    "response_time_ms_count": "(status = 'success' AND response_time_ms IS NOT NULL)::int",
    "response_time_ms_sum": "CASE status WHEN 'success' THEN coalesce(response_time_ms, 0) ELSE 0 END",
    **{name: f"coalesce({name}, 0)" for name in NUMBERS if name.endswith("_tokens")},
}
_SUMS = ", ".join(f"sum({_OF_A_CALL[name]})" for name in NUMBERS)
_HISTOGRAMS = "string_agg(response_bucket::text, ','), string_agg(first_token_bucket::text, ',')"
#: The sums of calls, exact whatever their size, and their histograms.
AGGREGATES = ", ".join((_SUMS, _HISTOGRAMS))
#: The lots of the tail.
OPEN = "SELECT number FROM {{tables.llmbridge_lots}} WHERE NOT folded"

_SIZES = "SELECT number, calls FROM {{tables.llmbridge_lots}} WHERE NOT folded ORDER BY number"
_WATERMARK = "SELECT watermark FROM {{tables.llmbridge_state}}"
_OPEN_LOT = " ".join(
    (
        "INSERT INTO {{tables.llmbridge_lots}} (calls, touched, folded) SELECT 0, now(), false WHERE (",
        schema.WRITABLE_FROM,
        ") <= $1 RETURNING number",
    )
)
#: Lots of processes that are gone or idle, the oldest with about $2 calls.
_IDLE = """
SELECT number, calls, lots FROM (
    SELECT
        number,
        sum(calls) OVER () AS calls,
        count(*) OVER () AS lots,
        sum(calls) OVER (ORDER BY number) - calls AS before
    FROM {{tables.llmbridge_lots}}
    WHERE NOT folded AND number <> $1 AND touched < now() - interval '1 minute'
) AS idle
WHERE before < $2 ORDER BY number LIMIT 100
"""
#: How many calls or lots are worth a transaction.
_WORTH_CALLS, _WORTH_LOTS = 1_000, 50
#: Calls that one transaction folds, more only if one lot has more.
_FOLD_AT_ONCE = 20_000
_CLOSE_LOTS = """
UPDATE {{tables.llmbridge_lots}} SET folded = true WHERE number = ANY ($1::bigint[]) AND NOT folded RETURNING number
"""
_OF_LOTS = "{{tables.llmbridge_calls}} WHERE lot = ANY ($1::bigint[])"
#: The start in seconds of a call's cell. asyncpg writes the first instant of year 1 as -infinity.
_START = "extract(epoch FROM date_bin('{grain} s', greatest(called_at, '0001-01-01Z'), '0001-01-01Z'))::bigint"
#: Sums as `sheets.fold` takes them, but the numbers in one text: a numeric would come as a Decimal, at many times the
#: cost.
_OF_USERS, _OF_TIMES = (
    ", ".join(
        (key, _START.format(grain=grain), "provider, model_name, status", _HISTOGRAMS, f"concat_ws(',', {_SUMS})")
    )
    for key, grain in (("origin, coalesce(id_at_origin, '')", USER_GRAINS[-1]), ("origin", GRAINS[-1]))
)
_READ_USERS = """
SELECT origin, id_at_origin, start, sums, failures, histograms
FROM unnest($1::text[], $2::text[], $3::bigint[]) AS wanted (origin, id_at_origin, start)
JOIN {{tables.llmbridge_user_totals}} USING (origin, id_at_origin, start)
"""
_READ_TIMES = """
SELECT grain, start, origin, sums, failures, histograms
FROM unnest($1::bigint[], $2::bigint[], $3::text[]) AS wanted (grain, start, origin)
JOIN {{tables.llmbridge_totals}} USING (grain, start, origin)
"""
_WRITE_USERS = """
INSERT INTO {{tables.llmbridge_user_totals}} (origin, id_at_origin, start, sums, failures, histograms)
SELECT * FROM unnest($1::text[], $2::text[], $3::bigint[], $4::text[], $5::text[], $6::text[])
ON CONFLICT (origin, id_at_origin, start) DO UPDATE
SET sums = excluded.sums, failures = excluded.failures, histograms = excluded.histograms
"""
_WRITE_TIMES = """
INSERT INTO {{tables.llmbridge_totals}} (grain, start, origin, sums, failures, histograms)
SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::text[], $4::text[], $5::text[], $6::text[])
ON CONFLICT (grain, start, origin) DO UPDATE
SET sums = excluded.sums, failures = excluded.failures, histograms = excluded.histograms
"""


@dataclass(slots=True)
class Lot:
    """What a writer knows: its lot (None: it has none yet), about how many calls that has, the watermark that it counts
    on, and whether its connections take a batch only column by column."""

    number: int | None = None
    calls: int = 0
    watermark: datetime | None = None
    by_column: bool = False


async def watermark(session: Session) -> datetime | None:
    """The start of the oldest day that was not purged; None: none was."""
    found: datetime | None = await session.fetch_value(_WATERMARK)
    return None if found is None else found.replace(tzinfo=UTC)


async def open_lot(session: Session, lot: Lot) -> None:
    """Give a writer a new lot, and what it counts on anew."""
    lot.watermark = await watermark(session)
    lot.number, lot.calls = await session.fetch_value(_OPEN_LOT, schema.HEAD_NUMBER), 0


async def idle_lots(session: Session, own: int | None, calls: int) -> list[int]:
    """Lots of others with about so many `calls` that nobody folds any more, if they have become worth it."""
    found = await session.fetch(_IDLE, own or 0, calls)
    worth = bool(found) and (found[0]["calls"] >= _WORTH_CALLS or found[0]["lots"] >= _WORTH_LOTS)
    return [row["number"] for row in found] if worth else []


async def open_lots(session: Session) -> list[int]:
    """All lots of the tail."""
    return [row["number"] for row in await session.fetch(OPEN)]


async def lots_by_slices(session: Session) -> list[list[int]]:
    """All lots of the tail, in slices that one transaction each should fold."""
    slices: list[list[int]] = []
    calls = 0
    for row in await session.fetch(_SIZES):
        if not slices or calls + row["calls"] > _FOLD_AT_ONCE:
            slices.append([])
            calls = 0
        slices[-1].append(row["number"])
        calls += row["calls"]
    return slices


async def fold(session: Session, lots: Sequence[int]) -> None:
    """Fold lots into the totals. Belongs into a turn. Who has one of them open gets another."""
    closed = [row["number"] for row in await session.fetch(_CLOSE_LOTS, list(lots))]
    if closed:
        await add(session, await summed(session, _OF_LOTS, closed))


async def fold_lots(session: Session, lots: Sequence[int], where: str) -> None:
    """Fold lots in a turn of their own."""
    async with session.turn():
        await fold(session, lots)
        await schema.check_writable(session, where)


async def summed(session: Session, calls: str, *parameters: Any, users_only: bool = False) -> Sheets:
    """The sheets of `calls`, which is what stands behind FROM, summed by PostgreSQL and put together beside the event
    loop."""

    async def found(sums: str, keys: str) -> list[Any]:
        return await session.fetch(" ".join(("SELECT", sums, "FROM", calls, "GROUP BY", keys)), *parameters)

    users = await found(_OF_USERS, "1, 2, 3, 4, 5, 6")
    quarters = [] if users_only else await found(_OF_TIMES, "1, 2, 3, 4, 5")
    return await asyncio.to_thread(lambda: sheets.fold(map(_sums, users), map(_sums, quarters)))


def _sums(row: Sequence[Any]) -> tuple[Any, ...]:
    *sums, numbers = row
    return *sums, *map(int, numbers.split(","))


async def add(session: Session, more: Sheets) -> None:
    """Add sheets to those that are kept. Belongs into a turn."""
    for added, reading, writing in ((more.users, _READ_USERS, _WRITE_USERS), (more.times, _READ_TIMES, _WRITE_TIMES)):
        if added:
            kept = {tuple(row[:3]): row[3:] for row in await _kept(session, reading, added)}
            await session.execute(writing, *_columns(added), *await asyncio.to_thread(_extended, kept, added))


async def read(session: Session, users: Iterable[UserKey], times: Iterable[TimeKey]) -> Sheets:
    """The sheets of these keys, without lines where there are none."""
    found = Sheets()
    found.users.update({key: {} for key in users})
    found.times.update({key: {} for key in times})
    for origin, user, start, *texts in await _kept(session, _READ_USERS, found.users):
        found.users[origin, user, start] = sheets.unpack(*texts)
    for grain, start, origin, *texts in await _kept(session, _READ_TIMES, found.times):
        found.times[grain, start, origin] = sheets.unpack(*texts)
    return found


async def put(session: Session, made: Sheets) -> None:
    """Keep these sheets, and no others of their keys. Belongs into a turn."""
    for kept, writing in ((made.users, _WRITE_USERS), (made.times, _WRITE_TIMES)):
        if kept:
            await session.execute(writing, *_columns(kept), *await asyncio.to_thread(_extended, {}, kept))


async def _kept(session: Session, reading: str, keys: Mapping[Any, Sheet]) -> list[Any]:
    return await session.fetch(reading, *_columns(keys)) if keys else []


def _extended(kept: Mapping[Any, sheets.Texts], more: Mapping[Any, Sheet]) -> list[list[str]]:
    made = [sheets.extend(kept[key], more[key]) if key in kept else sheets.pack(more[key]) for key in sorted(more)]
    return [list(column) for column in zip(*made, strict=True)]


def _columns(keys: Mapping[Any, Sheet]) -> list[list[Any]]:
    return [list(column) for column in zip(*sorted(keys), strict=True)] if keys else [[], [], []]


def instant(seconds: int) -> datetime:
    """The UTC time of whole seconds since 1970; of what lies beyond all times, the last one."""
    return min(EPOCH + timedelta(seconds=seconds), LATEST) if seconds < micros(LATEST) // 1_000_000 else LATEST
