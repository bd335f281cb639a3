"""Recorded calls get the cost by the current prices, and sums change by the same amount, to the last digit."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from llmbridge import CallRecord, LLMBridge, LLMDatabase, LLMRequest, Message, ModelPrice
from llmbridge._maintenance.reprice import RepriceReport
from llmbridge.errors import RecordRejectedError
from llmbridge.storage.memory import MemoryBackend

START = datetime(2026, 3, 1, tzinfo=UTC)
MILLION = {"prompt_tokens": 10**6, "completion_tokens": 0}


@pytest.fixture
async def db() -> AsyncIterator[LLMDatabase]:
    async with LLMDatabase("memory://") as opened:
        yield opened


async def record(db: LLMDatabase, **changes: Any) -> CallRecord:
    known = {"origin": "o", "provider": "acme", "model_name": "m", "called_at": START, **MILLION}
    call_id = await db.record_api_call(**{**known, **changes})
    assert call_id is not None
    return await read(db, call_id)


async def read(db: LLMDatabase, call_id: Any) -> CallRecord:
    call = await db.get_call_record(call_id)
    assert call is not None
    return call


async def price(db: LLMDatabase, rate: str, start: datetime = START, **rates: Decimal | None) -> None:
    await db.set_prices([ModelPrice("acme", "m", start, Decimal(rate), Decimal(rate), **rates)])


async def test_a_call_without_a_price_gets_the_one_that_was_set_later(db: LLMDatabase) -> None:
    call = await record(db)
    assert call.cost_reason == "unknown_model"
    await price(db, "0.1")
    report = await db.reprice(START)
    assert (report.examined, report.changed, report.cost_before, report.cost_after) == (1, 1, 0, Decimal("0.1"))
    repriced = await read(db, call.id)
    assert (repriced.estimated_cost, repriced.cost_source, repriced.cost_reason) == (Decimal("0.1"), "own_prices", None)
    assert (repriced.previous_cost, repriced.previous_cost_reason) == (None, "unknown_model")
    assert repriced.price_version == START.isoformat()
    assert repriced.repriced_at is not None
    (row,) = await db.usage()
    assert (row.cost, row.unpriced_calls) == (Decimal("0.1"), 0)


async def test_each_call_gets_the_price_in_force_when_it_was_made(db: LLMDatabase) -> None:
    await price(db, "1")
    calls = [await record(db, called_at=START + timedelta(hours=hour)) for hour in (0, 1, 2)]
    await price(db, "3", START + timedelta(hours=1))
    await db.reprice(START)
    assert [(await read(db, call.id)).estimated_cost for call in calls] == [1, 3, 3]
    assert [(await read(db, call.id)).previous_cost for call in calls] == [None, 1, 1]


async def test_a_second_run_changes_nothing(db: LLMDatabase) -> None:
    await record(db)
    await price(db, "2")
    assert (await db.reprice(START)).changed == 1
    again = await db.reprice(START)
    assert (again.examined, again.changed, again.cost_before, again.cost_after) == (1, 0, 2, 2)


async def test_a_dry_run_tells_the_same_and_writes_nothing(db: LLMDatabase) -> None:
    call = await record(db)
    await price(db, "2")
    dry = await db.reprice(START, dry_run=True)
    assert await read(db, call.id) == call
    wet = await db.reprice(START)
    assert (dry.dry_run, wet.dry_run) == (True, False)
    assert (dry.examined, dry.changed, dry.cost_after, dry.models) == (
        wet.examined,
        wet.changed,
        wet.cost_after,
        wet.models,
    )


async def test_what_no_price_list_decided_is_left_alone(db: LLMDatabase) -> None:
    kept = [
        await record(db, estimated_cost="0.5"),
        await record(db, estimated_cost="0.25", cost_source="provider"),
        await record(db, cost_reason="not_billed", status="error"),
        await record(db, usage_source="synthetic"),
        await record(db, provider="nobody"),
        await record(db, prompt_tokens=None),
    ]
    await price(db, "2")
    report = await db.reprice(None)
    assert [await read(db, call.id) for call in kept] == kept
    assert (report.examined, report.changed, report.given, report.without_price) == (6, 0, 2, 1)
    assert report.cost_before == report.cost_after == Decimal("0.75")


async def test_a_price_that_lacks_a_rate_that_is_needed_says_so(db: LLMDatabase) -> None:
    await price(db, "1", cache_read=Decimal("0.1"))
    call = await record(db, cache_read_tokens=10**6)
    assert call.estimated_cost == Decimal("0.1")
    await price(db, "1")
    report = await db.reprice(START)
    (model,) = report.models
    assert (model.unpriced_before, model.unpriced_after, model.cost_before, model.cost_after) == (
        0,
        1,
        call.estimated_cost,
        0,
    )
    repriced = await read(db, call.id)
    assert (repriced.estimated_cost, repriced.cost_reason, repriced.previous_cost) == (
        None,
        "missing_rate",
        Decimal("0.1"),
    )


@pytest.mark.parametrize(
    ("provider", "counted", "cost"),
    [
        ("openai", {"price_context": {"service_tier": "priority"}}, "2.5"),
        ("openai", {"usage_details": {"web_searches": 100}}, "2.25"),
        ("azure", {"price_context": {"service_tier": "priority"}}, "1.25"),
    ],
)
async def test_all_counts_and_the_price_context_of_a_call_decide_its_new_cost(
    db: LLMDatabase, provider: str, counted: dict[str, Any], cost: str
) -> None:
    known = {"provider": provider, "model_name": "gpt-5", "called_at": datetime(2026, 11, 20, tzinfo=UTC)}
    call = await record(db, cost_reason="unknown_model", **known, **counted)
    await db.reprice(START)
    repriced = await read(db, call.id)
    assert (repriced.estimated_cost, repriced.cost_source) == (Decimal(cost), "prices")
    note = ", context service_tier=priority not priced"
    assert (repriced.price_version or "").endswith(note) == (provider == "azure")


async def test_range_and_filters_choose_the_calls(db: LLMDatabase) -> None:
    hour = timedelta(hours=1)
    wanted = await record(db, called_at=START + hour, id_at_origin="ann")
    for changes in (
        {"called_at": START + hour - timedelta(microseconds=1)},
        {"called_at": START + 2 * hour},
        {"called_at": START + hour, "origin": "other"},
        {"called_at": START + hour, "id_at_origin": "bob"},
    ):
        await record(db, **{"id_at_origin": "ann", **changes})
    await price(db, "2", START - hour)
    report = await db.reprice(START + hour, START + 2 * hour, origin="o", id_at_origin="ann", provider="acme")
    assert (report.examined, report.changed) == (1, 1)
    assert (await read(db, wanted.id)).estimated_cost == 2
    assert (await db.usage())[0].unpriced_calls == 4


class Watched(MemoryBackend):
    """Remembers how large the transactions were, and may fail one."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []
        self.fail_at: int | None = None

    async def reprice_calls(self, changes: Any) -> int:
        if self.fail_at == len(self.sizes):
            raise OSError("gone")
        self.sizes.append(len(changes))
        return await super().reprice_calls(changes)


async def test_many_calls_go_in_pages_and_a_run_that_failed_is_finished_by_the_next() -> None:
    backend = Watched()
    seen: list[RepriceReport] = []
    async with LLMDatabase(backend=backend) as db:
        fields = {"origin": "o", "provider": "acme", "prompt_tokens": 1, "completion_tokens": 0}
        calls = [
            {**fields, "model_name": f"m{n % 3}", "called_at": START + timedelta(seconds=n // 7)} for n in range(2500)
        ]
        for call in calls:
            await db.record_api_call(**call)
        prices = [ModelPrice("acme", f"m{n}", START, Decimal(f"0.00000{n + 1}"), Decimal(0)) for n in range(3)]
        await db.set_prices(prices)
        backend.fail_at = 1
        with pytest.raises(Exception, match="OSError"):
            await db.reprice(START)
        backend.fail_at = None
        report = await db.reprice(START, on_page=seen.append)
        rows = await db.usage(group_by="model_name")
        (total,) = await db.usage()
    assert backend.sizes == [1000, 1000, 500]
    assert [page.examined for page in seen] == [1000, 2000, 2500]
    assert (report.examined, report.changed) == (2500, 1500)
    exact = {f"m{n}": (834 - (n > 0)) * Decimal(f"0.00000{n + 1}").scaleb(-6) for n in range(3)}
    assert {row.key["model_name"]: row.cost for row in rows} == exact
    assert {model.model_name: model.cost_after for model in report.models} == exact
    assert report.cost_after == total.cost == sum(exact.values())


async def test_another_process_s_prices_count_at_once() -> None:
    async with LLMDatabase("memory://repricing") as one, LLMDatabase("memory://repricing") as other:
        await record(one)
        await price(other, "2")
        assert (await one.reprice(START)).cost_after == 2


async def test_a_call_is_repriced_by_the_list_that_priced_it() -> None:
    async with LLMBridge("memory://", origin="o") as bridge:
        bridge.register_provider("mine", kind="echo", priced_as="openai")
        assert bridge.db is not None
        kept, _ = await bridge.db.keep(
            {"origin": "o", "provider": "mine", "model_name": "gpt-4o", "called_at": START, **MILLION}, "openai"
        )
        assert kept is not None
        assert kept.price_version is not None
        assert kept.price_version.endswith(", list of openai, entry gpt-4o")
        report = await bridge.db.reprice(None)
        assert (report.examined, report.changed, report.without_price) == (1, 0, 0)
        unknown = await record(bridge.db, provider="mine", model_name="gpt-4o")
        assert (await bridge.db.reprice(None)).without_price == 1
        assert (await bridge.db.reprice(None, priced_as={"mine": "openai"})).changed == 1
        assert (await read(bridge.db, unknown.id)).estimated_cost == kept.estimated_cost
        await bridge.chat(LLMRequest(model="mine:x", messages=[Message(role="user", content="Hi")]))


async def test_another_list_is_for_calls_that_none_has_priced(db: LLMDatabase) -> None:
    listed = await record(db, provider="anthropic", model_name="claude-3-5-haiku-latest")
    assert listed.cost_source == "prices"
    unknown = await record(db, provider="anthropic", model_name="gpt-4o")
    assert unknown.cost_reason == "unknown_model"
    report = await db.reprice(None, priced_as={"anthropic": "openai"})
    assert (report.changed, report.without_price) == (1, 0)
    assert await read(db, listed.id) == listed
    assert (await read(db, unknown.id)).estimated_cost is not None
    once = await read(db, unknown.id)
    assert (await db.reprice(None, priced_as={"anthropic": "azure"})).changed == 0
    assert await read(db, unknown.id) == once


async def test_a_list_that_nobody_has_is_no_list(db: LLMDatabase) -> None:
    await record(db, provider="mine", model_name="gpt-4o")
    with pytest.raises(ValueError, match="no price list of a provider 'opnai'; did you mean openai"):
        await db.reprice(None, priced_as={"mine": "opnai"})
    assert (await db.reprice(None, priced_as={"mine": "OpenAI-Chat"})).changed == 1


@pytest.mark.parametrize("dry_run", [False, True])
async def test_a_cost_that_no_row_can_hold_is_refused_and_names_its_call(db: LLMDatabase, dry_run: bool) -> None:
    call = await record(db, prompt_tokens=2 * 10**6)
    await price(db, "4500000")
    with pytest.raises(RecordRejectedError, match=f"the new cost of call {call.id} to acme:m: .* below 9,000,000"):
        await db.reprice(None, dry_run=dry_run)
    assert await read(db, call.id) == call
    await price(db, "4499999")
    assert (await db.reprice(None, dry_run=dry_run)).cost_after == 8_999_998


async def test_without_a_database_there_is_nothing_to_reprice() -> None:
    report = await LLMDatabase().reprice(START)
    assert (report.examined, report.changed, report.models) == (0, 0, ())
