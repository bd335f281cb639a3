"""The books of one store, carried to another: calls with their ids, models, own prices, totals of purged days."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from .._store.session import Session
from .._usage.periods import midnight
from ..errors import StorageError, UnsupportedOperationError
from ..schemas import LLMModel
from ..storage.reference import CELL_KEYS, GRAINS, none_first
from ..storage.types import MAX_BATCH, CallQuery, TotalsPage, TotalsRow, UsageQuery, UsageRow


@dataclass(frozen=True, slots=True)
class CopyReport:
    """What was carried over. `models`, `prices` and `calls` were new to the target, or its model was of the catalog and
    untouched; `duplicates` are calls that were there already, and `expired` are of days that the target has purged, so
    it did not take them. `totals` are rows of purged days."""

    models: int = 0
    prices: int = 0
    calls: int = 0
    duplicates: int = 0
    expired: int = 0
    totals: int = 0


async def copy(source: Session, target: Session, on_page: Callable[[CopyReport], None] | None = None) -> CopyReport:
    """Carry all that `source` has to `target`; both are open.

    Calls first, newest first, in pages of 1,000, each one transaction; totals last, since days may be purged
    meanwhile. Of a day that the source has purged nobody can tell which calls were whose, so the target must have
    nothing of it but what is the source's: then its totals are folded from calls, where an earlier copy brought these,
    and replaced by those of the source.

    :raises StorageError: the target has purged days of which the source has not, or has something of its own of a day
        that the source has purged. Nothing was written, unless that purge came meanwhile
    """
    mark = await _watermark(source)
    purged = await _watermark(target)
    if purged is not None and (mark is None or purged > mark):
        raise StorageError(
            f"the target has purged the days before {purged.date()}, of which the source has not; "
            "copy into a store of its own"
        )
    brought: Counter[datetime] = Counter()
    if mark is not None:
        await _check_totals(source, target)
        await _check_calls(source, target, mark, brought)
    report = await _copy_models(source, target)
    query = CallQuery(limit=MAX_BATCH)
    while True:
        with source.guard():
            page = await source.backend.list_calls(query)
        if page.calls:
            with target.guard():
                result = await target.backend.record_calls(page.calls)
            brought.update(midnight(call.called_at) for call in page.calls)
            report = replace(
                report,
                calls=report.calls + result.inserted,
                duplicates=report.duplicates + result.duplicates,
                expired=report.expired + len(result.expired),
            )
        if on_page is not None:
            on_page(report)
        if page.next is None:
            return replace(report, totals=await _copy_totals(source, target, brought))
        query = replace(query, after=page.next)


async def _copy_models(source: Session, target: Session) -> CopyReport:
    """Carry over the models and own prices whose keys the target lacks."""
    with source.guard():
        models = await source.backend.list_models(active_only=False)
        prices = await source.backend.list_prices()
    with target.guard():
        held = {
            (model.provider, model.model_name): model for model in await target.backend.list_models(active_only=False)
        }
        dated = {(p.provider, p.model_name, p.effective_from) for p in await target.backend.list_prices()}
        models = [model for model in models if _is_news(model, held.get((model.provider, model.model_name)))]
        prices = [p for p in prices if (p.provider, p.model_name, p.effective_from) not in dated]
        if models:
            await target.backend.upsert_models(models)
        if prices:
            await target.backend.set_prices(prices)
    return CopyReport(models=len(models), prices=len(prices))


def _is_news(model: LLMModel, held: LLMModel | None) -> bool:
    return held is None or (_is_untouched(held) and not _is_untouched(model))


def _is_untouched(model: LLMModel) -> bool:
    """Whether a model stands as the catalog has it."""
    return model.source != "user" and model.is_active


async def _copy_totals(source: Session, target: Session, brought: Mapping[datetime, int]) -> int:
    """Carry the totals over, and again if the source purged meanwhile; return how many rows there are."""
    while (mark := await _watermark(source)) is not None:
        await _check_calls(source, target, mark, brought)
        await _fold(target, mark)
        latest: datetime | None = mark
        copied = 0
        with target.guard():
            await target.backend.write_totals([], mark)
        page = await _totals(source, None)
        while page is not None:
            rows = [row for row in page.rows if row.start < mark]
            with target.guard():
                await target.backend.write_totals(rows, None)
            copied, latest = copied + len(rows), page.watermark
            page = None if page.next is None else await _totals(source, page.next)
        if latest == mark:
            return copied
    return 0


async def _fold(target: Session, before: datetime) -> None:
    """Let the target purge what it has of purged days, if it has any."""
    with target.guard():
        if (await target.backend.list_calls(CallQuery(until=before, limit=1))).calls:
            await target.backend.purge_calls(before)


async def _check_totals(source: Session, target: Session) -> None:
    """Refuse totals of the target that are not those of the source; both come in one order."""
    async with aclosing(_all_totals(source)) as theirs, aclosing(_all_totals(target)) as ours:
        row = await anext(theirs, None)
        async for held in ours:
            while row is not None and _place(row) < _place(held):
                row = await anext(theirs, None)
            if row != held:
                raise _refusal("totals", held.start)


async def _check_calls(source: Session, target: Session, mark: datetime, brought: Mapping[datetime, int]) -> None:
    """Refuse calls of the target from before `mark` that are not the source's, which has purged those days.

    They are if this copy brought them, before the source purged them, and no others are there; or if an earlier copy
    did, so that they sum to what the source has of them.
    """
    until = mark
    while True:
        with target.guard():
            newest = (await target.backend.list_calls(CallQuery(until=until, limit=1))).calls
        if not newest:
            return
        until = midnight(newest[0].called_at)
        (held,) = await _sums(target, UsageQuery(edges=(until, until + GRAINS["day"])))
        if held.calls != brought.get(until, 0) and not await _has_sums(source, target, until):
            raise _refusal("calls", until)


async def _has_sums(source: Session, target: Session, day: datetime) -> bool:
    """Whether all sums that the target has of a day, as fine as those of purged days are kept, are the source's."""
    by_user = UsageQuery(group_by=CELL_KEYS["day"], edges=(day, day + GRAINS["day"]))
    quarters = tuple(day + number * GRAINS["quarter"] for number in range(GRAINS["day"] // GRAINS["quarter"] + 1))
    by_time = UsageQuery(group_by=(*CELL_KEYS["quarter"], "period"), edges=quarters)
    for query in (by_user, by_time):
        theirs = {_label(row): row for row in await _sums(source, query)}
        if any(theirs.get(_label(row)) != row for row in await _sums(target, query)):
            return False
    return True


def _refusal(what: str, at: datetime) -> StorageError:
    return StorageError(
        f"the source has purged {at.date()}, and the target has {what} of that day that are not those of the source; "
        "copy into a store of its own, or, if an earlier copy brought them, reprice and forget there what was repriced "
        "and forgotten here since"
    )


async def _watermark(session: Session) -> datetime | None:
    page = await _totals(session, None)
    return None if page is None else page.watermark


async def _all_totals(session: Session) -> AsyncGenerator[TotalsRow, None]:
    page = await _totals(session, None)
    while page is not None:
        for row in page.rows:
            yield row
        page = None if page.next is None else await _totals(session, page.next)


async def _totals(session: Session, cursor: str | None) -> TotalsPage | None:
    """A page of totals; None where the backend can neither purge nor copy, so that there are none."""
    with session.guard():
        try:
            return await session.backend.read_totals(cursor)
        except UnsupportedOperationError:
            return None


async def _sums(session: Session, query: UsageQuery) -> list[UsageRow]:
    with session.guard():
        return await session.backend.summarize_usage(query)


def _place(row: TotalsRow) -> tuple[Any, ...]:
    return row.grain, row.start, none_first(row.key[name] for name in CELL_KEYS[row.grain])


def _label(row: UsageRow) -> tuple[Any, ...]:
    return row.period, *row.key.values()
