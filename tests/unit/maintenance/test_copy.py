"""A copied database gives the same results as its source, however often the copy was interrupted."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from llmbridge import LLMDatabase, LLMModel, ModelPrice
from llmbridge._maintenance.copy import CopyReport
from llmbridge.errors import StorageError, UnsupportedOperationError
from llmbridge.storage import CallQuery, UsageRow
from llmbridge.storage.memory import MemoryBackend

TODAY = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
DAY = timedelta(days=1)
OLD = TODAY - 30 * DAY


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
    """Purges while its totals are carried, after the first page of them."""

    are_calls_carried = False
    is_purged = False

    async def list_calls(self, query: Any) -> Any:
        self.are_calls_carried = True
        return await super().list_calls(query)

    async def read_totals(self, cursor: str | None = None) -> Any:
        if self.are_calls_carried and cursor is not None and not self.is_purged:
            self.is_purged = True
            await self.purge_calls(TODAY - 10 * DAY)
        return await super().read_totals(cursor)


async def test_a_purge_during_the_copy_loses_nothing() -> None:
    backend = PurgedMeanwhile()
    async with LLMDatabase(backend=backend) as source, LLMDatabase("memory://") as target:
        for number in range(3_000):
            await record(source, TODAY - (number % 60) * DAY + timedelta(minutes=number % 1400), number)
        before = await answers(source)
        await source.purge(TODAY - 30 * DAY)
        backend.are_calls_carried = False
        await source.copy_to(target)
        assert backend.is_purged
        assert await answers(target) == before
        assert await calls(target) == await calls(source)


async def test_a_target_that_has_purged_more_is_refused_before_anything_is_written(
    source: LLMDatabase, target: LLMDatabase
) -> None:
    await target.purge(TODAY - 20 * DAY, force=True)
    with pytest.raises(StorageError, match="the target has purged the days before"):
        await source.copy_to(target)
    assert await calls(target) == []


def own_call(at: datetime, **changes: Any) -> dict[str, Any]:
    """A call of the target's own, which differs from one of the source's in its id, or in more."""
    known = {"origin": "o", "id_at_origin": "u", "provider": "p", "model_name": "m", "estimated_cost": "0.5"}
    return {**known, "called_at": at, **changes}


async def purged_source(source: LLMDatabase) -> None:
    """Two calls of one day, which are purged, and one of today."""
    for at in (OLD, OLD + timedelta(minutes=20), TODAY):
        await source.record_api_call(**own_call(at))
    await source.purge(OLD + DAY)


async def test_what_the_target_has_of_days_that_are_not_purged_stays(target: LLMDatabase) -> None:
    async with LLMDatabase("memory://") as source:
        await purged_source(source)
        for at in (OLD + DAY, TODAY):
            await target.record_api_call(**own_call(at, id_at_origin="own"))
        for _ in range(2):
            await source.copy_to(target)
            assert {row.key["id_at_origin"]: row.calls for row in await target.usage(group_by="id_at_origin")} == {
                "u": 3,
                "own": 2,
            }
            assert (await target.usage())[0].calls == 5
            assert len(await calls(target)) == 3


@pytest.mark.parametrize(
    "own",
    [
        [own_call(OLD)],
        [own_call(OLD, id_at_origin="own")],
        [own_call(OLD), own_call(OLD)],
        [own_call(OLD), own_call(OLD + timedelta(minutes=10))],
        [own_call(OLD, estimated_cost="0.25"), own_call(OLD + timedelta(minutes=20), estimated_cost="0.75")],
        [own_call(OLD - 3 * DAY)],
    ],
)
@pytest.mark.parametrize("are_purged", [False, True])
async def test_a_target_with_something_of_its_own_of_a_purged_day_is_refused_before_anything_is_written(
    target: LLMDatabase, own: list[dict[str, Any]], are_purged: bool
) -> None:
    async with LLMDatabase("memory://") as source:
        await purged_source(source)
        for call in own:
            await target.record_api_call(**call)
        if are_purged:
            await target.purge(OLD + DAY, force=True)
        before = await answers(target), await calls(target), await target.known_models()
        what = "totals" if are_purged else "calls"
        with pytest.raises(StorageError, match=f"purged {own[0]['called_at'].date()}, and the target has {what}"):
            await source.copy_to(target)
        assert (await answers(target), await calls(target), await target.known_models()) == before


async def test_a_user_whom_only_one_side_forgot_is_forgotten_on_the_other_first(
    source: LLMDatabase, target: LLMDatabase
) -> None:
    await source.copy_to(target)
    await source.forget("u3")
    with pytest.raises(StorageError, match="reprice and forget in the target what was"):
        await source.copy_to(target)
    await target.forget("u3")
    await source.copy_to(target)
    assert await answers(target) == await answers(source)


class CutOffInTotals(MemoryBackend):
    """Fails when it has written a page of totals."""

    fails = True

    async def write_totals(self, rows: Any, watermark: Any) -> None:
        await super().write_totals(rows, watermark)
        if rows and self.fails:
            self.fails = False
            raise OSError("gone")


async def test_a_copy_that_was_cut_off_in_the_totals_is_finished_by_the_next() -> None:
    async with LLMDatabase("memory://") as source, LLMDatabase(backend=CutOffInTotals()) as target:
        for number in range(3_000):
            await record(source, TODAY - (number % 60) * DAY + timedelta(minutes=number % 1400), number)
        await source.purge(TODAY - 30 * DAY)
        with pytest.raises(StorageError, match="OSError"):
            await source.copy_to(target)
        assert await answers(target) != await answers(source)
        await source.copy_to(target)
        assert await answers(target) == await answers(source)


class PurgedMidway(MemoryBackend):
    """Purges after the first page of calls was read."""

    async def list_calls(self, query: Any) -> Any:
        page = await super().list_calls(query)
        if query.after is None and page.next is not None:
            await self.purge_calls(TODAY - 10 * DAY)
        return page


async def test_a_purge_in_the_midst_of_a_day_that_is_carried_loses_nothing(target: LLMDatabase) -> None:
    async with LLMDatabase(backend=PurgedMidway()) as source:
        for number in range(1_100):
            await record(source, TODAY - 15 * DAY + timedelta(minutes=number), number)
        before = await answers(source)
        report = await source.copy_to(target)
        assert (report.calls, await calls(source)) == (1_000, [])
        assert await answers(target) == await answers(source) == before


async def test_a_purge_during_the_copy_does_not_take_what_is_the_target_s_own(target: LLMDatabase) -> None:
    async with LLMDatabase(backend=PurgedMidway()) as source:
        for number in range(1_100):
            await record(source, TODAY - 15 * DAY + timedelta(minutes=number), number)
        await target.record_api_call(**own_call(TODAY - 15 * DAY))
        with pytest.raises(StorageError, match=f"purged {(TODAY - 15 * DAY).date()}"):
            await source.copy_to(target)
        assert (await target.usage())[0].calls == len(await calls(target)) == 1_001


async def test_models_and_prices_of_the_target_stay(target: LLMDatabase) -> None:
    def price(rate: int, start: datetime) -> ModelPrice:
        return ModelPrice("p", "m", start, Decimal(rate), Decimal(rate))

    def model(name: str, context: int) -> LLMModel:
        return LLMModel(provider="openai", model_name=name, max_context=context)

    async with LLMDatabase("memory://") as source:
        await source.upsert_models([model("gpt-4o", 1), model("gpt-4o-mini", 1), model("new", 1), model("same", 1)])
        await source.retire_models([("openai", "o3")])
        await source.set_prices([price(1, OLD), price(1, TODAY)])
        await target.upsert_models([model("gpt-4o", 2), model("same", 2)])
        await target.retire_models([("openai", "gpt-4.1")])
        await target.set_prices([price(2, OLD)])
        report = await source.copy_to(target)
        assert (report.models, report.prices) == (3, 1)
        stored = {found.model_name: found for found in await target.list_models("openai", active_only=False)}
        contexts = {name: stored[name].max_context for name in ("gpt-4o", "gpt-4o-mini", "new", "same")}
        assert contexts == {"gpt-4o": 2, "gpt-4o-mini": 1, "new": 1, "same": 2}
        assert (stored["o3"].is_active, stored["gpt-4.1"].is_active) == (False, False)
        assert await target.list_prices() == [price(2, OLD), price(1, TODAY)]
        again = await source.copy_to(target)
        assert (again.models, again.prices) == (0, 0)


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


async def test_without_a_database_nothing_is_copied(source: LLMDatabase) -> None:
    assert await source.copy_to(LLMDatabase()) == CopyReport()
    assert await LLMDatabase().copy_to(source) == CopyReport()
