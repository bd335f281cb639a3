"""A call costs what its provider charges on the terms that its answer told, or its record names those without price."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import pytest
from genai_prices.data import providers

from llmbridge._pricing import contexts
from llmbridge._pricing.price_book import Price, PriceBook, list_used
from llmbridge.schemas import TokenUsage

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


def price(model: str, context: dict[str, str] | None = None, at: datetime = NOW, priced_as: str | None = None) -> Price:
    """What a million tokens of input and 100,000 of output cost."""
    usage = TokenUsage(prompt_tokens=10**6, completion_tokens=10**5, price_context=context)
    provider, _, name = model.partition(":")
    return PriceBook().price(provider, name, usage, at, priced_as=priced_as)


@pytest.mark.parametrize(
    ("model", "context", "cost"),
    [
        ("openai:gpt-5", None, "2.25"),
        ("openai:gpt-5", {}, "2.25"),
        ("openai:gpt-5", {"service_tier": "default"}, "2.25"),
        ("openai:gpt-5", {"service_tier": "priority"}, "4.50"),
        ("openai:gpt-5", {"service_tier": "Priority"}, "4.50"),
        ("openai:gpt-5", {"service_tier": "flex"}, "1.125"),
        ("openai:gpt-5", {"processing": "batch"}, "1.125"),
        ("openai:gpt-4o", {"service_tier": "priority"}, "5.95"),
        ("anthropic:claude-opus-4-8", {"service_tier": "standard", "speed": "standard"}, "7.50"),
        ("anthropic:claude-opus-4-8", {"service_tier": "standard", "speed": "fast"}, "15"),
        ("anthropic:claude-opus-4-8", {"service_tier": "batch", "inference_geo": "not_available"}, "3.75"),
        ("google:gemini-3.8-flash-tts", {"traffic_type": "ON_DEMAND"}, None),
    ],
)
def test_the_terms_that_the_answer_told_have_their_own_price(
    model: str, context: dict[str, str] | None, cost: str | None
) -> None:
    found = price(model, context)
    assert found.cost == (price(model).cost if cost is None else Decimal(cost))
    assert found.version == price(model).version


def test_terms_are_understood_in_the_spelling_of_each_provider() -> None:
    standard, flex, priority = (
        price("google:gemini-3.8-flash-tts", terms).cost
        for terms in (None, {"service_tier": "flex"}, {"service_tier": "priority"})
    )
    assert None is not flex < standard < priority  # type: ignore[operator]
    for spelled, cost in (("ON_DEMAND_FLEX", flex), ("ON_DEMAND_PRIORITY", priority), ("ON_DEMAND", standard)):
        assert price("google:gemini-3.8-flash-tts", {"traffic_type": spelled}).cost == cost


@pytest.mark.parametrize(
    ("model", "context", "note"),
    [
        ("azure:gpt-5", {"service_tier": "priority"}, ", context service_tier=priority not priced"),
        ("azure:gpt-5", {"service_tier": "default"}, ""),
        ("openai:gpt-5", {"service_tier": "scale"}, ", context service_tier=scale not priced"),
        ("openai:gpt-3.5-turbo", {"service_tier": "priority"}, ", context service_tier=priority not priced"),
        (
            "anthropic:claude-opus-4-8",
            {"speed": "slow", "inference_geo": "us"},
            ", context inference_geo=us not priced, context speed=slow not priced",
        ),
    ],
)
def test_terms_without_a_price_leave_the_standard_price_and_are_named(
    model: str, context: dict[str, str], note: str
) -> None:
    standard, found = price(model), price(model, context)
    assert found.cost == standard.cost is not None
    assert found.version == f"{standard.version}{note}"


def test_a_list_that_is_resold_keeps_the_standard_price() -> None:
    assert price("azure:gpt-5", {"service_tier": "priority"}).cost == Decimal("2.25")
    shop = price("shop:gpt-5", {"service_tier": "priority"}, priced_as="azure")
    assert shop.cost == Decimal("2.25")
    assert list_used(shop.version) == "azure"
    assert (shop.version or "").endswith(", list of azure, entry gpt-5, context service_tier=priority not priced")


def test_terms_have_no_price_before_the_date_from_which_it_holds() -> None:
    variants = next(
        variant
        for provider in providers
        if provider.id == "openai"
        for model in provider.models
        if model.id == "gpt-5"
        for variant in model.price_variants or ()
        if variant.when == {"service_tier": "priority"}
    )
    start = datetime.combine(variants.constraint.start_date, datetime.min.time(), UTC)  # type: ignore[union-attr]
    before = price("openai:gpt-5", {"service_tier": "priority"}, start.replace(year=start.year - 1))
    assert (before.cost, price("openai:gpt-5", {"service_tier": "priority"}, start).cost) == (
        Decimal("2.25"),
        Decimal("4.5"),
    )
    assert (before.version or "").endswith(", context service_tier=priority not priced")


def test_a_part_of_the_terms_may_have_a_price() -> None:
    found = price("openai:gpt-5", {"service_tier": "priority", "region": "eu"})
    assert found.cost == Decimal("4.5")
    assert (found.version or "").endswith(", context region=eu not priced")


def test_a_price_version_fits_its_column_whatever_the_terms() -> None:
    context = {f"{number}{'n' * 300}": "v" * 300 for number in range(10)}
    found = price("openai:gpt-5", context)
    assert found.cost == Decimal("2.25")
    assert len(found.version or "") <= 255


def test_the_text_of_terms_is_not_taken_for_a_price_list() -> None:
    found = price("openai:gpt-5", {"route": "x, list of azure"})
    assert list_used(found.version) is None


def test_every_spelling_leads_to_terms_that_a_list_has_or_to_the_standard_price() -> None:
    priced = {
        pair
        for provider in providers
        for model in provider.models
        for variant in model.price_variants or ()
        for pair in variant.when.items()
    }
    for spelled in contexts._LISTED:
        pair = contexts.listed(spelled)
        assert pair in priced or pair in contexts._STANDARD, spelled
