"""Prices that another process changed are read before the next call is priced, whatever the database does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from llmbridge import CallRecord, LLMDatabase, LLMModel, ModelPrice
from llmbridge.errors import StorageUnavailableError
from llmbridge.storage.memory import MemoryBackend

SINCE = datetime(2026, 1, 1, tzinfo=UTC)
NEVER = 3600.0


class Watched(MemoryBackend):
    """A store that other processes use too, whose prices are read when `lets_read` is set, or not at all when it is
    `away`."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.readings = 0
        self.away = False
        self.lets_read = asyncio.Event()
        self.lets_read.set()

    async def list_prices(self, provider: str | None = None, model_name: str | None = None) -> list[ModelPrice]:
        self.readings += 1
        if self.away:
            raise StorageUnavailableError("gone")
        found = await super().list_prices(provider, model_name)
        await self.lets_read.wait()
        return found


@pytest.fixture
def backend(request: pytest.FixtureRequest) -> Watched:
    return Watched(request.node.name)


@pytest.fixture
async def db(backend: Watched) -> AsyncIterator[LLMDatabase]:
    """A database that was not used since it was opened."""
    async with LLMDatabase(backend=backend) as opened:
        yield opened


@pytest.fixture
async def other(request: pytest.FixtureRequest) -> AsyncIterator[LLMDatabase]:
    """The same database in another process."""
    async with LLMDatabase(f"memory://{request.node.name}") as opened:
        yield opened


@pytest.fixture
def idle(db: LLMDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever was read is old at once, and readings are waited for without end."""
    monkeypatch.setattr("llmbridge._pricing.own_prices.PRICES_MAX_AGE", 0.0)
    monkeypatch.setattr("llmbridge._pricing.own_prices.PRICES_TIMEOUT", NEVER)


def own_price(rate: int, day: int = 1) -> ModelPrice:
    return ModelPrice("acme", "m", SINCE.replace(day=day), Decimal(rate), Decimal(rate))


async def cost(db: LLMDatabase) -> Decimal | None:
    """What a call of a million tokens costs, by its record."""
    call_id = await db.record_api_call(
        origin="o", provider="acme", model_name="m", prompt_tokens=10**6, completion_tokens=0
    )
    call = await db.get_call_record(call_id) if call_id is not None else None
    assert isinstance(call, CallRecord)
    return call.estimated_cost


async def reread(db: LLMDatabase) -> None:
    """Have the prices read once under the settings of the test."""
    await db.set_prices([])


async def is_reading(backend: Watched, readings: int) -> None:
    while backend.readings < readings:
        await asyncio.sleep(0)


async def test_the_first_call_after_an_idle_time_has_the_price_in_force(
    db: LLMDatabase, other: LLMDatabase, idle: None
) -> None:
    await reread(db)
    for rate in (1, 2):
        await other.set_prices([own_price(rate, day=rate)])
        assert await cost(db) == rate


async def test_questions_about_models_have_the_price_in_force(db: LLMDatabase, other: LLMDatabase, idle: None) -> None:
    await db.upsert_model(LLMModel(provider="acme", model_name="m"))
    for rate in (1, 2):
        await other.set_prices([own_price(rate, day=rate)])
        assert (await db.models.cost("acme:m", 10**6, 0)).cost == rate
        await other.set_prices([own_price(rate + 2, day=rate)])
        (found,) = await db.models.find(provider="acme")
        assert found.rates.input == rate + 2
        await other.set_prices([own_price(rate + 4, day=rate)])
        (cheapest,) = await db.models.cheapest(10**6, 0, provider="acme")
        assert cheapest.cost == rate + 4


async def test_while_prices_are_fresh_nothing_is_read(db: LLMDatabase, backend: Watched) -> None:
    await cost(db)
    before = backend.readings
    for _ in range(3):
        await cost(db)
        await db.models.find(provider="acme")
    assert backend.readings == before


async def test_calls_that_come_together_wait_for_one_reading(
    db: LLMDatabase, other: LLMDatabase, backend: Watched, idle: None
) -> None:
    await reread(db)
    await other.set_prices([own_price(3)])
    backend.lets_read.clear()
    before = backend.readings
    asking = asyncio.gather(*(cost(db) for _ in range(20)))
    await is_reading(backend, before + 1)
    for _ in range(20):
        await asyncio.sleep(0)
    backend.lets_read.set()
    assert await asking == [3] * 20
    assert backend.readings == before + 1


async def test_while_the_store_is_away_calls_are_priced_by_what_is_known(
    db: LLMDatabase, backend: Watched, idle: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    await db.set_prices([own_price(3)])
    monkeypatch.setattr("llmbridge._pricing.own_prices.PRICES_RETRY", NEVER)
    backend.away = True
    before = backend.readings
    assert [await cost(db), await cost(db)] == [3, 3]
    assert backend.readings == before + 1


async def test_after_a_reading_that_failed_nobody_waits_until_one_has_succeeded(
    db: LLMDatabase, other: LLMDatabase, backend: Watched, idle: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    await db.set_prices([own_price(3)])
    await other.set_prices([own_price(4)])
    monkeypatch.setattr("llmbridge._pricing.own_prices.PRICES_RETRY", 0.0)
    backend.away = True
    assert await cost(db) == 3
    backend.away = False
    backend.lets_read.clear()
    before = backend.readings
    async with asyncio.timeout(60):
        assert await cost(db) == 3
        await is_reading(backend, before + 1)
        backend.lets_read.set()
        while await cost(db) == 3:
            pass
    await other.set_prices([own_price(5)])
    assert await cost(db) == 5


async def test_a_reading_that_hangs_keeps_no_call_for_long(
    db: LLMDatabase, other: LLMDatabase, backend: Watched, idle: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmbridge._pricing.own_prices.PRICES_TIMEOUT", 0.01)
    await db.set_prices([own_price(3)])
    await other.set_prices([own_price(4)])
    backend.lets_read.clear()
    before = backend.readings
    assert [await cost(db), await cost(db)] == [3, 3]
    assert backend.readings == before + 1
    assert "llmbridge-prices" in {task.get_name() for task in asyncio.all_tasks()}
    await db.close()
    assert "llmbridge-prices" not in {task.get_name() for task in asyncio.all_tasks()}


async def test_a_reading_that_began_earlier_does_not_undo_what_was_set_since(
    db: LLMDatabase, backend: Watched, idle: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    await reread(db)
    slow = backend.lets_read
    slow.clear()
    before = backend.readings
    asking = asyncio.create_task(cost(db))
    await is_reading(backend, before + 1)
    monkeypatch.setattr("llmbridge._pricing.own_prices.PRICES_MAX_AGE", NEVER)
    backend.lets_read = asyncio.Event()
    backend.lets_read.set()
    await db.set_prices([own_price(7)])
    slow.set()
    assert await asking == 7
    assert await cost(db) == 7


async def test_a_caller_who_leaves_while_prices_are_read_leaves_his_call(
    db: LLMDatabase, backend: Watched, idle: None
) -> None:
    await db.set_prices([own_price(3)])
    backend.lets_read.clear()
    before = backend.readings
    asking = asyncio.create_task(cost(db))
    await is_reading(backend, before + 1)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    backend.lets_read.set()
    await db.close()
    assert db.metrics()["calls_committed"] == 1


async def test_rates_become_prices_where_another_process_changed_those_in_force(
    db: LLMDatabase, other: LLMDatabase
) -> None:
    def model(rate: int) -> LLMModel:
        rates = {name: Decimal(rate) for name in ("input", "output")}
        return LLMModel(
            provider="acme", model_name="m", **{f"dollars_per_million_tokens_{k}": v for k, v in rates.items()}
        )

    await db.upsert_model(model(1))
    await other.update_model_costs("acme", "m", 2, 2)
    await db.upsert_model(model(1))
    assert await cost(db) == 1
    await other.update_model_costs("acme", "m", 2, 2)
    await db.update_model_costs("acme", "m", 1, 1)
    assert await cost(db) == 1
    await other.update_model_costs("acme", "m", 2, 3)
    await db.update_model_costs("acme", "m", 1, None)
    assert [(price.input, price.output) for price in await db.list_prices("acme")][-1] == (1, 3)
