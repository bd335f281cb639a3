"""Books carried from one store to another answer alike, however often the copy was cut off."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from llmbridge import LLMDatabase, LLMModel, ModelPrice
from llmbridge.copying import CopyReport
from llmbridge.errors import StorageError, UnsupportedOperationError
from llmbridge.storage import CallQuery, UsageRow
from llmbridge.storage.memory import MemoryBackend

TODAY = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
DAY = timedelta(days=1)


@pytest.fixture
async def source() -> AsyncIterator[LLMDatabase]:
    """1,500 calls over 50 days, of which 20 are purged, a model and a price of its own."""
    async with LLMDatabase("memory://") as db:
        for number in range(1_500):
            await record(db, TODAY - (number % 50) * DAY + timedelta(minutes=number), number)
        await db.upsert_model(LLMModel(provider="p", model_name="m1", max_context=7))
        await db.set_prices([ModelPrice("p", "m1", TODAY, Decimal("0.1"), Decimal(2))])
        await db.purge(TODAY - 30 * DAY)
        yield db


@pytest.fixture
async def target() -> AsyncIterator[LLMDatabase]:
    async with LLMDatabase("memory://") as db:
        yield db


async def record(db: LLMDatabase, at: datetime, number: int) -> None:
    known = {"origin": "o", "id_at_origin": f"u{number % 7}", "provider": "p", "model_name": f"m{number % 3}"}
    await db.record_api_call(**known, estimated_cost=f"0.{number:012}", prompt_tokens=number, called_at=at)


async def answers(db: LLMDatabase) -> list[list[UsageRow]]:
    return [await db.usage(group_by=group_by) for group_by in ((), ("id_at_origin", "model_name"), ("status",))]


async def calls(db: LLMDatabase) -> list[Any]:
    found: list[Any] = []
    query = CallQuery(limit=1000)
    for _ in itertools.count():
        page = await db.list_calls(query)
        found += page.calls
        if page.next is None:
            break
        query = CallQuery(limit=1000, after=page.next)
    return found


async def test_a_copy_has_the_same_calls_and_gives_the_same_answers(source: LLMDatabase, target: LLMDatabase) -> None:
    pages: list[CopyReport] = []
    report = await source.copy_to(target, on_page=pages.append)
    kept = len(await calls(source))
    assert (report.calls, report.duplicates, report.expired, report.prices) == (kept, 0, 0, 1)
    assert report.totals > 0
    assert [page.calls for page in pages] == [min(kept, 1000), kept][: len(pages)]
    assert await calls(target) == await calls(source)
    assert await answers(target) == await answers(source)
    day = (TODAY - 40 * DAY, TODAY - 35 * DAY)
    assert await target.usage(*day, group_by="day") == await source.usage(*day, group_by="day")
    assert await target.list_prices() == await source.list_prices()
    assert await target.get_model("p", "m1") == await source.get_model("p", "m1")
    card = target.prices.rates("p", "m1", TODAY)
    assert card is not None
    assert card.rates().input == Decimal("0.1")


async def test_a_second_copy_changes_nothing_and_takes_what_is_new(source: LLMDatabase, target: LLMDatabase) -> None:
    first = await source.copy_to(target)
    again = await source.copy_to(target)
    assert (again.calls, again.duplicates, again.totals) == (0, first.calls, first.totals)
    assert await answers(target) == await answers(source)
    await record(source, TODAY, 5)
    assert (await source.copy_to(target)).calls == 1
    assert await answers(target) == await answers(source)


async def test_days_that_the_source_purged_since_are_counted_once(source: LLMDatabase, target: LLMDatabase) -> None:
    await source.copy_to(target)
    await source.purge(TODAY - 10 * DAY)
    await source.copy_to(target)
    assert await answers(target) == await answers(source)
    assert await calls(target) == await calls(source)


class CutOff(MemoryBackend):
    """Fails at the second page."""

    def __init__(self) -> None:
        super().__init__()
        self.pages = 0

    async def record_calls(self, calls: Any) -> Any:
        self.pages += 1
        if self.pages == 2:
            raise OSError("gone")
        return await super().record_calls(calls)


async def test_a_copy_that_was_cut_off_is_finished_by_the_next() -> None:
    async with LLMDatabase("memory://") as source, LLMDatabase(backend=CutOff()) as target:
        for number in range(1_200):
            await record(source, TODAY + timedelta(seconds=number), number)
        with pytest.raises(StorageError, match="OSError"):
            await source.copy_to(target)
        report = await source.copy_to(target)
        assert (report.calls, report.duplicates) == (200, 1_000)
        assert await answers(target) == await answers(source)


class PurgedMeanwhile(MemoryBackend):
    """Purges while its totals are read."""

    def __init__(self) -> None:
        super().__init__()
        self.reads = 0

    async def read_totals(self, cursor: str | None = None) -> Any:
        page = await super().read_totals(cursor)
        self.reads += 1
        if self.reads == 2:
            assert page.next is not None
            await self.purge_calls(TODAY - 10 * DAY)
        return page


async def test_a_purge_during_the_copy_loses_nothing() -> None:
    async with LLMDatabase(backend=PurgedMeanwhile()) as source, LLMDatabase("memory://") as target:
        for number in range(3_000):
            await record(source, TODAY - (number % 60) * DAY + timedelta(minutes=number % 1400), number)
        before = await answers(source)
        await source.purge(TODAY - 30 * DAY)
        await source.copy_to(target)
        assert await answers(target) == before
        assert await calls(target) == await calls(source)


async def test_a_target_that_has_purged_more_is_refused_before_anything_is_written(
    source: LLMDatabase, target: LLMDatabase
) -> None:
    await target.purge(TODAY - 20 * DAY)
    with pytest.raises(StorageError, match="the target has purged the days before"):
        await source.copy_to(target)
    assert await calls(target) == []


class WithoutTotals(MemoryBackend):
    """A store that can neither purge nor copy."""

    async def read_totals(self, cursor: str | None = None) -> Any:
        raise UnsupportedOperationError("WithoutTotals cannot read totals")

    async def write_totals(self, rows: Any, watermark: Any) -> None:
        raise UnsupportedOperationError("WithoutTotals cannot write totals")


async def test_a_store_without_totals_is_copied_and_copied_to(source: LLMDatabase) -> None:
    async with LLMDatabase(backend=WithoutTotals()) as plain, LLMDatabase("memory://") as target:
        await record(plain, TODAY, 1)
        assert (await plain.copy_to(target)).calls == 1
        assert await answers(target) == await answers(plain)
        with pytest.raises(UnsupportedOperationError, match="write totals"):
            await source.copy_to(plain)


async def test_without_books_nothing_is_copied(source: LLMDatabase) -> None:
    assert await source.copy_to(LLMDatabase()) == CopyReport()
    assert await LLMDatabase().copy_to(source) == CopyReport()
