"""`llmbridge models` shows the facts and rates of a model."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from llmbridge import LLMDatabase, LLMModel, ModelPrice

Command = Callable[..., Any]


@pytest.fixture
def own_models(db_url: str) -> None:
    """A model with a price of its own, one that is retired, one whose name two providers have."""

    async def fill() -> None:
        async with LLMDatabase(db_url) as db:
            for provider, name in (("acme", "one"), ("acme", "old"), ("acme", "twin"), ("other", "twin")):
                await db.upsert_model(LLMModel(provider=provider, model_name=name, max_context=8192))
            await db.retire_models([("acme", "old")])
            price = ModelPrice("acme", "one", datetime(2026, 1, 1, tzinfo=UTC), Decimal("0.15"), Decimal(0))
            await db.set_prices([price])

    asyncio.run(fill())


def test_the_list_has_sizes_capabilities_and_rates(cli: Command, db_url: str) -> None:
    header, *rows = cli("models", "list", "--provider", "openai").out.splitlines()
    assert header.split() == ["model", "context", "output", "$/M", "in", "$/M", "out", "can"]
    [mini] = [row.split() for row in rows if row.startswith("openai:gpt-4o-mini ")]
    assert mini[:5] == ["openai:gpt-4o-mini", "128,000", "16,384", "0.15", "0.6"]
    assert all(row.startswith("openai:") for row in rows)


def test_retired_models_are_listed_when_asked_for(cli: Command, own_models: None) -> None:
    def names(*options: str) -> list[str]:
        found = cli("models", "list", "--provider", "acme", "--json", *options).document["models"]
        return [model["model_name"] for model in found]

    assert names() == ["one", "twin"]
    assert names("--all") == ["old", "one", "twin"]
    assert "retired" in cli("models", "list", "--all", "--provider", "acme").out


def test_show_has_the_rates_in_force_and_their_source(cli: Command, own_models: None) -> None:
    shown = cli("models", "show", "acme:one").out
    assert "own price from 2026-01-01T00:00:00+00:00" in shown
    assert ["input:", "0.15"] in [line.split() for line in shown.splitlines()]
    assert ["output:", "0"] in [line.split() for line in shown.splitlines()]
    document = cli("models", "show", "acme:one", "--json").document
    assert document["rates"]["source"] == "own_prices"
    assert document["rates"]["bands"][0]["input"] == "0.15"
    assert document["rates"]["bands"][0]["cache_read"] is None
    assert (document["active"], document["source"]) == (True, "user")


def test_show_names_the_price_list_and_the_catalog(cli: Command, db_url: str) -> None:
    shown = cli("models", "show", "openai:gpt-4o-mini").out
    assert "list price of genai-prices" in shown
    assert "catalog" in shown


def test_a_name_that_one_provider_has_needs_no_provider(cli: Command, own_models: None) -> None:
    assert cli("models", "show", "one", "--json").document["provider"] == "acme"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("twin", "several providers: acme:twin, other:twin"),
        ("openai:gpt-4o-mimi", "did you mean openai:gpt-4o-mini"),
        ("zzz", "models list --all"),
    ],
)
def test_an_unknown_model_is_a_mistake(cli: Command, own_models: None, name: str, said: str) -> None:
    result = cli("models", "show", name)
    assert (result.code, result.out) == (2, "")
    assert said in result.err


@pytest.mark.parametrize(
    ("provider", "said"),
    [
        ("opnai", "the database has no model of 'opnai'; did you mean openai?"),
        ("zzz", "the database has no model of 'zzz'; there are models of acme, "),
        ("gone", "all models of 'gone' are retired: add --all"),
    ],
)
def test_a_list_of_nothing_says_why(cli: Command, own_models: None, db_url: str, provider: str, said: str) -> None:
    async def retire() -> None:
        async with LLMDatabase(db_url) as db:
            await db.upsert_model(LLMModel(provider="gone", model_name="m"))
            await db.retire_models([("gone", "m")])

    asyncio.run(retire())
    result = cli("models", "list", "--provider", provider, "--json")
    assert (result.code, result.document) == (0, {"models": []})
    assert said in result.err


def test_an_id_is_text_for_programs_that_read_numbers_as_floats(cli: Command, db_url: str) -> None:
    ids = [model["id"] for model in cli("models", "list", "--json").document["models"]]
    assert all(isinstance(one, str) for one in ids)
    assert any(int(one) > 2**53 for one in ids)
    shown = cli("models", "show", "openai:gpt-4o", "--json").document["id"]
    assert shown in ids


def test_sizes_that_nobody_knows_are_unknown(cli: Command, own_models: None) -> None:
    lines = cli("models", "show", "acme:one").out.splitlines()
    assert "context:           8,192 tokens" in lines
    assert "most output:       unknown" in lines
