"""A call costs what the model costs that answered it, as far as prices tell that model from the one that was sent."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from llmbridge._pricing.genai_prices.cards import _BY_DEPLOYMENT, bundled
from llmbridge._pricing.price_book import Price, PriceBook
from llmbridge.schemas import TokenUsage
from llmbridge.storage.types import ModelPrice

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
START = datetime(2026, 1, 1, tzinfo=UTC)


def price(sent: str, answered: str | None, *own: ModelPrice, priced_as: str | None = None) -> Price:
    """What a thousand tokens of input and a hundred of output cost."""
    usage = TokenUsage(prompt_tokens=1_000, completion_tokens=100, response_model=answered)
    provider, _, name = sent.partition(":")
    return PriceBook(own).price(provider, name, usage, NOW, priced_as=priced_as)


def entry(found: Price) -> str | None:
    """The entry that a price version names."""
    return (found.version or "").partition(", entry ")[2].partition(",")[0] or None


@pytest.mark.parametrize(
    ("sent", "answered", "cost", "named"),
    [
        # the response names a dated version of the same entry, another entry, or nothing
        ("openai:gpt-4o", "gpt-4o-2024-08-06", "0.0035", "gpt-4o"),
        ("openai:gpt-4o", "gpt-4o-2024-05-13", "0.0065", "gpt-4o-2024-05-13"),
        ("openai:gpt-4o", None, "0.0035", "gpt-4o"),
        ("openai:gpt-4o", "gpt-4o", "0.0035", "gpt-4o"),
        # a model that the provider's list does not have
        ("openai:gpt-4o", "claude-opus-4-8", "0.0035", "gpt-4o"),
        ("openai:gpt-4o", "my-own-model", "0.0035", "gpt-4o"),
        # a name that the list does not have
        ("openai:router", "gpt-4o-mini-2024-07-18", "0.00021", "gpt-4o-mini"),
        ("openai:router", "my-own-model", None, None),
        # deployments have names of their own
        ("azure:gpt-4", "gpt-4o-mini-2024-07-18", "0.00021", "gpt-4o-mini"),
        ("azure:gpt-4", None, "0.036", "gpt-4"),
        ("azure:gpt-4", "my-own-model", None, None),
        ("azure:search-team", "gpt-4o-mini-2024-07-18", "0.00021", "gpt-4o-mini"),
        # suffixes that select a price
        ("openrouter:deepseek/deepseek-r1:free", "deepseek/deepseek-r1", "0", "deepseek/deepseek-r1:free"),
        ("openrouter:deepseek/deepseek-r1:free", "openai/gpt-4o", "0", "deepseek/deepseek-r1:free"),
        ("openrouter:openai/gpt-oss-120b:batch", "openai/gpt-oss-120b", None, "openai/gpt-oss-120b:batch"),
        ("openrouter:openai/gpt-oss-20b:free", "openai/gpt-oss-120b", "0", "openai/gpt-oss-120b:free"),
        ("openrouter:x-ai/grok-4:batch", "x-ai/grok-4", None, None),
        ("openrouter:router:free", "openai/gpt-4o", None, None),
        # and one that does not
        ("openrouter:openai/gpt-4o:nitro", "openai/gpt-4o", "0.0035", "openai/gpt-4o"),
    ],
)
def test_the_entry_of_the_model_that_answered_applies(
    sent: str, answered: str | None, cost: str | None, named: str | None
) -> None:
    found = price(sent, answered)
    assert entry(found) == named
    if cost is not None:
        assert found.cost == Decimal(cost)
    elif named is None:
        assert (found.cost, found.reason) == (None, "unknown_model")
    else:
        assert found.cost == price(f"{sent.partition(':')[0]}:{named}", None).cost


def test_a_list_that_is_resold_prices_only_what_the_own_list_does_not_have() -> None:
    assert entry(price("google:gemini-2.5-flash", "claude-2")) == "gemini-2.5-flash"
    assert entry(price("google:unlisted", "claude-2")) == "claude-2"


def test_a_provider_that_is_priced_as_another_has_the_same_rules() -> None:
    found = price("hub:gpt-4", "gpt-4o-mini-2024-07-18", priced_as="azure")
    assert (found.cost, entry(found)) == (Decimal("0.00021"), "gpt-4o-mini")
    assert (found.version or "").endswith(", list of azure, entry gpt-4o-mini")


def own(name: str, rate: int, start: datetime = START) -> ModelPrice:
    return ModelPrice("openai", name, start, Decimal(rate), Decimal(rate))


def test_own_prices_come_first_that_of_the_name_sent_before_that_of_the_answer() -> None:
    both = (own("gpt-4o", 1), own("gpt-4o-2024-05-13", 2))
    found = price("openai:gpt-4o", "gpt-4o-2024-05-13", *both)
    assert (found.cost, found.version) == (Decimal("0.0011"), START.isoformat())
    found = price("openai:gpt-4o", "gpt-4o-2024-05-13", both[1])
    assert (found.cost, found.version) == (Decimal("0.0022"), f"{START.isoformat()}, entry gpt-4o-2024-05-13")
    found = price("openai:gpt-4o-2024-05-13", "gpt-4o", own("gpt-4o-2024-05-13", 3))
    assert (found.cost, found.version) == (Decimal("0.0033"), START.isoformat())


def test_an_own_price_that_has_not_begun_or_was_withdrawn_gives_way() -> None:
    later = own("gpt-4o", 1, NOW + timedelta(days=1))
    withdrawn = ModelPrice("openai", "gpt-4o-2024-05-13", START)
    assert price("openai:gpt-4o", "gpt-4o-2024-05-13", later, own("gpt-4o-2024-05-13", 2)).cost == Decimal("0.0022")
    assert entry(price("openai:gpt-4o", "gpt-4o-2024-05-13", later, withdrawn)) == "gpt-4o-2024-05-13"


def test_the_lists_that_are_named_by_deployment_exist() -> None:
    for name in _BY_DEPLOYMENT:
        bundled().check_list(name)
