"""Queries over models: find by features and rates, search, compare costs, estimate, statistics."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Protocol, TypedDict, Unpack

from .._pricing.price_book import Price, PriceBook
from .._pricing.rate_cards import RateCard, Rates
from .._shared.money import mean, parse, total
from ..schemas import LLMModel, Message, Money, Result, TokenUsage
from . import catalog
from .catalog import Origin

#: Characters per token, for estimates: a rule of thumb for English text.
CHARACTERS_PER_TOKEN = 4

#: Most tokens of an estimated response.
MAX_ESTIMATED_TOKENS = 1000

_FEATURES = ("vision", "function_calling", "json_mode", "parallel_tool_calls")


@dataclass(frozen=True, slots=True)
class PricedModel:
    """A model and its current rate card. `card` None: it has no price, so its calls are unpriced.

    `rates` are dollars per million tokens of each kind for a short prompt.
    """

    model: LLMModel
    card: RateCard | None

    @property
    def name(self) -> str:
        """The model as `provider:name`, for a request."""
        return f"{self.model.provider}:{self.model.model_name}"

    @property
    def rates(self) -> Rates:
        """The current rates; a rate of None is unknown."""
        return Rates() if self.card is None else self.card.rates()


@dataclass(frozen=True, slots=True)
class ModelCost:
    """A model and the cost of a call to it, in dollars."""

    model: PricedModel
    cost: Decimal


class CostEstimate(Result):
    """Estimated cost of a conversation: `cost` in dollars, or None with its `reason`, and the estimated tokens."""

    prompt_tokens: int
    completion_tokens: int
    cost: Money | None
    reason: str | None


class Span(Result):
    """Least, greatest and mean of the known values; None if there are none. The mean is rounded to 1e-12."""

    least: Money | None = None
    greatest: Money | None = None
    mean: Money | None = None


class ModelStatistics(Result):
    """Numbers of models. All but `total` and `retired` count active models only.

    `priced` models have a rate for input and for output. Rates are dollars per million tokens, `context` is in tokens.
    `providers` has the same numbers for each provider, in order of its name.
    """

    total: int
    active: int
    retired: int
    priced: int
    vision: int
    function_calling: int
    json_mode: int
    parallel_tool_calls: int
    input_rates: Span
    output_rates: Span
    context: Span
    providers: Mapping[str, ModelStatistics]


class Wanted(TypedDict, total=False):
    """Filters for models. None, or a filter that is not given, does not filter; an unknown value does not match.

    Sizes are tokens, rates are dollars per million tokens for a short prompt; bounds are inclusive. Retired models are
    omitted unless `active_only` is False.
    """

    provider: str | Collection[str] | None
    vision: bool | None
    function_calling: bool | None
    json_mode: bool | None
    parallel_tool_calls: bool | None
    min_context: int | None
    max_context: int | None
    min_output_tokens: int | None
    min_input_rate: Decimal | float | str | None
    max_input_rate: Decimal | float | str | None
    min_output_rate: Decimal | float | str | None
    max_output_rate: Decimal | float | str | None
    active_only: bool


class ModelStore(Protocol):
    """The models and the prices of a database."""

    @property
    def prices(self) -> PriceBook:
        """The prices that calls are charged by."""

    async def refresh_prices(self) -> None:
        """Update the price book with what other processes changed."""

    async def known_models(self) -> list[LLMModel]:
        """Return all models, including retired ones."""


class ProviderNames(Protocol):
    """The providers that a model string can name."""

    def resolve(self, requested: str | None) -> tuple[str, str]:
        """Return the provider and the model name of a model string."""

    def priced_as(self, name: str) -> str | None:
        """Return the provider whose price list applies to the calls of provider `name`; None: its own."""


class Models:
    """Models of the database, or bundled ones without a database, with their current prices."""

    def __init__(self, store: ModelStore, providers: ProviderNames) -> None:
        self._store = store
        self._providers = providers

    @property
    def catalog_version(self) -> str:
        """Return the version of the bundled catalog of models."""
        return catalog.VERSION

    def origin(self, model: LLMModel) -> Origin | None:
        """Return where the catalog's entry of a model can be checked; None if it has none, or a user entered it."""
        return None if model.source == "user" else catalog.origin(model.provider, model.model_name)

    async def find(self, **wanted: Unpack[Wanted]) -> list[PricedModel]:
        """Return the models that match the filters (see `Wanted`), in order of provider and name.

        :raises TypeError: `Wanted` has no such filter
        :raises ValueError: a rate is not a valid amount of dollars
        """
        is_wanted = _test(wanted)
        return [model for model in await self._all() if is_wanted(model)]

    async def search(self, text: str, **wanted: Unpack[Wanted]) -> list[PricedModel]:
        """Return the models whose name or description contains every word of `text`, ignoring case.

        Models that have all words in their name come first.
        """
        words = text.lower().split()

        def found_in(*texts: str | None) -> bool:
            joined = " ".join(filter(None, texts)).lower()
            return all(word in joined for word in words)

        named, described = [], []
        for model in await self.find(**wanted):
            known = model.model
            if found_in(model.name, known.display_name):
                named.append(model)
            elif found_in(model.name, known.display_name, known.description):
                described.append(model)
        return named + described

    async def cheapest(self, prompt_tokens: int, completion_tokens: int, **wanted: Unpack[Wanted]) -> list[ModelCost]:
        """Return what a call with so many tokens costs at each model, cheapest first, then by name.

        Models without a price, and those whose context or output is too small for the call, are omitted. Unless
        `active_only` is False, so are those of the bundled catalog that nobody has confirmed for a year: they may no
        longer exist.

        :raises ValueError: a number of tokens is negative
        """
        usage = _checked(TokenUsage(prompt_tokens=prompt_tokens, completion_tokens=completion_tokens))
        costs = []
        for model in await self.find(**wanted):
            origin = self.origin(model.model)
            if wanted.get("active_only", True) and origin is not None and not origin.is_confirmed():
                continue
            context, output = model.model.max_context, model.model.max_output_tokens
            too_small = (context is not None and context < prompt_tokens) or (
                output is not None and output < completion_tokens
            )
            cost = None if too_small else self._price(model.model.provider, model.model.model_name, usage).cost
            if cost is not None:
                costs.append(ModelCost(model, cost))
        return sorted(costs, key=lambda found: (found.cost, found.model.name))

    async def cost(
        self,
        model: str,
        prompt_tokens: int,
        completion_tokens: int,
        *,
        cache_read_tokens: int = 0,
        cache_write_tokens: int = 0,
        cache_write_1h_tokens: int = 0,
    ) -> Price:
        """Return what a call would cost now, in dollars, or why that is unknown. Tokens count as in `TokenUsage`.

        :raises ValueError: a number of tokens is negative
        :raises ModelNotFoundError, ProviderNotFoundError: the model is unknown, and so is its provider
        """
        usage = TokenUsage(
            prompt_tokens=prompt_tokens,
            completion_tokens=completion_tokens,
            cache_read_tokens=cache_read_tokens,
            cache_write_tokens=cache_write_tokens,
            cache_write_1h_tokens=cache_write_1h_tokens,
        )
        provider, name = self._resolve_known(model, await self._all())
        return self._price(provider, name, _checked(usage))

    async def estimate(
        self, model: str, messages: Sequence[Message | Mapping[str, Any]], completion_tokens: int | None = None
    ) -> CostEstimate:
        """Return a rough estimate of the cost of a conversation.

        Four characters of text count as one token, and images are not counted. Without `completion_tokens` the response
        is assumed to be half as long as the messages, at most 1,000 tokens.

        :raises ModelNotFoundError, ProviderNotFoundError: the model is unknown, and so is its provider
        """
        prompt = -(-sum(map(_characters, messages)) // CHARACTERS_PER_TOKEN)
        completion = min(prompt // 2, MAX_ESTIMATED_TOKENS) if completion_tokens is None else completion_tokens
        price = await self.cost(model, prompt, completion)
        return CostEstimate(prompt_tokens=prompt, completion_tokens=completion, cost=price.cost, reason=price.reason)

    async def statistics(self) -> ModelStatistics:
        """Return the numbers of models, their features and the spans of their rates, in all and by provider."""
        models = await self._all()
        by_provider = {
            provider: _statistics([found for found in models if found.model.provider == provider])
            for provider in sorted({found.model.provider for found in models})
        }
        return _statistics(models, by_provider)

    async def _all(self) -> list[PricedModel]:
        models = await self._store.known_models()
        await self._store.refresh_prices()
        return [PricedModel(model, self._card(model)) for model in models]

    def _card(self, model: LLMModel) -> RateCard | None:
        provider, now = model.provider, datetime.now(UTC)
        priced_as = self._providers.priced_as(provider)
        return self._store.prices.rates(provider, model.model_name, now, priced_as=priced_as)

    def _price(self, provider: str, name: str, usage: TokenUsage) -> Price:
        priced_as = self._providers.priced_as(provider)
        return self._store.prices.price(provider, name, usage, datetime.now(UTC), priced_as=priced_as)

    def _resolve_known(self, text: str, models: Sequence[PricedModel]) -> tuple[str, str]:
        found = [m.model for m in models if m.name == text] or [m.model for m in models if m.model.model_name == text]
        if len(found) == 1:
            return found[0].provider, found[0].model_name
        return self._providers.resolve(text)


def _test(wanted: Wanted) -> Callable[[PricedModel], bool]:
    if unknown := wanted.keys() - Wanted.__annotations__.keys():
        raise TypeError(f"models have no filter {min(unknown)!r}; known: {', '.join(Wanted.__annotations__)}")
    chosen = wanted.get("provider")
    providers = {chosen} if isinstance(chosen, str) else None if chosen is None else {*chosen}
    least = {name: _amount(wanted.get(f"min_{name}_rate")) for name in ("input", "output")}
    most = {name: _amount(wanted.get(f"max_{name}_rate")) for name in ("input", "output")}

    def has(found: PricedModel) -> bool:
        model, rates = found.model, found.rates
        return (
            (model.is_active or not wanted.get("active_only", True))
            and (providers is None or model.provider in providers)
            and all(wanted.get(name) in (None, getattr(model, f"supports_{name}")) for name in _FEATURES)
            and _is_within(model.max_context, wanted.get("min_context"), wanted.get("max_context"))
            and _is_within(model.max_output_tokens, wanted.get("min_output_tokens"), None)
            and all(_is_within(getattr(rates, name), least[name], most[name]) for name in least)
        )

    return has


def _is_within(value: Any, least: Any, most: Any) -> bool:
    if least is None and most is None:
        return True
    return value is not None and (least is None or value >= least) and (most is None or value <= most)


def _amount(value: Any) -> Decimal | None:
    return None if value is None else parse(value)


def _checked(usage: TokenUsage) -> TokenUsage:
    for name, count in usage:
        if isinstance(count, int) and count < 0:
            raise ValueError(f"{name} is {count}; it must not be negative")
    return usage


def _characters(message: Message | Mapping[str, Any]) -> int:
    content = message.content if isinstance(message, Message) else message.get("content")
    if isinstance(content, str):
        return len(content)
    parts = content if isinstance(content, list) else []
    texts = [part.get("text") for part in parts if isinstance(part, Mapping)]
    return sum(len(text) for text in texts if isinstance(text, str))


def _statistics(
    models: Sequence[PricedModel], providers: Mapping[str, ModelStatistics] | None = None
) -> ModelStatistics:
    active = [found for found in models if found.model.is_active]
    features = {name: sum(getattr(found.model, f"supports_{name}") for found in active) for name in _FEATURES}
    return ModelStatistics(
        total=len(models),
        active=len(active),
        retired=len(models) - len(active),
        priced=sum(None not in (found.rates.input, found.rates.output) for found in active),
        **features,
        input_rates=_span(found.rates.input for found in active),
        output_rates=_span(found.rates.output for found in active),
        context=_span(None if (size := found.model.max_context) is None else Decimal(size) for found in active),
        providers=providers or {},
    )


def _span(values: Iterable[Decimal | None]) -> Span:
    known = [value for value in values if value is not None]
    if not known:
        return Span()
    return Span(least=min(known), greatest=max(known), mean=mean(total(known), len(known)))
