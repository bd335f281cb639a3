"""Queries over models: by features, by size, by price, and the cost of a call."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from llmbridge import LLMBridge, LLMDatabase, LLMModel, Message, ModelPrice
from llmbridge._models import catalog
from llmbridge._models.queries import PricedModel, Span
from llmbridge.errors import ModelNotFoundError, ProviderNotFoundError

SINCE = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
async def db(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[LLMDatabase]:
    """A database with four models of two providers: one is retired, one has no price, one is free."""
    monkeypatch.setattr(catalog, "models", list)
    async with LLMDatabase("memory://") as opened:
        described: list[dict[str, Any]] = [
            {
                "provider": "acme",
                "model_name": "large",
                "max_context": 200_000,
                "max_output_tokens": 8_000,
                "supports_vision": True,
                "supports_function_calling": True,
                "description": "Reads long papers",
            },
            {"provider": "acme", "model_name": "old", "max_context": 8_000},
            {"provider": "free", "model_name": "large-free", "max_context": 32_000, "supports_json_mode": True},
            {"provider": "free", "model_name": "secret", "display_name": "The Secret"},
        ]
        await opened.upsert_models([LLMModel(**one) for one in described])
        await opened.retire_models([("acme", "old")])
        await opened.set_prices(
            [
                ModelPrice("acme", "large", SINCE, Decimal(3), Decimal(15), Decimal("0.3")),
                ModelPrice("acme", "old", SINCE, Decimal(1), Decimal(1)),
                ModelPrice("free", "large-free", SINCE, Decimal(0), Decimal("0.1")),
            ]
        )
        yield opened


def names(found: list[PricedModel]) -> list[str]:
    return [model.name for model in found]


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ({}, ["acme:large", "free:large-free", "free:secret"]),
        ({"active_only": False}, ["acme:large", "acme:old", "free:large-free", "free:secret"]),
        ({"provider": "acme"}, ["acme:large"]),
        ({"provider": ["acme", "free"], "vision": True}, ["acme:large"]),
        ({"vision": False}, ["free:large-free", "free:secret"]),
        ({"vision": True, "function_calling": True, "parallel_tool_calls": None}, ["acme:large"]),
        ({"parallel_tool_calls": True}, []),
        ({"json_mode": True}, ["free:large-free"]),
        ({"min_context": 200_000}, ["acme:large"]),
        ({"min_context": 200_001}, []),
        ({"max_context": 32_000}, ["free:large-free"]),
        ({"min_output_tokens": 8_000}, ["acme:large"]),
        ({"max_input_rate": 0}, ["free:large-free"]),
        ({"max_input_rate": "3.000000000000"}, ["acme:large", "free:large-free"]),
        ({"max_input_rate": 2.9}, ["free:large-free"]),
        ({"min_input_rate": Decimal("0.000000000001")}, ["acme:large"]),
        ({"min_output_rate": "0.1", "max_output_rate": "14.99"}, ["free:large-free"]),
    ],
    ids=str,
)
async def test_models_are_found_by_what_they_can_and_ask(db: LLMDatabase, wanted: Any, found: list[str]) -> None:
    assert names(await db.models.find(**wanted)) == found


async def test_a_filter_of_another_name_is_refused(db: LLMDatabase) -> None:
    misspelt: Any = {"function_caling": True}
    for asked in (db.models.find(**misspelt), db.models.search("", **misspelt), db.models.cheapest(1, 1, **misspelt)):
        with pytest.raises(TypeError, match="'function_caling'; known: provider, vision, function_calling"):
            await asked


async def test_a_bound_that_is_no_amount_is_refused(db: LLMDatabase) -> None:
    with pytest.raises(ValueError, match="dollars"):
        await db.models.find(max_input_rate="cheap")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("LARGE", ["acme:large", "free:large-free"]),
        ("free large", ["free:large-free"]),
        ("the secret", ["free:secret"]),
        ("papers", ["acme:large"]),
        ("acme papers", ["acme:large"]),
        ("old", []),
        ("", ["acme:large", "free:large-free", "free:secret"]),
    ],
)
async def test_words_are_looked_for_in_names_and_descriptions(db: LLMDatabase, text: str, found: list[str]) -> None:
    assert names(await db.models.search(text)) == found


async def test_a_word_in_a_name_counts_more_than_one_in_a_description(db: LLMDatabase) -> None:
    await db.upsert_model(LLMModel(provider="zeta", model_name="paper", max_context=1))
    assert names(await db.models.search("paper")) == ["zeta:paper", "acme:large"]
    assert names(await db.models.search("paper", min_context=2)) == ["acme:large"]


async def test_a_model_that_nobody_has_confirmed_for_a_year_is_not_recommended() -> None:
    async with LLMDatabase("memory://") as opened:
        recommended = {one.model.name for one in await opened.models.cheapest(1, 1)}
        every = {one.model.name: one.model.model for one in await opened.models.cheapest(1, 1, active_only=False)}
    for name, model in every.items():
        origin = catalog.origin(model.provider, model.model_name)
        assert origin is not None
        retired = origin.retires is not None and origin.retires <= catalog.today()
        assert (name in recommended) == (not retired and (catalog.today() - origin.confirmed).days <= 365)
    assert "google:gemini-1.5-flash" in every.keys() - recommended


async def test_a_database_learns_that_a_model_of_the_catalog_is_retired(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"sqlite:///{tmp_path / 'calls.db'}"
    for day, active in ((date(2026, 10, 22), True), (date(2026, 10, 23), False), (date(2026, 10, 22), False)):
        monkeypatch.setattr(catalog, "today", lambda day=day: day)
        async with LLMDatabase(url) as opened:
            (found,) = await opened.list_models("openai", model_name="gpt-4", active_only=False)
            assert found.is_active is active


async def test_the_cheapest_for_so_many_tokens_come_first(db: LLMDatabase) -> None:
    found = await db.models.cheapest(10_000, 1_000)
    assert [(one.model.name, one.cost) for one in found] == [
        ("free:large-free", Decimal("0.0001")),
        ("acme:large", Decimal("0.045")),
    ]
    assert [one.model.name for one in await db.models.cheapest(32_001, 1)] == ["acme:large"]
    assert [one.model.name for one in await db.models.cheapest(1, 8_001)] == ["free:large-free"]
    assert [one.model.name for one in await db.models.cheapest(1, 1, vision=True)] == ["acme:large"]


async def test_models_of_one_price_stand_in_order_of_their_names(db: LLMDatabase) -> None:
    await db.set_prices([ModelPrice("free", "secret", SINCE, Decimal(0), Decimal("0.1"))])
    assert [one.model.name for one in await db.models.cheapest(5, 0)][:2] == ["free:large-free", "free:secret"]


async def test_a_call_costs_what_its_prices_say(db: LLMDatabase) -> None:
    price = await db.models.cost("acme:large", 1_000_000, 10, cache_read_tokens=400_000)
    assert price.cost == Decimal("0.6") * 3 + Decimal("0.12") + Decimal("0.00015")
    assert (await db.models.cost("large", 1, 0)).cost == Decimal("0.000003")
    assert (await db.models.cost("acme:large", 10, 0, cache_write_tokens=10)).reason == "missing_rate"
    assert (await db.models.cost("free:secret", 1, 1)).reason == "unknown_model"
    assert (await db.models.cost("openai:gpt-4o-mini-2024-07-18", 10**6, 0)).cost == Decimal("0.15")
    with pytest.raises(ProviderNotFoundError):
        await db.models.cost("nobody:nothing", 1, 1)
    with pytest.raises(ModelNotFoundError):
        await db.models.cost("nothing", 1, 1)


async def test_tokens_below_zero_cost_nothing_that_anybody_knows(db: LLMDatabase) -> None:
    for asked in (
        db.models.cost("acme:large", -1, 1),
        db.models.cost("acme:large", 1, 1, cache_read_tokens=-1),
        db.models.cheapest(1, -1),
    ):
        with pytest.raises(ValueError, match="_tokens is -1"):
            await asked


async def test_a_conversation_is_estimated_by_its_text(db: LLMDatabase) -> None:
    messages: list[Any] = [
        Message(role="system", content="x" * 4001),
        {
            "role": "user",
            "content": [{"type": "text", "text": "y" * 3998}, {"type": "image_url", "image_url": "z" * 999}],
        },
        Message(role="assistant", content=None),
    ]
    estimate = await db.models.estimate("acme:large", messages)
    assert (estimate.prompt_tokens, estimate.completion_tokens) == (2000, 1000)
    assert estimate.cost == Decimal("0.006") + Decimal("0.015")
    assert (await db.models.estimate("acme:large", messages[:1])).completion_tokens == 500
    assert (await db.models.estimate("acme:large", messages, 0)).cost == Decimal("0.006")
    unknown = await db.models.estimate("free:secret", messages)
    assert (unknown.cost, unknown.reason) == (None, "unknown_model")


async def test_statistics_are_exact_and_by_provider(db: LLMDatabase) -> None:
    found = await db.models.statistics()
    assert (found.total, found.active, found.retired, found.priced) == (4, 3, 1, 2)
    assert (found.vision, found.function_calling, found.json_mode, found.parallel_tool_calls) == (1, 1, 1, 0)
    assert found.input_rates == Span(least=Decimal(0), greatest=Decimal(3), mean=Decimal("1.5"))
    assert found.context == Span(least=Decimal(32_000), greatest=Decimal(200_000), mean=Decimal(116_000))
    assert list(found.providers) == ["acme", "free"]
    assert (found.providers["acme"].retired, found.providers["free"].priced) == (1, 1)
    assert found.providers["free"].output_rates.mean == Decimal("0.1")


async def test_nothing_is_known_of_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog, "models", list)
    found = await LLMDatabase().models.statistics()
    assert (found.total, found.input_rates, found.providers) == (0, Span(), {})


async def test_without_a_database_the_bundled_models_are_returned() -> None:
    bridge = LLMBridge()
    assert "openai:gpt-4o-mini" in names(await bridge.models.find(provider="openai", vision=True))
    cheapest = await bridge.models.cheapest(1000, 100, provider="openai")
    assert cheapest[0].cost == min(one.cost for one in cheapest)
    assert all(isinstance(one.cost, Decimal) for one in cheapest)


async def test_a_registered_provider_is_priced_by_its_list() -> None:
    async with LLMBridge("memory://") as bridge:
        bridge.register_provider("mine", kind="echo", priced_as="openai")
        assert (await bridge.models.cost("mine:gpt-4o-mini", 10**6, 0)).cost == Decimal("0.15")
        assert bridge.db is not None
        await bridge.db.upsert_model(LLMModel(provider="mine", model_name="gpt-4o-mini"))
        (found,) = await bridge.models.find(provider="mine")
        assert found.rates.input == Decimal("0.15")
