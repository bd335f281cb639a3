"""What the books need over the years: new costs, purges, forgotten users, checks of the totals."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from .._pricing.genai_prices import editions
from .._pricing.price_book import PriceBook
from .._recording.spool_replay import alone
from .._records.validation import check_name
from .._usage import periods, query, statistics
from .._usage.query import Accepted
from ..storage.types import EARLIEST, MAX_PAGE, CallPage, CallQuery, TotalsReport, UsageQuery, UsageRow
from . import copy
from .copy import CopyReport
from .reprice import RepriceReport, Repricing

if TYPE_CHECKING:
    from .._models.registry import ModelRegistry
    from .._recording.spool import Spool
    from .._store.session import Session

#: Purging asks for at least this many days to be kept, unless it is forced.
LEAST_DAYS_KEPT = 7

#: Seconds that calls on their way from the spool into the store get to arrive, before a user is forgotten.
PATIENCE = 60.0

_UTC = ZoneInfo("UTC")


@dataclass(frozen=True, slots=True)
class Forgotten:
    """What became of a user's name at one `origin`: how many `calls` bore it, purged ones and those that wait in the
    spool included, and how many `rows`, of calls and of totals, were changed."""

    origin: str
    calls: int
    rows: int


class Upkeep:
    """The part of LLMDatabase that is for operators. Where no books are kept nothing happens."""

    _session: Session | None
    _registry: ModelRegistry | None
    _spool: Spool | None

    async def reprice(
        self,
        since: datetime | date | None = None,
        until: datetime | date | None = None,
        *,
        origin: Accepted = None,
        id_at_origin: Accepted = None,
        provider: Accepted = None,
        model_name: Accepted = None,
        priced_as: Mapping[str, str] | None = None,
        dry_run: bool = False,
        on_page: Callable[[RepriceReport], None] | None = None,
    ) -> RepriceReport:
        """Give the calls from `since` (inclusive) to `until` (exclusive) the cost that the own prices and price data of
        today say was in force when each was made. None is unbounded, a date its first instant in UTC.

        The cost and the reason that stood before stay on the row, and sums follow. Left alone are calls whose cost
        came from the caller or the vendor, that were not billed, and whose model has no price now. The rates on the
        row stay those of its first pricing. Each page of 1,000 calls is one transaction, and a run that is cut off is
        finished by the next. Purged calls keep their cost.

        :param priced_as: the vendor whose list applies, by vendor called, for calls that no list has priced so far
        :param dry_run: only tell what would change
        :param on_page: called after each page with what was done so far
        :raises ValueError: a naive time, an empty range, or a list in `priced_as` that the price data do not have
        :raises RecordRejectedError: a call would cost 9,000,000 dollars or more, which no row can hold; the text names
            it, and the pages before it are done
        :raises UnsupportedOperationError: the backend cannot reprice
        """
        fields = {"origin": origin, "id_at_origin": id_at_origin, "provider": provider, "model_name": model_name}
        start, end = _instant(since), _instant(until)
        periods.check_range(start, end)
        chosen, after = query.filters(fields), None
        await asyncio.to_thread(editions.refresh, at_once=True)
        for listed in (priced_as or {}).values():
            editions.current().check_list(listed)
        if self._session is None or self._registry is None:
            return Repricing(PriceBook(), {}, datetime.now(UTC)).report(dry_run=dry_run)
        await self._session.start()
        await self._registry.reload_prices()
        repricing = Repricing(self._registry.prices, priced_as or {}, datetime.now(UTC))
        while True:
            page = await _page(self._session, CallQuery(chosen, start, end, MAX_PAGE, after))
            changes = repricing.changes(page.calls)
            if changes and not dry_run:
                with self._session.guard():
                    await self._session.backend.reprice_calls(changes)
            if on_page is not None:
                on_page(repricing.report(dry_run=dry_run))
            if (after := page.next) is None:
                return repricing.report(dry_run=dry_run)

    async def purge(
        self,
        before: datetime | date,
        *,
        dry_run: bool = False,
        force: bool = False,
        on_day: Callable[[date, int], None] | None = None,
    ) -> int:
        """Delete the calls before `before`, rounded down to a UTC day, and return how many there were. The sums over
        them stay, for ever. One day is deleted at a time, oldest first.

        :param dry_run: only count them
        :param on_day: called after each day with it and the number of its calls
        :raises ValueError: this would keep fewer than 7 days, and there is no `force`; or today's calls too would go,
            after which the books would take none
        :raises UnsupportedOperationError: the backend cannot purge
        """
        end, today = periods.midnight(periods.to_utc(before, _UTC)), periods.midnight(datetime.now(UTC))
        kept = (today - end).days
        if kept < 0:
            raise ValueError(
                f"{end.date()} is still to come; calls can be purged up to {today.date()} (UTC), today's are kept"
            )
        if kept < LEAST_DAYS_KEPT and not force:
            raise ValueError(
                f"calls would be kept for {kept} days; fewer than {LEAST_DAYS_KEPT} need force=True, in a shell --force"
            )
        if self._session is None:
            return 0
        await self._session.start()
        day = await _first_day(self._session, EARLIEST.date(), end)
        if dry_run:
            return (await _sums(self._session, UsageQuery(edges=(_start(day), end))))[0].calls if day is not None else 0
        purged = 0
        while day is not None:
            following = day + timedelta(days=1)
            purged += (count := await _purge_calls(self._session, _start(following)))
            if on_day is not None:
                on_day(day, count)
            day = await _first_day(self._session, following, end)
        return purged + await _purge_calls(self._session, end)

    async def cleanup_old_data(
        self, days_to_keep_calls: int = 90, days_to_keep_analytics: int | None = None, *, force: bool = False
    ) -> int:
        """Delete calls older than `days_to_keep_calls` days, as `purge` does, and return how many; the sums over them
        stay, for ever: `days_to_keep_analytics` is accepted and does nothing.

        :raises ValueError: fewer than 7 days, unless `force`
        :raises UnsupportedOperationError: the backend cannot purge
        """
        if days_to_keep_calls < 0:
            raise ValueError(f"days_to_keep_calls is {days_to_keep_calls}; it must not be negative")
        return await self.purge(statistics.days_ago(days_to_keep_calls), force=force)

    async def forget(self, id_at_origin: str, origin: str | None = None, *, dry_run: bool = False) -> list[Forgotten]:
        """Take the name of a user off every call and total, of one origin or of all (None), and off the calls that wait
        in the spool of these books. What they cost stays in the sums, as of nobody in particular. The answer has one
        entry per origin that knew the name.

        Calls that wait elsewhere, on another machine or in another `spool_dir`, bring the name back when they come.

        :param dry_run: only count the calls
        :raises StorageUnavailableError: calls that wait cannot be changed now
        :raises UnsupportedOperationError: the backend cannot erase users
        """
        name = check_name("id_at_origin", id_at_origin)
        if self._session is None:
            return []
        await self._session.start()
        async with AsyncExitStack() as meanwhile:
            spool = self._spool if self._spool is not None and await asyncio.to_thread(self._spool.is_there) else None
            if spool is not None and not dry_run:
                await meanwhile.enter_async_context(alone(spool, PATIENCE))
            waiting = await asyncio.to_thread(spool.calls_of, name, origin) if spool is not None else {}
            if spool is not None and waiting and not dry_run:
                await asyncio.to_thread(spool.forget, name, origin)
            chosen = query.filters({"id_at_origin": name, "origin": origin})
            stored = {
                row.key["origin"]: row.calls for row in await _sums(self._session, UsageQuery(chosen, ("origin",)))
            }
            forgotten = []
            for place in sorted({*stored, *waiting}):
                rows = 0 if dry_run else waiting.get(place, 0)
                if place in stored and not dry_run:
                    with self._session.guard():
                        rows += await self._session.backend.erase_user(place, name)
                forgotten.append(Forgotten(place, stored.get(place, 0) + waiting.get(place, 0), rows))
        return forgotten

    async def copy_to(self, target: Upkeep, *, on_page: Callable[[CopyReport], None] | None = None) -> CopyReport:
        """Carry calls with their ids, models, own prices and totals of purged days to other books, which are added to.

        May be cut off and run again: what is there already stays as it is, so a repricing, a forgotten user or a
        changed model since the last run has to be repeated there. Only a model of the catalog that nobody has changed
        there yields. Calls that are recorded meanwhile may be left for the next run.

        Of days that are purged here the target must have nothing but what an earlier run brought, whole days of it
        where it has their calls: copy once more before purging days that were not over, or not all there, at the last
        run.

        :param on_page: called after each page of 1,000 calls with what was done so far
        :raises StorageError: the target has purged days of which these books have not, or has something else of a day
            that is purged here, which the text names. Nothing was written, unless that day was purged during the run
        :raises UnsupportedOperationError: there are purged days, and the target cannot take their totals
        """
        if self._session is None or target._session is None or target._registry is None:
            return CopyReport()
        await self._session.start()
        await target._session.start()
        report = await copy.copy(self._session, target._session, on_page)
        await target._registry.reload_prices()
        return report

    async def check_totals(self, *, repair: bool = False) -> TotalsReport:
        """Count every kept total anew from the stored calls, and with `repair` put right what is wrong."""
        if self._session is None:
            return TotalsReport()
        await self._session.start()
        with self._session.guard():
            return await self._session.backend.check_totals(repair)


async def _page(session: Session, query: CallQuery) -> CallPage:
    with session.guard():
        return await session.backend.list_calls(query)


async def _sums(session: Session, query: UsageQuery) -> list[UsageRow]:
    with session.guard():
        return await session.backend.summarize_usage(query)


async def _purge_calls(session: Session, before: datetime) -> int:
    with session.guard():
        return await session.backend.purge_calls(before)


async def _first_day(session: Session, since: date, end: datetime) -> date | None:
    """The first day that has calls, if it is before `end`; there are none before `since`.

    Leaps ahead until there are some, then halves the distance, since pages of calls begin with the newest.
    """

    async def any_before(at: datetime) -> bool:
        return bool((await _page(session, CallQuery(until=at, limit=1))).calls)

    if not await any_before(end):
        return None
    low, leap, high = since, timedelta(days=1), end.date()
    while leap < high - low:
        if await any_before(_start(low + leap)):
            high = low + leap
            break
        low, leap = low + leap, 2 * leap
    while high - low > timedelta(days=1):
        middle = low + (high - low) // 2
        low, high = (low, middle) if await any_before(_start(middle)) else (middle, high)
    return low


def _instant(at: datetime | date | None) -> datetime | None:
    return None if at is None else periods.to_utc(at, _UTC)


def _start(day: date) -> datetime:
    return datetime.combine(day, time.min, UTC)
