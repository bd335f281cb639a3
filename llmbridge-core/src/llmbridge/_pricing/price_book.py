"""Price book: computes the exact cost of a call from its usage and the price of its model."""

from __future__ import annotations

import asyncio
import re
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from operator import mul
from typing import NamedTuple, Protocol

from .._records.fields import UNIT_FIELDS
from .._shared.money import from_units
from ..schemas import CostReason, CostSource
from ..storage.types import ModelPrice
from .decomposition import Unknown
from .genai_prices import editions
from .rate_cards import LIST_OF, RateCard, Rates


class Usage(Protocol):
    """Interface of TokenUsage and CallRecord: counts, None if not measured, and what the response says of its model and
    the terms of its price."""

    @property
    def prompt_tokens(self) -> int | None: ...
    @property
    def completion_tokens(self) -> int | None: ...
    @property
    def cache_read_tokens(self) -> int | None: ...
    @property
    def cache_write_tokens(self) -> int | None: ...
    @property
    def cache_write_1h_tokens(self) -> int | None: ...
    @property
    def reasoning_tokens(self) -> int | None: ...
    @property
    def usage_details(self) -> Mapping[str, int] | None: ...
    @property
    def response_model(self) -> str | None: ...
    @property
    def price_context(self) -> Mapping[str, str] | None: ...


class Price(NamedTuple):
    """Cost of a call, in dollars rounded half-even to 1e-12, or None with the `reason`.

    The rates are those used for uncached input and for output, in dollars per million tokens, exact to 1e-12; None if a
    row cannot store them (9,000,000 and more). `version` is the edition of the price data, with the provider whose
    price list applied if it is not the one called, the entry in the list, and the terms of the call that the entry has
    no price for; for an own price it is the time from which the price is valid, with the model if it is not the one
    that was sent.
    """

    cost: Decimal | None = None
    source: CostSource | None = None
    reason: CostReason | None = None
    input_rate: Decimal | None = None
    output_rate: Decimal | None = None
    version: str | None = None


_UNMEASURED = Price(reason="unmeasured_usage")
_UNKNOWN = Price(reason="unknown_model")
_MISSING = Price(reason="missing_rate")

#: The units of the rates of an own price.
_OWN_RATES = {
    "input_tokens": "input",
    "output_tokens": "output",
    "cache_read_tokens": "cache_read",
    "cache_write_tokens": "cache_write",
    "cache_write_1h_tokens": "cache_write_1h",
}

_LIST_USED = re.compile(f"[^,]*{LIST_OF}([^,]*)")


class PriceBook:
    """Prices of calls: own prices first, then those of genai-prices.

    An own price belongs to exactly one provider and model name. It is valid from its `effective_from`, inclusive, until
    that of the next one. Of two with the same key the last one wins. A price without any rate ends the previous one:
    from then on the price of genai-prices applies.
    """

    def __init__(self, own: Iterable[ModelPrice] = ()) -> None:
        self.replace_own(own)

    def replace_own(self, prices: Iterable[ModelPrice]) -> None:
        """Replace all own prices."""
        by_model: dict[tuple[str, str], dict[datetime, RateCard | None]] = {}
        for price in prices:
            by_model.setdefault((price.provider, price.model_name), {})[price.effective_from] = _own_card(price)
        self._own = {model: _PriceHistory(cards) for model, cards in by_model.items()}

    def price(
        self,
        provider: str,
        model_name: str,
        usage: Usage | None,
        at: datetime,
        *,
        priced_as: str | None = None,
    ) -> Price:
        """Return the cost of a call made at `at` (an aware time).

        `priced_as` is the provider whose price list applies if there is no own price (None: `provider` itself). Usage
        is unmeasured if input or output is None, or if the counts contradict each other: one is negative, or subsets
        are more than the whole. Input or output may be None if other units are told and tokens have no rate. Tokens of
        a kind that did not occur need no rate.
        """
        if usage is None:
            return _UNMEASURED
        prompt, completion, details = usage.prompt_tokens, usage.completion_tokens, usage.usage_details
        if not details and (prompt is None or completion is None):
            return _UNMEASURED
        read = usage.cache_read_tokens or 0
        written_1h = usage.cache_write_1h_tokens or 0
        written = (usage.cache_write_tokens or 0) - written_1h
        reasoning = usage.reasoning_tokens or 0
        fresh, answer = (prompt or 0) - read - written - written_1h, (completion or 0) - reasoning
        counts = (fresh, answer, read, written, written_1h, reasoning)
        if min(counts) < 0:
            return _UNMEASURED

        card = self.rates(
            provider,
            model_name,
            at,
            priced_as=priced_as,
            response_model=usage.response_model,
            context=usage.price_context,
        )
        if card is None:
            return _UNKNOWN
        rates = card.rates(prompt or 0)
        if details:
            charged = rates.decomposition
            shares, shares_per_unit = charged.charge(card.billed(_told(usage))), charged.shares_per_unit
        else:
            shares, shares_per_unit = _shares(rates, counts), rates.shares_per_unit
        if isinstance(shares, str):
            return _UNMEASURED if shares == "unmeasured_usage" else _MISSING
        cost = from_units(shares if shares_per_unit == 1 else _divide(shares, shares_per_unit))
        is_other = priced_as is not None and priced_as != provider and card.source == "prices"
        return Price(cost, card.source, None, *rates.recorded, card.label(priced_as if is_other else None))

    def rates(
        self,
        provider: str,
        model_name: str,
        at: datetime,
        *,
        priced_as: str | None = None,
        response_model: str | None = None,
        context: Mapping[str, str] | None = None,
    ) -> RateCard | None:
        """Return the rate card that is valid at `at` (an aware time); None if the model is unknown.

        `response_model` is the name in the response, `context` the terms of the price that it tells. The first of these
        applies: the own price of `model_name`; that of the response model; the entry in the price list that
        `RateCards.get` chooses.

        :raises ValueError: `at` is naive
        """
        if at.tzinfo is not UTC:
            if at.utcoffset() is None:
                raise ValueError(f"{at!r} has no time zone")
            at = at.astimezone(UTC)
        if self._own:
            for name in (model_name, response_model):
                own = self._own.get((provider, name)) if name is not None else None
                card = own.card(at) if own is not None else None
                if card is not None:
                    return card if name == model_name else replace(card, entry=name or "")
        return editions.current().get(priced_as or provider, model_name, at, response_model, context)


async def load_prices() -> None:
    """Load the current price data, and check from time to time for a newer edition. Work that takes long (some hundred
    milliseconds at first) runs on a thread."""
    if not editions.is_fresh():
        await asyncio.to_thread(editions.refresh)


def list_used(price_version: str | None) -> str | None:
    """Return the provider whose price list priced a call, from its price_version; None: the one that was called."""
    found = _LIST_USED.match(price_version or "")
    return found[1] if found is not None else None


class _PriceHistory:
    """Own prices of one model by start time. A card of None means that genai-prices applies from then on."""

    def __init__(self, cards: dict[datetime, RateCard | None]) -> None:
        self._starts = sorted(cards)
        self._cards = [cards[start] for start in self._starts]

    def card(self, at: datetime) -> RateCard | None:
        started = bisect_right(self._starts, at)
        return self._cards[started - 1] if started else None


def _own_card(price: ModelPrice) -> RateCard | None:
    named = {unit: getattr(price, name) for unit, name in _OWN_RATES.items()}
    units = {unit: rate for unit, rate in named.items() if rate is not None}
    if not units:
        return None
    rates = Rates(
        input=price.input,
        output=price.output,
        cache_read=price.cache_read,
        cache_write=price.cache_write,
        cache_write_1h=price.cache_write_1h,
        reasoning=price.output,
        units=units,
        is_own=True,
    )
    return RateCard("own_prices", price.effective_from.astimezone(UTC).isoformat(), (rates,))


def _told(usage: Usage) -> dict[str, int]:
    """Return all counts of a call that are told, by unit."""
    own = {unit: getattr(usage, name) for unit, name in UNIT_FIELDS.items()}
    return {**(usage.usage_details or {}), **{unit: count for unit, count in own.items() if count is not None}}


def _shares(rates: Rates, counts: tuple[int, int, int, int, int, int]) -> int | Unknown:
    """Return the shares that counts of tokens cost, or why that is unknown.

    :param counts: uncached input, output without reasoning, cache reads, cache writes, cache writes for an hour,
        reasoning
    """
    if rates.input is None and rates.output is None:
        return "missing_rate"
    for kind in rates.unknown:
        if counts[kind]:
            return "missing_rate"
    shares: int = sum(map(mul, counts, rates.shares), rates.request_shares)
    return shares


def _divide(shares: int, shares_per_unit: int) -> int:
    """Return shares as whole units, rounded half-even."""
    units, rest = divmod(shares, shares_per_unit)
    over_half = 2 * rest - shares_per_unit
    return units + (over_half > 0 or (over_half == 0 and units % 2))
