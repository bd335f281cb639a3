"""The cost of a call follows from its rate card, to the last digit; if it cannot, it is None with a reason."""

from __future__ import annotations

import decimal
import random
import subprocess
import sys
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import ROUND_HALF_EVEN, Decimal
from fractions import Fraction
from itertools import combinations, product
from typing import Any

import genai_prices
import pytest
from genai_prices import types as genai
from genai_prices.data import providers
from genai_prices.units import _get_registry
from hypothesis import given
from hypothesis import strategies as st

from llmbridge._pricing.genai_prices.cards import PROVIDER_IDS, RateCards, bundled
from llmbridge._pricing.price_book import PriceBook
from llmbridge.schemas import TokenUsage
from llmbridge.storage.types import ModelPrice

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
#: The counts of a call of plain text.
BARE = {"input_tokens": 1_234_567, "output_tokens": 7_654_321}
UNIT = Decimal("1E-12")
EXACT = decimal.Context(prec=60, rounding=ROUND_HALF_EVEN)


def tokens(prompt: int | None, completion: int | None, **subsets: Any) -> TokenUsage:
    return TokenUsage(prompt_tokens=prompt, completion_tokens=completion, **subsets)


def own(**rates: str | None) -> ModelPrice:
    amounts = {name: None if rate is None else Decimal(rate) for name, rate in rates.items()}
    return ModelPrice("acme", "m", datetime(2026, 1, 1, tzinfo=UTC), **amounts)


def prices_of(model: genai.ModelInfo) -> list[genai.ConditionalPrice]:
    if isinstance(model.prices, genai.ModelPrice):
        return [genai.ConditionalPrice(prices=model.prices)]
    return model.prices


def conditions(model: genai.ModelInfo) -> list[Any]:
    """The conditions of a model's prices, with and without a context."""
    return [one.constraint for one in (*prices_of(model), *(model.price_variants or ())) if one.constraint is not None]


def moments(model: genai.ModelInfo) -> list[datetime]:
    """Now, and both sides of every instant at which the price may change."""
    found = {NOW}
    for constraint in conditions(model):
        if isinstance(constraint, genai.StartDateConstraint):
            edges = [datetime.combine(constraint.start_date, time(0), UTC)]
        else:
            ends = (constraint.start_time, constraint.end_time)
            edges = [datetime.combine(NOW.date(), end.replace(tzinfo=UTC)) for end in ends]
        for edge in edges:
            found |= {edge - timedelta(microseconds=1), edge}
    return sorted(found)


def contexts(model: genai.ModelInfo) -> list[dict[str, str]]:
    """No context, every one for which the model has prices, two of them at once, and one that no list has."""
    found = [dict(pairs) for pairs in sorted({tuple(one.when.items()) for one in model.price_variants or ()})]
    both = [{**one, **other} for one, other in combinations(found, 2) if one.keys() != other.keys()]
    return [{}, *found, *both, {"service_tier": "no such tier"}]


def starts_of_tiers(model: genai.ModelInfo) -> list[int]:
    return sorted(
        {
            tier.start
            for one in (*prices_of(model), *(model.price_variants or ()))
            for rate in vars(one.prices).values()
            if isinstance(rate, genai.TieredPrices)
            for tier in rate.tiers
        }
    )


#: What may be counted at the finest: no two of these overlap, and each unit's count is the sum of those in it.
ATOMS = sorted(
    {
        tuple(sorted({**unit.dimensions, **more}.items()))
        for unit in _get_registry().units.values()
        for more in ({}, {"token_type": "other"}, {"modality": "other"}, {"page_type": "plain"}, {"direction": "other"})
        if not more.keys() & unit.dimensions.keys() and unit.usage_key != "requests"
    }
)
INPUT = (("direction", "input"), ("family", "tokens"), ("modality", "other"), ("token_type", "other"))
OWN_FIELDS = {
    "input_tokens": "prompt_tokens",
    "output_tokens": "completion_tokens",
    "cache_read_tokens": "cache_read_tokens",
    "cache_write_tokens": "cache_write_tokens",
    "cache_write_1h_tokens": "cache_write_1h_tokens",
    "output_reasoning_tokens": "reasoning_tokens",
}


def usage_of(told: dict[str, int]) -> TokenUsage:
    """Counts by unit as a call has them."""
    fields = {name: told.get(unit) for unit, name in OWN_FIELDS.items()}
    details = {unit: count for unit, count in told.items() if unit not in OWN_FIELDS}
    return TokenUsage(**fields, usage_details=details or None)


def random_usage(dice: random.Random, tiers: list[int]) -> dict[str, int]:
    """Counts by unit that a provider may tell: consistent, of few kinds or many, told wholly or in part."""
    atoms_here = ATOMS if dice.random() < 0.4 else [atom for atom in ATOMS if not is_dear(dict(atom))]
    counted = dice.sample(atoms_here, dice.choice((1, 2, 3, 5, len(atoms_here))))
    atoms = {atom: dice.choice((1, 7, 1_003, 98_765)) for atom in counted}
    atoms[INPUT] = atoms.get(INPUT, 0) + dice.randrange(100_000)
    counts = {
        name: sum(count for atom, count in atoms.items() if unit.dimensions.items() <= dict(atom).items())
        for name, unit in _get_registry().units.items()
        if name != "requests"
    }
    if tiers and dice.random() < 0.7:
        missing = dice.choice(tiers) + dice.choice((0, 1)) - counts["input_tokens"]
        counts["input_tokens"] += max(0, missing)
    part = dice.choice((1.0, 0.95, 0.5))
    told = {name: count for name, count in counts.items() if (count or dice.random() < 0.2) and dice.random() < part}
    kept = ["input_tokens", "output_tokens", *(["cache_write_tokens"] if "cache_write_1h_tokens" in told else [])]
    told |= {name: counts[name] for name in kept}
    return told


def texts(clause: Any) -> Iterator[str]:
    """What a clause of a model's match compares a name with."""
    for kind in ("starts_with", "ends_with", "contains", "equals"):
        if hasattr(clause, kind):
            yield getattr(clause, kind)
    for part in (*getattr(clause, "or_", ()), *getattr(clause, "and_", ())):
        yield from texts(part)


def name_of(model: genai.ModelInfo, provider: genai.Provider) -> str:
    """A name that finds this very model, since some ids find an earlier one in the list or none."""
    return next(name for name in (model.id, *texts(model.match)) if provider.find_model(name) is model)


def is_dear(dimensions: Mapping[str, str]) -> bool:
    """Whether what is counted costs several times as much as text."""
    kinds = ("audio", "image", "video") if dimensions.get("direction") == "output" else ("audio",)
    return dimensions["family"] == "tokens" and dimensions.get("modality") in kinds


def lacks_a_rate(price: genai.ModelPrice, told: dict[str, int]) -> bool:
    """Whether we know no cost where genai-prices tells one that is too low: for audio, or images or video in the
    output, that have no rate of their own, and for a call of which nothing that is charged was told."""
    registry = _get_registry()
    rated = [registry.unit_for_price_key(key) for key, rate in vars(price).items() if rate is not None]
    charged = False
    for name, count in told.items():
        unit = registry.units[name]
        including = [one for one in rated if one.dimensions.items() <= unit.dimensions.items()]
        charged = charged or bool(including)
        if count and is_dear(unit.dimensions) and all("modality" not in one.dimensions for one in including):
            return True
    return bool(rated) and not charged and "requests" not in [one.usage_key for one in rated]


def asked_of_genai(
    provider: str, model: str, told: dict[str, int], at: datetime, context: dict[str, str] | None = None
) -> Decimal:
    with decimal.localcontext(EXACT):
        priced = genai_prices.calc_price(
            genai_prices.Usage(**told), model, provider_id=provider, genai_request_timestamp=at, price_context=context
        )
    return priced.total_price.quantize(UNIT, context=EXACT)


@pytest.mark.parametrize("provider", providers, ids=lambda provider: provider.id)
def test_every_model_of_genai_prices_costs_what_genai_prices_says(provider: genai.Provider) -> None:
    """At all dates of its prices, in all contexts, for counts in all units."""
    book, dice = PriceBook(), random.Random(provider.id)
    for model in provider.models:
        name, tiers = name_of(model, provider), starts_of_tiers(model)
        for at, context in product(moments(model), contexts(model)):
            price = model.get_prices(at, context)
            for told in (BARE, *(random_usage(dice, tiers) for _ in range(3))):
                usage = usage_of(told).model_copy(update={"price_context": context})
                mine = book.price(provider.id, name, usage, at)
                asked = (name, at, context, told)
                try:
                    theirs = asked_of_genai(provider.id, name, told, at, context)
                except ValueError:
                    assert (mine.cost, mine.reason) == (None, "unmeasured_usage"), asked
                    continue
                if lacks_a_rate(price, told):
                    assert (mine.cost, mine.reason) == (None, "missing_rate"), asked
                else:
                    assert (mine.cost, mine.source) == (theirs, "prices"), asked
                    assert (mine.version or "").startswith(f"genai-prices {genai_prices.__version__}")


def test_models_charged_by_something_else_than_tokens_have_no_cost_from_tokens() -> None:
    book = PriceBook()
    for model in ("whisper-1", "tts-1"):
        for usage in (tokens(0, 0), tokens(10, 10)):
            price = book.price("openai", model, usage, NOW)
            assert (price.cost, price.reason, price.source) == (None, "missing_rate", None)


def test_a_hand_sum_agrees_to_the_last_digit() -> None:
    usage = tokens(1_234, 567, cache_read_tokens=1_000)
    price = PriceBook().price("openai", "gpt-4o-mini", usage, NOW)
    assert price.cost == Decimal("0.0004503")  # (234 * 0.15 + 1000 * 0.075 + 567 * 0.6) / 1e6
    assert (price.input_rate, price.output_rate) == (Decimal("0.15"), Decimal("0.6"))


def test_a_longer_prompt_than_the_tier_pays_all_its_tokens_at_the_higher_rates() -> None:
    book = PriceBook()
    at_most = book.price("openai", "gpt-5.4", tokens(272_000, 100), NOW)
    above = book.price("openai", "gpt-5.4", tokens(272_001, 100), NOW)
    assert (at_most.cost, at_most.input_rate) == (Decimal("0.6815"), Decimal("2.5"))
    assert (above.cost, above.input_rate) == (Decimal("1.362255"), Decimal(5))


def test_a_request_fee_is_part_of_the_cost() -> None:
    assert PriceBook().price("perplexity", "sonar", tokens(0, 0), NOW).cost == Decimal("0.012")


@pytest.mark.parametrize(
    ("rate", "cost"),
    [
        ("0.0000005", "0.000000000000"),
        ("0.0000015", "0.000000000002"),
        ("0.0000025", "0.000000000002"),
        ("0.00000250000000000000000001", "0.000000000003"),
    ],
)
def test_cost_is_rounded_half_even_at_the_thirteenth_decimal(rate: str, cost: str) -> None:
    price = PriceBook([own(input=rate, output="0")]).price("acme", "m", tokens(1, 0), NOW)
    assert price.cost == Decimal(cost)


@given(
    st.lists(
        st.builds(lambda n, places: Decimal(n).scaleb(-places), st.integers(0, 10**15), st.integers(0, 20)),
        min_size=5,
        max_size=5,
    ),
    st.lists(st.integers(0, 10**9), min_size=6, max_size=6),
)
def test_whole_numbers_cost_what_fractions_do(rates: list[Decimal], counts: list[int]) -> None:
    fresh, answer, read, written, written_1h, reasoning = counts
    usage = tokens(
        fresh + read + written + written_1h,
        answer + reasoning,
        cache_read_tokens=read,
        cache_write_tokens=written + written_1h,
        cache_write_1h_tokens=written_1h,
        reasoning_tokens=reasoning,
    )
    names = ("input", "output", "cache_read", "cache_write", "cache_write_1h")
    own_price = ModelPrice("acme", "m", datetime(2026, 1, 1, tzinfo=UTC), **dict(zip(names, rates, strict=True)))
    paid = zip(counts, (*rates, rates[1]), strict=True)
    exact = sum((Fraction(rate) * count for count, rate in paid), Fraction()) / 10**6
    cost = PriceBook([own_price]).price("acme", "m", usage, NOW).cost
    assert cost == Decimal(round(exact * 10**12)).scaleb(-12, EXACT)


def test_the_sum_is_rounded_and_not_its_parts() -> None:
    price = PriceBook([own(input="0.0000004", output="0.0000004")]).price("acme", "m", tokens(1, 1), NOW)
    assert price.cost == Decimal("1E-12")


def test_the_decimal_context_of_the_caller_changes_no_cost() -> None:
    usage = tokens(123_456_789, 987_654_321, cache_read_tokens=12_345)
    expected = PriceBook().price("anthropic", "claude-opus-4-6", usage, NOW)
    with decimal.localcontext(decimal.Context(prec=3, rounding=decimal.ROUND_UP, traps=[decimal.Inexact])):
        book = PriceBook([own(input="1.23456789", output="0")])
        book_price = book.price("acme", "m", tokens(123_456_789, 0), NOW)
        fresh = RateCards(providers, "test").get("anthropic", "claude-opus-4-6", NOW)
        again = PriceBook().price("anthropic", "claude-opus-4-6", usage, NOW)
    assert again == expected
    assert fresh is not None
    assert fresh.rates() == PriceBook().rates("anthropic", "claude-opus-4-6", NOW).rates()  # type: ignore[union-attr]
    assert book_price.cost == Decimal("152.415787501905")  # 152.41578750190521


def test_the_greatest_counts_are_still_exact() -> None:
    most = 2**63 - 1
    price = PriceBook([own(input="0.000000000001", output="0")]).price("acme", "m", tokens(most, 0), NOW)
    assert price.cost == Decimal("9.223372036855")


def test_an_own_price_comes_before_genai_prices_and_says_since_when() -> None:
    since = datetime(2026, 5, 1, tzinfo=UTC)
    book = PriceBook([ModelPrice("openai", "gpt-4o", since, Decimal(1), Decimal(2))])
    price = book.price("openai", "gpt-4o", tokens(1_000_000, 1_000_000), NOW)
    assert (price.cost, price.source, price.version) == (Decimal(3), "own_prices", "2026-05-01T00:00:00+00:00")
    assert book.price("openai", "gpt-4o-2024-08-06", tokens(1, 1), NOW).source == "prices"
    assert book.price("azure", "gpt-4o", tokens(1, 1), NOW).source == "prices"


def test_the_own_price_in_force_is_the_latest_that_began() -> None:
    first, second = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 6, 1, tzinfo=UTC)
    book = PriceBook(
        [
            ModelPrice("openai", "gpt-4o", second, Decimal(20), Decimal(0)),
            ModelPrice("openai", "gpt-4o", first, Decimal(10), Decimal(0)),
        ]
    )
    moment = timedelta(microseconds=1)
    usage = tokens(1_000_000, 0)
    assert book.price("openai", "gpt-4o", usage, first - moment).cost == Decimal("2.5")
    assert book.price("openai", "gpt-4o", usage, first).cost == 10
    assert book.price("openai", "gpt-4o", usage, second - moment).cost == 10
    assert book.price("openai", "gpt-4o", usage, second).cost == 20


def test_the_last_own_price_of_a_key_wins_and_replacing_forgets_the_rest() -> None:
    book = PriceBook([own(input="1", output="1"), own(input="7", output="7")])
    assert book.price("acme", "m", tokens(1_000_000, 0), NOW).cost == 7
    book.replace_own([])
    assert book.price("acme", "m", tokens(1_000_000, 0), NOW).reason == "unknown_model"


def test_times_in_another_zone_are_the_same_instants() -> None:
    start = datetime(2026, 6, 1, tzinfo=timezone(timedelta(hours=5, minutes=45)))
    book = PriceBook([ModelPrice("acme", "m", start, Decimal(1), Decimal(1))])
    edge = datetime(2026, 5, 31, 18, 15, tzinfo=UTC)
    price = book.price("acme", "m", tokens(1, 1), edge)
    assert (price.reason, price.version) == (None, "2026-05-31T18:15:00+00:00")
    assert book.price("acme", "m", tokens(1, 1), edge - timedelta(microseconds=1)).reason == "unknown_model"
    local = edge.astimezone(timezone(timedelta(hours=-8)))
    assert book.price("acme", "m", tokens(1, 1), local).reason is None


def test_a_time_without_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="no time zone"):
        PriceBook().price("openai", "gpt-4o", tokens(1, 1), datetime(2026, 1, 1))


@pytest.mark.parametrize(
    ("rates", "usage"),
    [
        ({"output": "1"}, tokens(1, 0)),
        ({"input": "1"}, tokens(0, 1)),
        ({"input": "1", "output": "1"}, tokens(5, 0, cache_read_tokens=1)),
        ({"input": "1", "output": "1"}, tokens(5, 0, cache_write_tokens=1)),
        (
            {"input": "1", "output": "1", "cache_write": "1"},
            tokens(5, 0, cache_write_tokens=2, cache_write_1h_tokens=1),
        ),
        ({"cache_read": "1"}, tokens(0, 0)),
    ],
)
def test_an_own_price_without_a_rate_that_is_needed_gives_no_cost(rates: dict[str, str], usage: TokenUsage) -> None:
    price = PriceBook([own(**rates)]).price("acme", "m", usage, NOW)
    assert (price.cost, price.reason, price.source, price.version) == (None, "missing_rate", None, None)


def test_an_own_price_without_any_rate_withdraws_the_one_before() -> None:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    ones = {"input": Decimal(1), "output": Decimal(1)}
    prices = [
        ModelPrice("openai", "gpt-4o-mini", start, **ones),
        ModelPrice("openai", "gpt-4o-mini", start + timedelta(days=2)),
        ModelPrice("openai", "gpt-4o-mini", start + timedelta(days=3), **ones),
        ModelPrice("acme", "m", start),
    ]
    book, usage = PriceBook(prices), tokens(10**6, 0)
    found = [book.price("openai", "gpt-4o-mini", usage, start + timedelta(days=days)) for days in (1, 2, 3)]
    assert [(price.cost, price.source) for price in found] == [
        (1, "own_prices"),
        (Decimal("0.15"), "prices"),
        (1, "own_prices"),
    ]
    assert book.price("acme", "m", usage, NOW).reason == "unknown_model"


def test_an_own_price_needs_no_rate_for_tokens_that_did_not_occur() -> None:
    book = PriceBook([own(input="1")])
    price = book.price("acme", "m", tokens(1_000_000, 0, cache_read_tokens=0, reasoning_tokens=0), NOW)
    assert (price.cost, price.input_rate, price.output_rate) == (Decimal(1), Decimal(1), None)


def test_tokens_read_from_and_written_to_a_cache_have_own_rates() -> None:
    book = PriceBook([own(input="10", output="20", cache_read="1", cache_write="12.5", cache_write_1h="20")])
    usage = tokens(1_000_000, 100_000, cache_read_tokens=300_000, cache_write_tokens=200_000, reasoning_tokens=60_000)
    assert book.price("acme", "m", usage, NOW).cost == Decimal("9.8")  # 5 + 0.3 + 2.5 + 2
    for_an_hour = usage.model_copy(update={"cache_write_1h_tokens": 50_000})
    assert book.price("acme", "m", for_an_hour, NOW).cost == Decimal("10.175")  # 5 + 0.3 + 1.875 + 1 + 2


def test_a_price_of_zero_is_a_price() -> None:
    price = PriceBook([own(input="0", output="0")]).price("acme", "m", tokens(5, 5), NOW)
    assert (price.cost, price.reason, price.source) == (Decimal(0), None, "own_prices")
    assert price.input_rate == price.output_rate == 0
    free = PriceBook().price("google", "gemma-3", tokens(5, 5), NOW)
    assert (free.cost, free.source) == (Decimal(0), "prices")


@pytest.mark.parametrize(
    "usage",
    [
        None,
        tokens(None, 5),
        tokens(5, None),
        tokens(None, None, source="none"),
        tokens(-1, 5),
        tokens(5, -1),
        tokens(5, 5, cache_read_tokens=6),
        tokens(5, 5, cache_read_tokens=3, cache_write_tokens=3),
        tokens(5, 5, cache_read_tokens=-1),
        tokens(5, 5, cache_write_1h_tokens=1),
        tokens(5, 5, cache_write_tokens=1, cache_write_1h_tokens=2),
        tokens(5, 5, cache_write_tokens=1, cache_write_1h_tokens=-1),
        tokens(5, 5, reasoning_tokens=6),
        tokens(5, 5, reasoning_tokens=-1),
    ],
)
def test_usage_that_measures_nothing_has_no_cost(usage: TokenUsage | None) -> None:
    price = PriceBook([own(input="1", output="1")]).price("acme", "m", usage, NOW)
    assert (price.cost, price.reason, price.source) == (None, "unmeasured_usage", None)


@pytest.mark.parametrize("source", ["provider", "partial", "estimated"])
def test_counts_are_priced_whatever_their_usage_source(source: str) -> None:
    assert PriceBook().price("openai", "gpt-4o", tokens(4, 0, source=source), NOW).cost == Decimal("0.00001")


@pytest.mark.parametrize(
    ("provider", "model"),
    [
        ("openai", "claude-3-5-sonnet-20241022"),
        ("openai", "gemini-2.5-pro"),
        ("mistral", "gpt-4o"),
        ("ollama", "gpt-4o"),
        ("ollama", "llama3.2:latest"),
        ("my-openai-proxy", "gpt-4o"),
        ("not-google", "gemini-2.5-pro"),
        ("litellm", "openai/gpt-4o"),
        ("echo", "echo"),
        ("", "gpt-4o"),
        ("openai", ""),
    ],
)
def test_only_models_of_the_requested_provider_are_searched(provider: str, model: str) -> None:
    price = PriceBook().price(provider, model, tokens(1, 1), NOW)
    assert (price.cost, price.reason) == (None, "unknown_model")


@pytest.mark.parametrize(
    ("provider", "listed_as", "model"),
    [
        ("bedrock", "aws", "amazon.nova-pro-v1:0"),
        ("xai", "x-ai", "grok-3"),
        ("google-vertex", "google", "gemini-2.5-pro"),
        ("OpenAI", "openai", "gpt-4o"),
        ("azure", "azure", "gpt-4o"),
        ("openrouter", "openrouter", "openai/gpt-4o"),
        ("groq", "groq", "llama-3.3-70b-versatile"),
    ],
)
def test_providers_are_known_by_llmbridge_s_names_too(provider: str, listed_as: str, model: str) -> None:
    told = {"input_tokens": 1_000, "output_tokens": 1_000}
    assert PriceBook().price(provider, model, usage_of(told), NOW).cost == asked_of_genai(listed_as, model, told, NOW)


def test_a_registered_provider_is_priced_as_another() -> None:
    book = PriceBook()
    assert book.price("acme", "gpt-4o", tokens(4, 0), NOW).reason == "unknown_model"
    assert book.price("acme", "gpt-4o", tokens(4, 0), NOW, priced_as="openai").cost == Decimal("0.00001")


def test_an_own_price_takes_precedence_over_the_list_of_priced_as() -> None:
    book = PriceBook([ModelPrice("acme", "gpt-4o", datetime(2026, 1, 1, tzinfo=UTC), Decimal(1), Decimal(1))])
    assert book.price("acme", "gpt-4o", tokens(1_000_000, 0), NOW, priced_as="openai").cost == 1


@pytest.fixture
def questions(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often genai-prices is asked, by what."""
    asked: Counter[str] = Counter()
    find_model, get_prices = genai.Provider.find_model, genai.ModelInfo.get_prices

    def counted_find(self: genai.Provider, *args: Any, **kwargs: Any) -> genai.ModelInfo | None:
        asked["find_model"] += 1
        return find_model(self, *args, **kwargs)

    def counted_get(self: genai.ModelInfo, *args: Any, **kwargs: Any) -> genai.ModelPrice:
        asked["get_prices"] += 1
        return get_prices(self, *args, **kwargs)

    monkeypatch.setattr(genai.Provider, "find_model", counted_find)
    monkeypatch.setattr(genai.ModelInfo, "get_prices", counted_get)
    return asked


def test_genai_prices_is_asked_once_per_model_and_price_period(questions: Counter[str]) -> None:
    cards = RateCards(providers, "test")
    for minutes in range(0, 24 * 60, 7):
        cards.get("deepseek", "deepseek-chat", NOW + timedelta(minutes=minutes))
        cards.get("openai", "gpt-4o", NOW + timedelta(minutes=minutes))
        cards.get("openai", "no-such-model", NOW)
    assert questions == {"find_model": 3, "get_prices": 1 + 3}  # deepseek: before, in and after its interval


def test_names_without_end_do_not_fill_the_memory(questions: Counter[str]) -> None:
    cards = RateCards([provider for provider in providers if provider.id == "avian"], "test")
    for number in range(10_000):
        cards.get("avian", f"model-{number}", NOW)
    assert len(cards._models) <= 4096


def test_a_condition_of_a_kind_that_is_not_known_is_asked_about_each_time() -> None:
    class Weekend(genai.StartDateConstraint.__base__):  # type: ignore[name-defined, misc]
        def active(self, at: datetime) -> bool:
            return at.weekday() >= 5

    model = genai.ModelInfo(
        id="m",
        match=genai.ClauseEquals("m"),
        prices=[
            genai.ConditionalPrice(prices=genai.ModelPrice(input_mtok=Decimal(2))),
            genai.ConditionalPrice(Weekend(), prices=genai.ModelPrice(input_mtok=Decimal(1))),
        ],
    )
    cards = RateCards([genai.Provider(id="v", name="V", api_pattern="", models=[model])], "test")
    sunday = datetime(2026, 11, 22, tzinfo=UTC)
    assert [cards.get("v", "m", at).rates().input for at in (sunday, NOW, sunday)] == [1, 2, 1]  # type: ignore[union-attr]


def test_a_model_without_any_price_is_unknown() -> None:
    model = genai.ModelInfo(id="m", match=genai.ClauseEquals("m"), prices=[])
    cards = RateCards([genai.Provider(id="v", name="V", api_pattern="", models=[model])], "test")
    assert cards.get("v", "m", NOW) is None


def test_genai_prices_is_not_imported_before_it_is_needed() -> None:
    program = """
import sys
from datetime import UTC, datetime
from decimal import Decimal
from llmbridge._models import catalog
from llmbridge._pricing import price_book
from llmbridge.schemas import TokenUsage
from llmbridge.storage.types import ModelPrice

now = datetime.now(UTC)
book = price_book.PriceBook([ModelPrice("acme", "m", now, Decimal(1), Decimal(1))])
usage = TokenUsage(prompt_tokens=1, completion_tokens=1)
assert book.price("acme", "m", usage, now).source == "own_prices"
assert catalog.models()
assert "genai_prices" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_times_of_day_are_read_in_utc_whatever_their_offset() -> None:
    cheap = genai.TimeOfDateConstraint(
        time(23, 0, tzinfo=timezone(timedelta(hours=1))), time(5, 0, tzinfo=timezone(timedelta(hours=1)))
    )
    model = genai.ModelInfo(
        id="m",
        match=genai.ClauseEquals("m"),
        prices=[
            genai.ConditionalPrice(prices=genai.ModelPrice(input_mtok=Decimal(2))),
            genai.ConditionalPrice(
                genai.StartDateConstraint(date(2026, 1, 1)), prices=genai.ModelPrice(input_mtok=Decimal(3))
            ),
            genai.ConditionalPrice(cheap, prices=genai.ModelPrice(input_mtok=Decimal(1))),
        ],
    )
    cards = RateCards([genai.Provider(id="v", name="V", api_pattern="", models=[model])], "test")
    day = datetime(2026, 11, 23, tzinfo=UTC)
    for minutes in (0, 239, 240, 241, 1319, 1320, 1439):
        at = day + timedelta(minutes=minutes)
        card = cards.get("v", "m", at)
        assert card is not None
        assert card.rates().input == model.get_prices(at).input_mtok, at


def test_every_provider_has_a_list_of_genai_prices() -> None:
    assert set(PROVIDER_IDS.values()) <= {provider.id for provider in providers}
    assert not PROVIDER_IDS.keys() & {provider.id for provider in providers}


def test_the_cards_are_made_once_for_the_process() -> None:
    assert bundled() is bundled()
    first = PriceBook().rates("openai", "gpt-4o", NOW)
    assert PriceBook().rates("openai", "gpt-4o", NOW) is first


def test_no_price_warns() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for provider in providers:
            for model in provider.models:
                PriceBook().rates(provider.id, model.id, NOW)
