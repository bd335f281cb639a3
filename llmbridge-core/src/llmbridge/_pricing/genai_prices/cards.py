"""Rate cards built from the data of genai-prices, once per model and price period."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from copy import copy
from datetime import UTC, date, datetime, time
from decimal import Decimal
from functools import cache
from typing import TYPE_CHECKING

from ..._shared.money import CONTEXT, parse
from ..._shared.spelling import hint
from ...providers.pydantic_ai.table import PROVIDERS
from ..contexts import listed, unpriced
from ..rate_cards import RateCard, Rates, decimal_places
from .units import REQUESTS, by_price_key, check_coverage, nearest, units

if TYPE_CHECKING:
    from genai_prices.types import ModelInfo, Provider, TieredPrices
    from genai_prices.types import ModelPrice as GenaiPrice

#: Ids of price lists in genai-prices for names of providers that differ from them: those of the table of providers, and
#: names that others use. The loose matching of genai-prices is not used: it takes any name with "openai" in it for
#: OpenAI.
PROVIDER_IDS = {
    **{name: row.price_list for name, row in PROVIDERS.items() if row.price_list is not None},
    "azure-openai": "azure",
    "azure-responses": "azure",
    "bedrock-mantle": "aws",
    "gemini": "google",
    "google-gla": "google",
    "google-vertex": "google",
    "grok": "x-ai",
    "mistralai": "mistral",
    "moonshot": "moonshotai",
    "openai-chat": "openai",
    "openai-responses": "openai",
    "together-ai": "together",
    "together_ai": "together",
    "vertex": "google",
    "voyage": "voyageai",
}

#: Seconds of audio for which a call is charged at least, by price list and model. genai-prices has them in its code.
LEAST_SECONDS = {("groq", "whisper-large-v3"): 10, ("groq", "whisper-large-v3-turbo"): 10}

#: Price lists of providers whose users give names of their own to models: only the response tells the model.
_BY_DEPLOYMENT = frozenset({"azure"})

#: Most models and contexts in the cache; both come from callers, so there may be any number of them.
_MAX_MODELS = 4096

#: Most decimal places of a rate; published rates have at most those of a float.
_MAX_DECIMALS = 30

_FREE = Decimal(0)
_ALWAYS = (0, 0)


class RateCards:
    """Rate cards of one edition of genai-prices' data, built once per model, context and price period.

    :param version: the name of the edition
    """

    def __init__(self, providers: Iterable[Provider], version: str) -> None:
        self._providers = list(providers)
        self._by_id = {provider.id: provider for provider in self._providers}
        self.version = version
        self._models: dict[tuple[object, ...], _PricedModel | None] = {}
        self._suffixes: dict[str, frozenset[str]] = {}

    def get(
        self,
        provider: str,
        model_name: str,
        at: datetime,
        response_model: str | None = None,
        context: Mapping[str, str] | None = None,
    ) -> RateCard | None:
        """Return the card that is valid at `at` (UTC); None if the data does not have the provider or the model.

        Only the provider's own list is searched, and the lists that the data says it resells (Azure: OpenAI). The
        prices of a list in a context hold for its own provider alone.

        :param model_name: the name that was sent
        :param response_model: the name in the response. Its entry applies if it is in the provider's own list and not
            that of the name that was sent, or if that has none
        :param context: the terms of the price, as the response spells them
        """
        key: tuple[object, ...] = (provider, model_name, response_model)
        if context:
            key += tuple(context.items())
        try:
            model = self._models[key]
        except KeyError:
            model = self._find(provider, model_name, response_model, context or {})
            if len(self._models) >= _MAX_MODELS:
                self._models.clear()
            self._models[key] = model
        return None if model is None else model.card(at)

    def counts(self) -> tuple[int, int]:
        """Return how many providers the data has, and how many models."""
        return len(self._providers), sum(len(provider.models) for provider in self._providers)

    def check(self) -> None:
        """Build every card and compile every regular expression once, to find errors in the data.

        :raises ValueError: the data cannot be used; the text names the model and says what is wrong
        """
        for provider in self._providers:
            for model in provider.models:
                try:
                    _check(model, self.version)
                except (ValueError, ArithmeticError) as error:
                    raise ValueError(f"{provider.id}:{model.id}: {error}") from error

    def check_list(self, provider: str) -> None:
        """Raise ValueError if the data has no price list of this provider."""
        if self._list(provider) is None:
            close = hint(provider, [*self._by_id, *PROVIDER_IDS])
            raise ValueError(f"{self.version} has no price list of a provider {provider!r}{close}")

    def _list(self, provider: str) -> Provider | None:
        name = provider.lower()
        return self._by_id.get(PROVIDER_IDS.get(name, name))

    def _find(
        self, provider: str, model_name: str, response_model: str | None, context: Mapping[str, str]
    ) -> _PricedModel | None:
        price_list = self._list(provider)
        if price_list is None:
            return None
        found = self._entry(price_list, model_name, response_model)
        if found is None:
            return None
        is_resold = not any(found is model for model in price_list.models)
        return _PricedModel(
            found,
            self.version,
            context,
            is_resold=is_resold,
            least_seconds=LEAST_SECONDS.get((price_list.id, found.id), 0),
        )

    def _entry(self, price_list: Provider, model_name: str, response_model: str | None) -> ModelInfo | None:
        """Return the entry of the name that was sent, or of the name in the response."""
        sent = self._named(price_list, model_name)
        if response_model is None or response_model == model_name:
            return sent
        suffix = model_name.rpartition(":")[2] if ":" in model_name else ""
        if suffix not in self._price_suffixes(price_list):
            answered = self._named(price_list, response_model)
        else:
            ending = f":{suffix}"
            answered = self._named(price_list, f"{response_model.removesuffix(ending)}{ending}")
            if answered is not None and not answered.id.endswith(ending):
                answered = None
        if price_list.id in _BY_DEPLOYMENT or sent is None:
            return answered
        return answered if answered is not None and any(answered is model for model in price_list.models) else sent

    def _named(self, price_list: Provider, name: str) -> ModelInfo | None:
        found = price_list.find_model(name, all_providers=self._providers)
        return None if found is None or found.prices == [] else found

    def _price_suffixes(self, price_list: Provider) -> frozenset[str]:
        """Return what follows the last colon in names of models and selects another price of the same model, such as
        `free` and `batch` at OpenRouter."""
        if price_list.id not in self._suffixes:
            names = {model.id for model in price_list.models}
            parts = [name.rpartition(":") for name in names]
            self._suffixes[price_list.id] = frozenset(
                suffix for stem, colon, suffix in parts if colon and stem in names
            )
        return self._suffixes[price_list.id]


class _PricedModel:
    """One model in one context, and its price periods, bounded by the UTC dates and times of day at which its prices
    may change.

    :param context: the terms of the call, as its answer spells them
    :param is_resold: whether the model is of another provider's list, whose prices in a context do not hold
    :param least_seconds: seconds of audio for which a call is charged at least
    """

    def __init__(
        self, model: ModelInfo, version: str, context: Mapping[str, str], *, is_resold: bool, least_seconds: int
    ) -> None:
        from genai_prices.types import StartDateConstraint, TimeOfDateConstraint

        self._model = model
        self._version = version
        self._context = {pair: listed(pair) for pair in context.items()}
        self._listed = dict(self._context.values())
        self._variants = [
            variant
            for variant in model.price_variants or ()
            if not is_resold and variant.when.items() <= self._listed.items()
        ]
        self._least_seconds = least_seconds
        self._dates: list[date] = []
        self._times: list[time] = []
        self._known_periods = True
        self._cards: dict[tuple[int, int], RateCard] = {}
        conditions = [*(model.prices if isinstance(model.prices, list) else ()), *self._variants]
        for constraint in (condition.constraint for condition in conditions):
            if isinstance(constraint, StartDateConstraint):
                self._dates.append(constraint.start_date)
            elif isinstance(constraint, TimeOfDateConstraint):
                self._times += [_utc(constraint.start_time), _utc(constraint.end_time)]
            elif constraint is not None:
                self._known_periods = False
        self._dates.sort()
        self._times.sort()

    def card(self, at: datetime) -> RateCard:
        if not self._known_periods:
            return self._card(at)
        dates, times = self._dates, self._times
        period = (
            (bisect_right(dates, at.date()) if dates else 0, bisect_right(times, at.time()) if times else 0)
            if dates or times
            else _ALWAYS
        )
        card = self._cards.get(period)
        if card is None:
            card = self._cards[period] = self._card(at)
        return card

    def _card(self, at: datetime) -> RateCard:
        price = self._model.get_prices(at, self._listed if self._variants else None)
        return _card(price, self._version, self._model.id, self._notes(at), self._least_seconds)

    def _notes(self, at: datetime) -> str:
        """Return the contexts that the price at `at` does not take into account, for a price version."""
        active = [v.when for v in self._variants if v.constraint is None or v.constraint.active(at)]
        return unpriced(self._context, {pair for when in active for pair in when.items()})


@cache
def bundled() -> RateCards:
    """Return the cards of the installed genai-prices. The first call takes up to a second. Nothing is fetched."""
    from importlib.metadata import version

    from genai_prices.data import providers

    return RateCards(providers, f"genai-prices {version('genai-prices')}")


def _check(model: ModelInfo, version: str) -> None:
    for expression in _expressions(model.match):
        try:
            re.compile(expression)
        except re.error as error:
            raise ValueError(f"{expression!r} is not a valid regular expression: {error}") from error
    standard = [one.prices for one in model.prices] if isinstance(model.prices, list) else [model.prices]
    variants = [variant.prices for variant in model.price_variants or ()]
    for price in (*standard, *variants):
        for name, rate in vars(price).items():
            for amount in _amounts(rate):
                _check_rate(name, amount)
    for price in standard:
        for changes in ([], *([variant] for variant in variants), variants):
            check_coverage(_rates(_changed(price, changes), 0).units.keys() & units().keys())
        _card(price, version, model.id)


def _check_rate(name: str, rate: Decimal) -> None:
    try:
        amount = parse(rate)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    if amount < 0:
        raise ValueError(f"{name} is negative")
    if decimal_places(rate) > _MAX_DECIMALS:
        raise ValueError(f"{name} has more than {_MAX_DECIMALS} decimal places")


def _amounts(rate: Decimal | TieredPrices | None) -> list[Decimal]:
    if rate is None or isinstance(rate, Decimal):
        return [] if rate is None else [rate]
    return [rate.base, *(tier.price for tier in rate.tiers)]


def _expressions(match: object) -> Iterator[str]:
    """Yield the regular expressions of a match rule and of the rules in it."""
    from genai_prices.types import ClauseRegex

    if isinstance(match, ClauseRegex):
        yield match.regex
        return
    for part in vars(match).values():
        for rule in part if isinstance(part, list) else ():
            yield from _expressions(rule)


def _utc(at: time) -> time:
    """Return a time of day in UTC. Like genai-prices, take one without an offset as UTC."""
    if at.tzinfo is None:
        return at
    return datetime.combine(date(1970, 1, 1), at).astimezone(UTC).time()


def _changed(price: GenaiPrice, changes: Iterable[GenaiPrice]) -> GenaiPrice:
    changed = copy(price)
    for change in changes:
        vars(changed).update({name: rate for name, rate in vars(change).items() if rate is not None})
    return changed


def _card(price: GenaiPrice, version: str, entry: str, notes: str = "", least_seconds: int = 0) -> RateCard:
    from genai_prices.types import TieredPrices

    tiered = (rate for rate in vars(price).values() if isinstance(rate, TieredPrices))
    steps = {tier.start for rate in tiered for tier in rate.tiers}
    thresholds = tuple(sorted(steps))
    prompts = (0, *(threshold + 1 for threshold in thresholds))
    bands = tuple(_rates(price, prompt) for prompt in prompts)
    return RateCard("prices", version, bands, thresholds, entry, notes, least_seconds)


def _rates(price: GenaiPrice, prompt_tokens: int) -> Rates:
    """Return the rates for one length of prompt, with genai-prices' rules for kinds of tokens that a price omits.

    Tokens without a rate of their own cost as much as the kind that includes them (tokens that a cache keeps for an
    hour as all others written to it; Anthropic's list has both, 2 and 1.25 times the input). Input and output that are
    not listed are free. If only other things are charged (hours of audio, pages), no rate is known: tokens say nothing
    about the cost.
    """
    known = by_price_key()
    rates = {
        known[name].name if name in known else name: _at(rate, prompt_tokens)
        for name, rate in vars(price).items()
        if rate is not None
    }
    rated = {name for name in rates if name in units()}
    if rates and REQUESTS not in rated and not any(units()[name].is_tokens for name in rated):
        return Rates(units=rates)

    def rate(name: str) -> Decimal:
        unit = nearest(units()[name], rated)
        return _FREE if unit is None else rates[unit.name]

    return Rates(
        input=rate("input_tokens"),
        output=rate("output_tokens"),
        cache_read=rate("cache_read_tokens"),
        cache_write=rate("cache_write_tokens"),
        cache_write_1h=rate("cache_write_1h_tokens"),
        reasoning=rate("output_reasoning_tokens"),
        request=rates.get(REQUESTS, _FREE).scaleb(-3, context=CONTEXT),
        units=rates,
    )


def _at(rate: Decimal | TieredPrices, prompt_tokens: int) -> Decimal:
    if isinstance(rate, Decimal):
        return rate
    reached = [tier.price for tier in rate.tiers if prompt_tokens > tier.start]
    return reached[-1] if reached else rate.base
