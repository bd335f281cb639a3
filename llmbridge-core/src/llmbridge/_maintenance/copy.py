"""Copy of one database into another: calls with their ids, models, own prices, totals of purged days."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from .._store.session import StoreSession
from .._usage.periods import midnight
from ..errors import StorageError, UnsupportedOperationError
from ..schemas import CallRecord, LLMModel
from ..storage.base import StorageBackend
from ..storage.reference import CELL_KEYS, GRAINS, none_first
from ..storage.types import (
    MAX_BATCH,
    CallPage,
    CallQuery,
    ModelPrice,
    RecordResult,
    TotalsPage,
    TotalsRow,
    UsageQuery,
    UsageRow,
)


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


async def copy(
    source: StoreSession, target: StoreSession, on_page: Callable[[CopyReport], None] | None = None
) -> CopyReport:
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
        page = await _page(source, query)
        if page.calls:
            result = await _record(target, page.calls)
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


async def _copy_models(source: StoreSession, target: StoreSession) -> CopyReport:
    """Carry over the models and own prices whose keys the target lacks."""
    models, prices = await source.call(_models_and_prices)

    async def add(backend: StorageBackend) -> CopyReport:
        held_models, held_prices = await _models_and_prices(backend)
        held = {(model.provider, model.model_name): model for model in held_models}
        dated = {_price_key(price) for price in held_prices}
        new_models = [model for model in models if _is_new(model, held.get((model.provider, model.model_name)))]
        new_prices = [price for price in prices if _price_key(price) not in dated]
        if new_models:
            await backend.upsert_models(new_models)
        if new_prices:
            await backend.set_prices(new_prices)
        return CopyReport(models=len(new_models), prices=len(new_prices))

    return await target.call(add)


async def _models_and_prices(backend: StorageBackend) -> tuple[list[LLMModel], list[ModelPrice]]:
    return await backend.list_models(active_only=False), await backend.list_prices()


def _price_key(price: ModelPrice) -> tuple[str, str, datetime]:
    return price.provider, price.model_name, price.effective_from


def _is_new(model: LLMModel, held: LLMModel | None) -> bool:
    return held is None or (_is_untouched(held) and not _is_untouched(model))


def _is_untouched(model: LLMModel) -> bool:
    """Whether a model stands as the catalog has it."""
    return model.source != "user" and model.is_active


async def _copy_totals(source: StoreSession, target: StoreSession, brought: Mapping[datetime, int]) -> int:
    """Carry the totals over, and again if the source purged meanwhile; return how many rows there are."""
    while (mark := await _watermark(source)) is not None:
        await _check_calls(source, target, mark, brought)
        await _fold(target, mark)
        latest: datetime | None = mark
        copied = 0
        await _write_totals(target, [], mark)
        page = await _totals(source, None)
        while page is not None:
            rows = [row for row in page.rows if row.start < mark]
            await _write_totals(target, rows, None)
            copied, latest = copied + len(rows), page.watermark
            page = None if page.next is None else await _totals(source, page.next)
        if latest == mark:
            return copied
    return 0


async def _fold(target: StoreSession, before: datetime) -> None:
    """Let the target purge what it has of purged days, if it has any."""
    if (await _page(target, CallQuery(until=before, limit=1))).calls:
        await target.call(lambda backend: backend.purge_calls(before))


async def _check_totals(source: StoreSession, target: StoreSession) -> None:
    """Refuse totals of the target that are not those of the source; both come in one order."""
    async with aclosing(_all_totals(source)) as theirs, aclosing(_all_totals(target)) as ours:
        row = await anext(theirs, None)
        async for held in ours:
            while row is not None and _place(row) < _place(held):
                row = await anext(theirs, None)
            if row != held:
                raise _refusal("totals", held.start)


async def _check_calls(
    source: StoreSession, target: StoreSession, mark: datetime, brought: Mapping[datetime, int]
) -> None:
    """Refuse calls of the target from before `mark` that are not the source's, which has purged those days.

    They are if this copy brought them, before the source purged them, and no others are there; or if an earlier copy
    did, so that they sum to what the source has of them.
    """
    until = mark
    while True:
        newest = (await _page(target, CallQuery(until=until, limit=1))).calls
        if not newest:
            return
        until = midnight(newest[0].called_at)
        (held,) = await _sums(target, UsageQuery(edges=(until, until + GRAINS["day"])))
        if held.calls != brought.get(until, 0) and not await _has_sums(source, target, until):
            raise _refusal("calls", until)


async def _has_sums(source: StoreSession, target: StoreSession, day: datetime) -> bool:
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


async def _watermark(session: StoreSession) -> datetime | None:
    page = await _totals(session, None)
    return None if page is None else page.watermark


async def _all_totals(session: StoreSession) -> AsyncGenerator[TotalsRow, None]:
    page = await _totals(session, None)
    while page is not None:
        for row in page.rows:
            yield row
        page = None if page.next is None else await _totals(session, page.next)


async def _totals(session: StoreSession, cursor: str | None) -> TotalsPage | None:
    """Return a page of totals; None if the backend can neither purge nor copy, so that there are none."""
    try:
        return await session.call(lambda backend: backend.read_totals(cursor))
    except UnsupportedOperationError:
        return None


async def _write_totals(session: StoreSession, rows: Sequence[TotalsRow], watermark: datetime | None) -> None:
    await session.call(lambda backend: backend.write_totals(rows, watermark))


async def _page(session: StoreSession, query: CallQuery) -> CallPage:
    return await session.call(lambda backend: backend.list_calls(query))


async def _record(session: StoreSession, calls: Sequence[CallRecord]) -> RecordResult:
    return await session.call(lambda backend: backend.record_calls(calls))


async def _sums(session: StoreSession, query: UsageQuery) -> list[UsageRow]:
    return await session.call(lambda backend: backend.summarize_usage(query))


def _place(row: TotalsRow) -> tuple[Any, ...]:
    return row.grain, row.start, none_first(row.key[name] for name in CELL_KEYS[row.grain])


def _label(row: UsageRow) -> tuple[Any, ...]:
    return row.period, *row.key.values()
