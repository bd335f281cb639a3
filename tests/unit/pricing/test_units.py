"""A count in any unit costs its own rate, or that of the nearest unit that includes it, or is openly unknown."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from genai_prices.units import _get_registry

from llmbridge._pricing.genai_prices import units
from llmbridge._pricing.price_book import Price, PriceBook
from llmbridge._records.fields import UNIT_FIELDS
from llmbridge.schemas import TokenUsage
from llmbridge.storage.types import ModelPrice

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


def usage(
    prompt: int | None, completion: int | None, details: dict[str, int] | None = None, **fields: Any
) -> TokenUsage:
    return TokenUsage(prompt_tokens=prompt, completion_tokens=completion, usage_details=details, **fields)


def price(model: str, counted: TokenUsage, *own: ModelPrice) -> Price:
    provider, _, name = model.partition(":")
    return PriceBook(own).price(provider, name, counted, NOW)


@pytest.mark.parametrize(
    ("model", "counted", "cost"),
    [
        # 10 at 0.30, 1,290 images at 30 and 5 of text at 2.50
        ("google:gemini-2.5-flash-image", usage(10, 1_295, {"output_image_tokens": 1_290}), "0.0387155"),
        # 900 of audio at 1, 100 of text at 0.30, 100 at 2.50
        ("google:gemini-2.5-flash", usage(1_000, 100, {"input_audio_tokens": 900}), "0.00118"),
        # images cost what text does: 1,000 at 0.30, 100 at 2.50
        ("google:gemini-2.5-flash", usage(1_000, 100, {"input_image_tokens": 900}), "0.00055"),
        # an hour of audio at 0.36, and two minutes
        ("openai:whisper-1", usage(None, None, {"audio_seconds": 120, "input_audio_seconds": 120}), "0.012"),
        # 10 pages at 2 for a thousand
        ("mistral:mistral-ocr-2512", usage(None, None, {"input_document_pages": 10}), "0.02"),
        # at least ten seconds, at 0.111 an hour
        ("groq:whisper-large-v3", usage(None, None, {"audio_seconds": 1, "input_audio_seconds": 1}), "0.000308333333"),
    ],
)
def test_a_hand_sum_agrees_to_the_last_digit(model: str, counted: TokenUsage, cost: str) -> None:
    found = price(model, counted)
    assert (found.cost, found.reason) == (Decimal(cost), None)


@pytest.mark.parametrize(
    ("model", "details"),
    [
        ("openai:gpt-4o-mini", {"input_audio_tokens": 1}),
        ("openai:gpt-4o-mini", {"output_audio_tokens": 1}),
        ("openai:gpt-4o-mini", {"output_image_tokens": 1}),
        ("openai:gpt-4o-mini", {"output_video_tokens": 1}),
        ("openai:gpt-4o-mini", {"a unit that nobody knows": 1}),
        ("openai:gpt-4o-mini", {"requests": 2}),
        ("google:gemini-2.5-flash", {"output_audio_tokens": 1}),
        ("openai:whisper-1", {"web_searches": 1}),
    ],
)
def test_what_needs_a_rate_of_its_own_and_has_none_leaves_the_cost_unknown(model: str, details: dict[str, int]) -> None:
    found = price(model, usage(100, 100, details))
    assert (found.cost, found.reason) == (None, "missing_rate")
    if model != "openai:whisper-1":
        assert price(model, usage(100, 100, dict.fromkeys(details, 0))).reason is None


@pytest.mark.parametrize(
    ("model", "counted"),
    [
        ("google:gemini-2.5-flash", usage(100, 10, {"cache_audio_read_tokens": 1}, cache_read_tokens=1)),
        ("google:gemini-2.5-flash", usage(100, 10, {"input_audio_tokens": 50}, cache_read_tokens=50)),
        ("google:gemini-2.5-flash", usage(100, 10, {"input_audio_tokens": 101})),
        ("openai:gpt-4o-mini", usage(None, 10, {"web_searches": 1})),
        ("openai:gpt-4o-mini", usage(10, None, {"web_searches": 1})),
        ("openai:gpt-4o-mini", usage(5, 5, {"web_searches": 1}, cache_read_tokens=6)),
        ("openai:whisper-1", usage(None, None, {})),
    ],
)
def test_counts_that_do_not_add_up_or_are_not_told_measure_nothing(model: str, counted: TokenUsage) -> None:
    found = price(model, counted)
    assert (found.cost, found.reason) == (None, "unmeasured_usage")


def test_a_count_of_both_is_told_where_two_counts_overlap() -> None:
    overlapping = usage(100, 0, {"input_audio_tokens": 50, "cache_audio_read_tokens": 20}, cache_read_tokens=30)
    # 40 of text at 0.30, 10 of it cached at 0.03; 30 of audio at 1, 20 of it cached at 0.10
    assert price("google:gemini-2.5-flash", overlapping).cost == Decimal("0.0000443")


def own(**rates: str) -> ModelPrice:
    amounts: dict[str, Any] = {name: Decimal(rate) for name, rate in rates.items()}
    return ModelPrice("acme", "m", datetime(2026, 1, 1, tzinfo=UTC), **amounts)


@pytest.mark.parametrize(
    ("details", "cost"),
    [
        ({"input_image_tokens": 50}, "0.0003"),
        ({"input_text_tokens": 100, "output_text_tokens": 100}, "0.0003"),
        ({"input_audio_tokens": 1}, None),
        ({"output_image_tokens": 1}, None),
        ({"cache_text_read_tokens": 1}, None),
        ({"web_searches": 1}, None),
        ({"web_searches": 0}, "0.0003"),
        ({"audio_seconds": 1}, None),
    ],
)
def test_an_own_price_names_every_rate_but_that_of_text(details: dict[str, int], cost: str | None) -> None:
    counted = usage(100, 100, details, cache_read_tokens=1 if "cache_text_read_tokens" in details else 0)
    found = price("acme:m", counted, own(input="1", output="2"))
    assert (found.cost, found.reason) == ((None, "missing_rate") if cost is None else (Decimal(cost), None))


def test_units_are_those_of_genai_prices() -> None:
    registry = _get_registry()
    assert {(unit.name, unit.price_key, unit.per, unit.dimensions) for unit in units.units().values()} == {
        (unit.usage_key, unit.price_key, unit.per, frozenset(unit.dimensions.items()))
        for unit in registry.units.values()
    }
    assert UNIT_FIELDS.keys() <= units.units().keys()
