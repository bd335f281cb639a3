"""The books of one store, carried to another: calls with their ids, models, own prices, totals of purged days."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime

from .errors import StorageError, UnsupportedOperationError
from .session import Session
from .storage.types import MAX_BATCH, CallQuery, TotalsPage


@dataclass(frozen=True, slots=True)
class CopyReport:
    """What was carried over. `calls` were new to the target and `duplicates` there already; `expired` are of days
    that the target has purged, so it did not take them. `totals` are rows of purged days."""

    models: int = 0
    prices: int = 0
    calls: int = 0
    duplicates: int = 0
    expired: int = 0
    totals: int = 0


async def copy(source: Session, target: Session, on_page: Callable[[CopyReport], None] | None = None) -> CopyReport:
    """Carry all that `source` has to `target`; both are open.

    Calls first, newest first, in pages of 1,000, each one transaction; totals last, since days may be purged
    meanwhile. What the target has of these days is then folded into totals as well, which those of the source replace.

    :raises StorageError: the target has purged days of which the source has not
    """
    mark = await _watermark(source)
    purged = await _watermark(target)
    if purged is not None and (mark is None or purged > mark):
        raise StorageError(
            f"the target has purged the days before {purged.date()}, of which the source has not; "
            "copy into a store of its own"
        )
    report = await _copy_models(source, target)
    query = CallQuery(limit=MAX_BATCH)
    while True:
        async with source.guard():
            page = await source.backend.list_calls(query)
        if page.calls:
            async with target.guard():
                result = await target.backend.record_calls(page.calls)
            report = replace(
                report,
                calls=report.calls + result.inserted,
                duplicates=report.duplicates + result.duplicates,
                expired=report.expired + len(result.expired),
            )
        if on_page is not None:
            on_page(report)
        if page.next is None:
            return replace(report, totals=await _copy_totals(source, target))
        query = replace(query, after=page.next)


async def _copy_models(source: Session, target: Session) -> CopyReport:
    async with source.guard():
        models = await source.backend.list_models(active_only=False)
        prices = await source.backend.list_prices()
    async with target.guard():
        await target.backend.upsert_models(models)
        await target.backend.set_prices(prices)
    return CopyReport(models=len(models), prices=len(prices))


async def _copy_totals(source: Session, target: Session) -> int:
    """Carry the totals over, and again if the source purged meanwhile; return how many rows there are."""
    while True:
        first = page = await _totals(source, None)
        if page is None or page.watermark is None:
            return 0
        await _fold(target, page.watermark)
        copied = 0
        while page is not None:
            last, copied = page, copied + len(page.rows)
            async with target.guard():
                await target.backend.write_totals(page.rows, None)
            page = None if page.next is None else await _totals(source, page.next)
        if first is not None and last.watermark == first.watermark:
            async with target.guard():
                await target.backend.write_totals([], last.watermark)
            return copied


async def _fold(target: Session, before: datetime) -> None:
    """Let the target purge what it has of purged days, if it has any."""
    async with target.guard():
        if (await target.backend.list_calls(CallQuery(until=before, limit=1))).calls:
            await target.backend.purge_calls(before)


async def _watermark(session: Session) -> datetime | None:
    page = await _totals(session, None)
    return None if page is None else page.watermark


async def _totals(session: Session, cursor: str | None) -> TotalsPage | None:
    """A page of totals; None where the backend can neither purge nor copy, so that there are none."""
    async with session.guard():
        try:
            return await session.backend.read_totals(cursor)
        except UnsupportedOperationError:
            return None
