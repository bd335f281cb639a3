"""Purge: deletes old calls day by day and keeps their sums."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta

from .._store.session import StoreSession
from .._usage import periods
from .._usage.times import When, to_utc
from ..storage.types import EARLIEST, MAX_CLOCK_SKEW, CallQuery, UsageQuery

#: A purge keeps at least this many days, unless it is forced.
MIN_DAYS_KEPT = 7


def _check_end(before: datetime, *, force: bool) -> datetime:
    """Return `before` rounded down to a UTC midnight.

    :raises ValueError: fewer than `MIN_DAYS_KEPT` days would be kept without `force`; or calls of today would be
        deleted, after which the database would not accept any
    """
    end, today = periods.midnight(before), periods.midnight(datetime.now(UTC))
    kept = (today - end).days
    if kept < 0:
        raise ValueError(
            f"{end.date()} lies in the future; calls can be purged up to {today.date()} (UTC), today's are kept"
        )
    if kept < MIN_DAYS_KEPT and not force:
        raise ValueError(
            f"calls would be kept for {kept} days; fewer than {MIN_DAYS_KEPT} need force=True, in a shell --force"
        )
    return end


async def _check_clock(session: StoreSession, end: datetime) -> datetime:
    """Return `end`, or the earliest time if nothing tells what time it is.

    If the clock of this machine is years ahead, a purge would delete all calls, and the database would refuse new ones
    for years. The clock of the database tells the time; if it has none, the newest call does. The clock comes first,
    because this machine may have recorded the newest call by the same wrong clock.

    :raises ValueError: `end` lies more than a day after that
    """
    page = await session.call(lambda backend: backend.list_calls(CallQuery(limit=1)))
    newest = page.calls[0].called_at if page.calls else None
    clock = await session.call(lambda backend: backend.clock())
    known = clock if clock is not None else newest
    if known is None:
        return EARLIEST  # only what an interrupted purge has left is deleted
    if end - known > MAX_CLOCK_SKEW:
        said = "there are no calls" if newest is None else f"the newest call is of {newest.date()}"
        said += "" if clock is None else f", and the clock of the database says {clock.date()}"
        raise ValueError(
            f"{end.date()} may lie in the future: {said}. Check the clock of this machine; if it is right, pass "
            "force=True, in a shell --force"
        )
    return end


async def purge(
    session: StoreSession,
    before: When,
    *,
    dry_run: bool,
    force: bool,
    on_day: Callable[[date, int], None] | None,
) -> int:
    """Delete the calls before `before`, one day at a time, oldest first, and return their number. See
    `LLMDatabase.purge`."""
    end = _check_end(to_utc(before, periods.zone("UTC")), force=force)
    if not force:
        end = await _check_clock(session, end)
    day = await _first_day(session, EARLIEST.date(), end)
    if dry_run:
        return await _count(session, day, end) if day is not None else 0
    purged = 0
    while day is not None:
        following = day + timedelta(days=1)
        purged += (count := await _purge_calls(session, _start(following)))
        if on_day is not None:
            on_day(day, count)
        day = await _first_day(session, following, end)
    return purged + await _purge_calls(session, end)


async def _first_day(session: StoreSession, since: date, end: datetime) -> date | None:
    """Return the first day with calls, if it is before `end`, else None. There are no calls before `since`.

    Pages of calls begin with the newest, so the oldest day is found by a search with doubling steps, then by bisection.
    """

    async def any_before(at: datetime) -> bool:
        page = await session.call(lambda backend: backend.list_calls(CallQuery(until=at, limit=1)))
        return bool(page.calls)

    if not await any_before(end):
        return None
    low, step, high = since, timedelta(days=1), end.date()
    while step < high - low:
        if await any_before(_start(low + step)):
            high = low + step
            break
        low, step = low + step, 2 * step
    while high - low > timedelta(days=1):
        middle = low + (high - low) // 2
        low, high = (low, middle) if await any_before(_start(middle)) else (middle, high)
    return low


async def _count(session: StoreSession, first: date, end: datetime) -> int:
    rows = await session.call(lambda backend: backend.summarize_usage(UsageQuery(edges=(_start(first), end))))
    return rows[0].calls


async def _purge_calls(session: StoreSession, before: datetime) -> int:
    return await session.call(lambda backend: backend.purge_calls(before))


def _start(day: date) -> datetime:
    return datetime.combine(day, time.min, UTC)
