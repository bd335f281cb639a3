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

from .._records.fields import RATE_FIELDS, UNIT_FIELDS
from .._shared.money import CONTEXT, from_units
from ..schemas import CostReason, CostSource
from ..storage.types import ModelPrice
from .contexts import Pair, listed, unpriced
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
    that was sent. `factor` multiplied the list price (None: nothing did).
    """

    cost: Decimal | None = None
    source: CostSource | None = None
    reason: CostReason | None = None
    input_rate: Decimal | None = None
    output_rate: Decimal | None = None
    version: str | None = None
    factor: Decimal | None = None


_UNMEASURED = Price(reason="unmeasured_usage")
_UNKNOWN = Price(reason="unknown_model")
_MISSING = Price(reason="missing_rate")

#: The model name of own prices for all models of a provider.
ANY_MODEL = "*"

#: A price context in the spelling of the price list.
_Context = frozenset[Pair]
#: What an own price says: rates, a factor of the list price, or nothing (it ends the previous one).
_Own = RateCard | Decimal | None

_LIST_USED = re.compile(f"[^,]*{LIST_OF}([^,]*)")


class PriceBook:
    """Prices of calls: own prices first, then those of genai-prices.

    An own price belongs to a provider, to a model name or `*` (all models that have no own price at that time), and to
    a price context. It is valid from its `effective_from`, inclusive, until that of the next one. Of two with the same
    key the last one wins. A price without any rate ends the previous one: from then on the price of genai-prices
    applies, multiplied by the factor of that price.
    """

    def __init__(self, own: Iterable[ModelPrice] = ()) -> None:
        self.replace_own(own)

    def replace_own(self, prices: Iterable[ModelPrice]) -> None:
        """Replace all own prices."""
        by_model: dict[tuple[str, str], dict[_Context, dict[datetime, _Own]]] = {}
        for price in prices:
            histories = by_model.setdefault((price.provider, price.model_name), {})
            context = frozenset(map(listed, price.context.items()))
            histories.setdefault(context, {})[price.effective_from] = _own(price)
        self._own = {model: _OwnPrices(histories) for model, histories in by_model.items()}

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

        card = self.rates(provider, model_name, at, priced_as, usage.response_model, usage.price_context)
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
        if priced_as is None or priced_as == provider or card.source != "prices":
            version = card.price_version
        else:
            version = card.version_of_list(priced_as)
        return Price(cost, card.source, None, *rates.recorded, version, card.factor)

    def rates(
        self,
        provider: str,
        model_name: str,
        at: datetime,
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
        own = self._own_price(provider, model_name, at, response_model, context) if self._own else None
        if isinstance(own, RateCard):
            return own
        card = editions.current().get(priced_as or provider, model_name, at, response_model, context)
        return card if own is None or card is None else card.times(own)

    def _own_price(
        self,
        provider: str,
        model_name: str,
        at: datetime,
        response_model: str | None,
        context: Mapping[str, str] | None,
    ) -> _Own:
        for name in dict.fromkeys((model_name, response_model, ANY_MODEL)):
            prices = self._own.get((provider, name)) if name is not None else None
            found = prices.find(at, context or {}) if prices is not None else None
            if isinstance(found, RateCard) and name != model_name:
                return replace(found, entry=name or "")
            if found is not None:
                return found
        return None


async def load_prices() -> None:
    """Load the current price data, and check from time to time for a newer edition. Work that takes long (some hundred
    milliseconds at first) runs on a thread."""
    if not editions.is_fresh():
        await asyncio.to_thread(editions.refresh)


def list_used(price_version: str | None) -> str | None:
    """Return the provider whose price list priced a call, from its price_version; None: the one that was called."""
    found = _LIST_USED.match(price_version or "")
    return found[1] if found is not None else None


class _OwnPrices:
    """Own prices of one model, by context and start time."""

    def __init__(self, histories: Mapping[_Context, Mapping[datetime, _Own]]) -> None:
        # Those with the most of a context come first; the order of equally many is always the same.
        contexts = sorted(histories, key=lambda context: (-len(context), sorted(context)))
        self._histories = [(context, *_sorted(histories[context])) for context in contexts]

    def find(self, at: datetime, context: Mapping[str, str]) -> _Own:
        """Return the rate card or the factor that is valid at `at` for a call of this context; None if there is none.
        What the card's own context does not have is noted on it."""
        terms = {pair: listed(pair) for pair in context.items()}
        for needed, starts, prices in self._histories:
            started = bisect_right(starts, at)
            if not started or prices[started - 1] is None or not needed <= {*terms.values()}:
                continue
            found = prices[started - 1]
            notes = unpriced(terms, needed) if terms and isinstance(found, RateCard) else ""
            return replace(found, notes=notes) if notes and isinstance(found, RateCard) else found
        return None


def _sorted(history: Mapping[datetime, _Own]) -> tuple[list[datetime], list[_Own]]:
    starts = sorted(history)
    return starts, [history[start] for start in starts]


def _own(price: ModelPrice) -> _Own:
    named = {unit: getattr(price, name) for unit, name in RATE_FIELDS.items()}
    units = {**{unit: rate for unit, rate in named.items() if rate is not None}, **price.rates}
    if not units:
        return price.factor
    rates = Rates(
        input=price.input,
        output=price.output,
        cache_read=price.cache_read,
        cache_write=price.cache_write,
        cache_write_1h=price.cache_write_1h,
        reasoning=price.rates.get("output_reasoning_tokens", price.output),
        request=CONTEXT.scaleb(price.rates.get("requests", Decimal(0)), -3),
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
