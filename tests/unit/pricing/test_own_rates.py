"""Own prices know every unit and context, and a factor multiplies what genai-prices has."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_EVEN, Context, Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmbridge import LLMDatabase, ModelPrice
from llmbridge._pricing.price_book import Price, PriceBook
from llmbridge.errors import RecordRejectedError
from llmbridge.schemas import TokenUsage

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
START = datetime(2026, 1, 1, tzinfo=UTC)
EXACT = Context(prec=60, rounding=ROUND_HALF_EVEN)


def own(model: str = "acme:m", start: datetime = START, **given: Any) -> ModelPrice:
    """An own price: rates as text, further ones in `rates`."""
    provider, _, name = model.partition(":")
    rates = {unit: Decimal(rate) for unit, rate in given.pop("rates", {}).items()}
    context = given.pop("context", {})
    amounts: dict[str, Any] = {field: Decimal(amount) for field, amount in given.items()}
    return ModelPrice(provider, name, start, rates=rates, context=context, **amounts)


def price(model: str, *own_prices: ModelPrice, at: datetime = NOW, **usage: Any) -> Price:
    provider, _, name = model.partition(":")
    counted = TokenUsage(**{"prompt_tokens": 1_000_000, "completion_tokens": 100_000, **usage})
    return PriceBook(own_prices).price(provider, name, counted, at)


@pytest.mark.parametrize(
    ("rates", "details", "cost"),
    [
        ({"input_audio_tokens": "40"}, {"input_audio_tokens": 500_000}, "21.7"),  # 0.5 + 20 + 1.2
        ({"output_audio_tokens": "80"}, {"output_audio_tokens": 50_000}, "5.6"),
        ({"output_image_tokens": "30"}, {"output_image_tokens": 100_000}, "4"),
        ({"web_searches": "10"}, {"web_searches": 3}, "2.23"),
        ({"requests": "5"}, None, "2.205"),
        ({"requests": "5"}, {"web_searches": 0}, "2.205"),
        ({"output_reasoning_tokens": "7"}, None, "2.2"),
        ({"audio_seconds": "0.36"}, {"audio_seconds": 120, "input_audio_seconds": 120}, "2.212"),
        ({"input_image_tokens": "3"}, {"input_image_tokens": 200_000}, "2.6"),
    ],
)
def test_a_rate_of_any_unit_is_charged(rates: dict[str, str], details: dict[str, int] | None, cost: str) -> None:
    found = price("acme:m", own(input="1", output="12", rates=rates), usage_details=details)
    assert (found.cost, found.source) == (Decimal(cost), "own_prices")


def test_tokens_of_two_kinds_need_a_rate_of_both() -> None:
    counted = {"input_audio_tokens": 10, "cache_audio_read_tokens": 4}
    rates = {"input_audio_tokens": "40"}
    found = price(
        "acme:m", own(input="1", output="2", cache_read="0.1", rates=rates), usage_details=counted, cache_read_tokens=4
    )
    assert (found.cost, found.reason) == (None, "missing_rate")
    rates["cache_audio_read_tokens"] = "4"
    found = price(
        "acme:m", own(input="1", output="2", cache_read="0.1", rates=rates), usage_details=counted, cache_read_tokens=4
    )
    assert found.cost == Decimal("1.200246")  # 999,990 at 1, 6 at 40, 4 at 4, 100,000 at 2


def test_a_model_may_be_charged_by_something_else_than_tokens() -> None:
    searches = own(rates={"rerank_searches": "2"})
    found = price("acme:m", searches, prompt_tokens=None, completion_tokens=None, usage_details={"rerank_searches": 5})
    assert found.cost == Decimal("0.01")
    assert price("acme:m", searches, usage_details={"rerank_searches": 5}).reason == "missing_rate"
    assert price("acme:m", searches, prompt_tokens=None, completion_tokens=None).reason == "unmeasured_usage"


def test_the_price_with_the_most_of_a_calls_context_applies() -> None:
    prices = [
        own(input="1", output="1"),
        own(input="2", output="2", context={"service_tier": "priority"}),
        own(input="3", output="3", context={"service_tier": "priority", "route": "eu"}),
        own(input="4", output="4", context={"processing": "batch"}, start=NOW + timedelta(days=1)),
    ]

    def cost(**context: str) -> Decimal | None:
        return price("acme:m", *prices, price_context=context or None).cost

    assert cost() == Decimal("1.1")
    assert cost(service_tier="priority") == Decimal("2.2")
    assert cost(service_tier="Priority", region="eu") == Decimal("2.2")
    assert cost(service_tier="priority", route="eu") == Decimal("3.3")
    assert cost(route="eu") == Decimal("1.1")
    assert cost(processing="batch") == Decimal("1.1")
    found = price("acme:m", *prices, price_context={"service_tier": "batch"}, at=NOW + timedelta(days=2))
    assert found.cost == Decimal("4.4")


def test_a_context_without_an_own_price_is_named() -> None:
    found = price("acme:m", own(input="1", output="1"), price_context={"service_tier": "priority", "speed": "standard"})
    assert found.version == f"{START.isoformat()}, context service_tier=priority not priced"


def test_a_price_of_a_context_that_was_withdrawn_gives_way() -> None:
    terms = {"service_tier": "priority"}
    prices = [own(input="1", output="1"), own(input="2", output="2", context=terms), own(start=NOW, context=terms)]
    assert price("acme:m", *prices, price_context=terms, at=NOW - timedelta(days=1)).cost == Decimal("2.2")
    assert price("acme:m", *prices, price_context=terms).cost == Decimal("1.1")


def test_a_factor_multiplies_the_list_price() -> None:
    plain = price("openai:gpt-5")
    found = price("openai:gpt-5", own("openai:*", factor="0.78"))
    assert (plain.cost, plain.factor) == (Decimal("2.25"), None)
    assert (found.cost, found.factor, found.source) == (Decimal("1.755"), Decimal("0.78"), "prices")
    assert (found.version, found.input_rate) == (plain.version, Decimal("0.975"))
    assert price("anthropic:claude-opus-4-8", own("openai:*", factor="0.78")).factor is None


def test_a_factor_multiplies_every_unit_and_context_of_the_list() -> None:
    factor = own("openai:*", factor="2")
    counted = {"usage_details": {"web_searches": 100}, "price_context": {"service_tier": "priority"}}
    assert price("openai:gpt-5", factor, **counted).cost == 2 * (price("openai:gpt-5", **counted).cost or 0)
    usage = {"prompt_tokens": 300_000, "completion_tokens": 10}
    assert price("openai:gpt-5.4", factor, **usage).cost == 2 * (price("openai:gpt-5.4", **usage).cost or 0)
    assert price("perplexity:sonar", own("perplexity:*", factor="2"), prompt_tokens=0, completion_tokens=0).cost == (
        Decimal("0.024")
    )


@given(st.integers(0, 10**7), st.integers(0, 10**7), st.decimals(0, 10, places=12))
def test_the_product_is_rounded_once(prompt: int, completion: int, factor: Decimal) -> None:
    found = price(
        "openai:gpt-4o-mini", own("openai:*", factor=str(factor)), prompt_tokens=prompt, completion_tokens=completion
    )
    exact = (Fraction("0.15") * prompt + Fraction("0.6") * completion) * Fraction(factor) / 10**6
    assert found.cost == Decimal(round(exact * 10**12)).scaleb(-12, EXACT)


def test_the_factor_of_a_model_comes_before_that_of_its_provider() -> None:
    both = (own("openai:*", factor="0.5"), own("openai:gpt-5", factor="1"))
    assert price("openai:gpt-5", *both).cost == Decimal("2.25")
    assert price("openai:gpt-4o", *both, response_model="gpt-4o-2024-08-06").factor == Decimal("0.5")
    assert price("openai:router", *both, response_model="gpt-5").factor == 1


def test_a_factor_is_dated_and_may_hold_for_a_context_alone() -> None:
    factors = [
        own("openai:*", factor="0.5"),
        own("openai:*", NOW, factor="0.25"),
        own("openai:*", NOW + timedelta(days=1)),
        own("openai:*", factor="3", context={"processing": "batch"}),
    ]
    days = [-1, 0, 1]
    found = [price("openai:gpt-5", *factors, at=NOW + timedelta(days=day)).factor for day in days]
    assert found == [Decimal("0.5"), Decimal("0.25"), None]
    assert price("openai:gpt-5", *factors, price_context={"processing": "batch"}).cost == Decimal("3.375")


def test_a_factor_multiplies_no_own_price_and_no_unknown_one() -> None:
    factor = own("openai:*", factor="0.5")
    assert price("openai:gpt-5", factor, own("openai:gpt-5", input="1", output="1")).cost == Decimal("1.1")
    assert price("openai:nobody-knows", factor).reason == "unknown_model"
    missing = price("openai:gpt-5", factor, usage_details={"output_audio_tokens": 1})
    assert (missing.reason, missing.factor) == ("missing_rate", None)


def test_rates_may_hold_for_all_models_of_a_provider() -> None:
    prices = (own("home:*", input="0", output="0"), own("home:large", input="1", output="1"))
    found = price("home:llama3.2", *prices)
    assert (found.cost, found.source, found.version) == (0, "own_prices", f"{START.isoformat()}, entry *")
    assert price("home:large", *prices).cost == Decimal("1.1")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"rates": {"web_searchs": "1"}}, "'web_searchs' is not a unit of genai-prices; did you mean web_searches"),
        ({"rates": {"input_tokens": "1"}}, "rates contains input_tokens; use the field input"),
        ({"rates": {"web_searches": "-1"}}, "the rate of web_searches is negative"),
        ({"rates": {"web_searches": "9000000"}}, "the rate of web_searches"),
        ({"factor": "-1"}, "factor is negative"),
        ({"factor": "1", "input": "1"}, "either rates or a factor"),
        ({"factor": "1", "rates": {"web_searches": "1"}}, "either rates or a factor"),
        ({"context": {"a": "x" * 5_000}}, "context takes"),
        ({"context": {"a": 1}}, "a in context must be str, not int"),
        ({"context": {1: "a"}}, "the keys of context must be text"),
    ],
)
async def test_an_own_price_that_says_nothing_clear_is_refused(given: dict[str, Any], said: str) -> None:
    async with LLMDatabase("memory://") as db:
        with pytest.raises(RecordRejectedError, match=said):
            await db.set_prices([own(**given)])
        assert await db.list_prices() == []


async def test_the_factor_stands_in_the_record_and_a_reprice_follows_it() -> None:
    call = {"origin": "o", "provider": "openai", "model_name": "gpt-5", "prompt_tokens": 10**6, "completion_tokens": 0}
    async with LLMDatabase("memory://") as db:
        ids = [await db.record_api_call(**call, called_at=NOW)]
        await db.set_prices([own("openai:*", factor="0.78")])
        ids += [await db.record_api_call(**call, called_at=NOW)]
        ids += [await db.record_api_call(**call, called_at=NOW, estimated_cost="1")]
        await db.reprice(NOW)
        rows = [await db.get_call_record(call_id) for call_id in ids if call_id is not None]
        assert [(row.estimated_cost, row.price_factor) for row in rows if row is not None] == [
            (Decimal("0.975"), Decimal("0.78")),
            (Decimal("0.975"), Decimal("0.78")),
            (Decimal(1), None),
        ]
        await db.set_prices([own("openai:gpt-5", input="1", output="1", rates={"web_searches": "10"})])
        await db.reprice(NOW)
        rows = [await db.get_call_record(call_id) for call_id in ids[:2] if call_id is not None]
        assert [(row.estimated_cost, row.price_factor) for row in rows if row is not None] == [(Decimal(1), None)] * 2


async def test_rates_of_a_model_keep_the_further_rates_of_its_own_price() -> None:
    async with LLMDatabase("memory://") as db:
        await db.set_prices([own("acme:m", input="1", output="2", rates={"web_searches": "10"})])
        await db.add_model(_model("acme", "m", "3"))
        newest = max(await db.list_prices(), key=lambda found: found.effective_from)
        assert (newest.input, newest.output, dict(newest.rates)) == (3, 2, {"web_searches": 10})


def _model(provider: str, name: str, rate: str) -> Any:
    from llmbridge import LLMModel

    return LLMModel(provider=provider, model_name=name, dollars_per_million_tokens_input=Decimal(rate))
