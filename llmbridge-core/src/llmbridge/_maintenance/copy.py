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
    """Result of a copy.

    `models`, `prices` and `calls` were new to the target; a model of the catalog that nobody changed counts as new too.
    `duplicates` are calls that the target had already. `expired` calls are of days that the target has purged; they
    were not stored. `totals` are rows of purged days.
    """

    models: int = 0
    prices: int = 0
    calls: int = 0
    duplicates: int = 0
    expired: int = 0
    totals: int = 0


async def copy(
    source: StoreSession, target: StoreSession, on_page: Callable[[CopyReport], None] | None = None
) -> CopyReport:
    """Copy everything from `source` to `target`.

    Calls are copied first, newest first, in pages of 1,000, each in one transaction; totals last, because days may be
    purged meanwhile. The calls of a purged day are gone, so its totals cannot be merged with calls of the target.
    Therefore the target must have nothing of such a day, or only what an earlier copy brought: then its calls of that
    day are purged and its totals replaced by those of the source.

    :param on_page: called with the report so far after each page
    :raises StorageError: the target has purged days that the source has not, or has data of its own for a day that the
        source has purged; nothing was written, unless the source was purged during the copy
    """
    mark = await _watermark(source)
    purged = await _watermark(target)
    if purged is not None and (mark is None or purged > mark):
        raise StorageError(
            f"the target has purged the days before {purged.date()}, and the source has not; "
            "copy into an empty database"
        )
    brought: Counter[datetime] = Counter()
    if mark is not None:
        await _check_totals(source, target)
        await _check_calls(source, target, mark, brought)
    report = await _copy_models(source, target)
    async for page in source.call_pages(CallQuery(limit=MAX_BATCH)):
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
    return replace(report, totals=await _copy_totals(source, target, brought))


async def _copy_models(source: StoreSession, target: StoreSession) -> CopyReport:
    """Copy the models and own prices whose keys the target does not have."""
    models, prices = await source.call(_models_and_prices)

    async def add(backend: StorageBackend) -> CopyReport:
        held_models, held_prices = await _models_and_prices(backend)
        held = {(model.provider, model.model_name): model for model in held_models}
        dated = {price.key for price in held_prices}
        new_models = [model for model in models if _is_new(model, held.get((model.provider, model.model_name)))]
        new_prices = [price for price in prices if price.key not in dated]
        if new_models:
            await backend.upsert_models(new_models)
        if new_prices:
            await backend.set_prices(new_prices)
        return CopyReport(models=len(new_models), prices=len(new_prices))

    return await target.call(add)


async def _models_and_prices(backend: StorageBackend) -> tuple[list[LLMModel], list[ModelPrice]]:
    return await backend.list_models(active_only=False), await backend.list_prices()


def _is_new(model: LLMModel, held: LLMModel | None) -> bool:
    return held is None or (_is_untouched(held) and not _is_untouched(model))


def _is_untouched(model: LLMModel) -> bool:
    """Return whether a model is as the catalog has it: not changed by the user, not retired."""
    return model.source != "user" and model.is_active


async def _copy_totals(source: StoreSession, target: StoreSession, brought: Mapping[datetime, int]) -> int:
    """Copy the totals, again if the source was purged meanwhile, and return the number of rows."""
    while (mark := await _watermark(source)) is not None:
        await _check_calls(source, target, mark, brought)
        await _purge(target, mark)
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


async def _purge(target: StoreSession, before: datetime) -> None:
    """Purge the target's calls before `before`, if it has any."""
    if (await _page(target, CallQuery(until=before, limit=1))).calls:
        await target.call(lambda backend: backend.purge_calls(before))


async def _check_totals(source: StoreSession, target: StoreSession) -> None:
    """Raise StorageError if the target has totals that the source does not have. Both come in the same order."""
    async with aclosing(_all_totals(source)) as source_rows, aclosing(_all_totals(target)) as target_rows:
        row = await anext(source_rows, None)
        async for held in target_rows:
            while row is not None and _sort_key(row) < _sort_key(held):
                row = await anext(source_rows, None)
            if row != held:
                raise _conflict("totals", held.start)


async def _check_calls(
    source: StoreSession, target: StoreSession, mark: datetime, brought: Mapping[datetime, int]
) -> None:
    """Raise StorageError if the target has calls of its own from before `mark`, the source's watermark.

    Calls are not its own if this copy brought them before the source purged them, and there are no others; or if an
    earlier copy brought them: then their sums equal the source's totals.
    """
    until = mark
    while True:
        newest = (await _page(target, CallQuery(until=until, limit=1))).calls
        if not newest:
            return
        until = midnight(newest[0].called_at)
        (held,) = await _sums(target, UsageQuery(edges=(until, until + GRAINS["day"])))
        if held.calls != brought.get(until, 0) and not await _has_equal_sums(source, target, until):
            raise _conflict("calls", until)


async def _has_equal_sums(source: StoreSession, target: StoreSession, day: datetime) -> bool:
    """Return whether the source has all sums that the target has of a day, compared at the grains of purged days."""
    by_user = UsageQuery(group_by=CELL_KEYS["day"], edges=(day, day + GRAINS["day"]))
    quarters = tuple(day + number * GRAINS["quarter"] for number in range(GRAINS["day"] // GRAINS["quarter"] + 1))
    by_time = UsageQuery(group_by=(*CELL_KEYS["quarter"], "period"), edges=quarters)
    for query in (by_user, by_time):
        source_sums = {_label(row): row for row in await _sums(source, query)}
        if any(source_sums.get(_label(row)) != row for row in await _sums(target, query)):
            return False
    return True


def _conflict(what: str, at: datetime) -> StorageError:
    return StorageError(
        f"the source has purged {at.date()}, and the target has {what} of that day that are not those of the source; "
        "copy into an empty database; if an earlier copy brought them, reprice and forget in the target what was "
        "repriced and forgotten in the source since then"
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


def _sort_key(row: TotalsRow) -> tuple[Any, ...]:
    return row.grain, row.start, none_first(row.key[name] for name in CELL_KEYS[row.grain])


def _label(row: UsageRow) -> tuple[Any, ...]:
    return row.period, *row.key.values()
