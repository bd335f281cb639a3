"""Questions about models: which can do this, which fit, which are cheapest, and what would it cost."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, TypedDict, Unpack

from .._pricing.price_book import Price, PriceBook
from .._pricing.rate_cards import RateCard, Rates
from .._shared.money import mean, parse, total
from ..schemas import LLMModel, Message, TokenUsage
from . import catalog
from .catalog import Origin

#: Characters that a token stands for where nobody counts them: a rule of thumb for English text.
CHARACTERS_PER_TOKEN = 4

#: Most tokens of an answer that is only estimated.
MOST_ESTIMATED = 1000

_FEATURES = ("vision", "function_calling", "json_mode", "parallel_tool_calls")


@dataclass(frozen=True, slots=True)
class PricedModel:
    """A model, and its price list now; `card` None: it has none, so its calls are unpriced.

    `rates` are dollars per million tokens of each kind for a short prompt.
    """

    model: LLMModel
    card: RateCard | None

    @property
    def name(self) -> str:
        """`vendor:name`, as a request has it."""
        return f"{self.model.provider}:{self.model.model_name}"

    @property
    def rates(self) -> Rates:
        """The rates now; None in them is not known."""
        return Rates() if self.card is None else self.card.rates()


@dataclass(frozen=True, slots=True)
class ModelCost:
    """A model, and what it asks for a call, in dollars."""

    model: PricedModel
    cost: Decimal


@dataclass(frozen=True, slots=True)
class CostEstimate:
    """What a conversation may cost: `cost` in dollars, or None with its `reason`, for estimated counts of tokens."""

    prompt_tokens: int
    completion_tokens: int
    cost: Decimal | None
    reason: str | None


@dataclass(frozen=True, slots=True)
class Span:
    """The least, the greatest and the mean of what is known; None of nothing. The mean is rounded to 1e-12."""

    least: Decimal | None = None
    greatest: Decimal | None = None
    mean: Decimal | None = None


@dataclass(frozen=True, slots=True)
class ModelStatistics:
    """How many models there are. All but `total` and `retired` is about active ones.

    `priced` have a rate for input and for output. Rates are dollars per million tokens, `context` is tokens.
    `vendors` are the same of each vendor, in order of its name.
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
    vendors: Mapping[str, ModelStatistics]


class Wanted(TypedDict, total=False):
    """What a model must have. None, or a filter that is not given, does not filter; what is not known of a model it has
    not.

    Sizes are tokens, rates are dollars per million tokens for a short prompt; bounds are included. Retired models are
    left out unless `active_only` is False.
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


class Models:
    """The models that the books know, or without books the bundled ones, with the prices in force now.

    :param list_models: gives all models, retired ones included
    :param refresh_prices: has the price book take up what other processes changed
    :param prices: gives the price book
    :param resolve: the vendor and the name that a model string leads to
    :param priced_as: whose price list applies to the calls of a vendor (None: its own)
    """

    def __init__(
        self,
        list_models: Callable[[], Awaitable[Iterable[LLMModel]]],
        refresh_prices: Callable[[], Awaitable[None]],
        prices: Callable[[], PriceBook],
        resolve: Callable[[str], tuple[str, str]],
        priced_as: Callable[[str], str | None] = lambda vendor: None,
    ) -> None:
        self._list_models = list_models
        self._refresh_prices = refresh_prices
        self._prices = prices
        self._resolve = resolve
        self._priced_as = priced_as

    @property
    def catalog_version(self) -> str:
        """Return the version of the bundled catalog of models."""
        return catalog.VERSION

    def origin(self, model: LLMModel) -> Origin | None:
        """Return where the catalog's entry of a model can be checked; None if it has none, or a user entered it."""
        return None if model.source == "user" else catalog.origin(model.provider, model.model_name)

    async def find(self, **wanted: Unpack[Wanted]) -> list[PricedModel]:
        """The models that have what is wanted (see `Wanted`), in order of vendor and name.

        :raises TypeError: `Wanted` has no such name
        :raises ValueError: a rate that is no amount of dollars
        """
        is_wanted = _test(wanted)
        return [model for model in await self._all() if is_wanted(model)]

    async def search(self, text: str, **wanted: Unpack[Wanted]) -> list[PricedModel]:
        """The models in whose name or description every word of `text` occurs, whatever the case; those first that
        have all of them in their name."""
        words = text.lower().split()

        def found_in(*texts: str | None) -> bool:
            said = " ".join(filter(None, texts)).lower()
            return all(word in said for word in words)

        named, described = [], []
        for model in await self.find(**wanted):
            known = model.model
            if found_in(model.name, known.display_name):
                named.append(model)
            elif found_in(model.name, known.display_name, known.description):
                described.append(model)
        return named + described

    async def cheapest(self, prompt_tokens: int, completion_tokens: int, **wanted: Unpack[Wanted]) -> list[ModelCost]:
        """What a call with so many tokens costs, by model, cheapest first, then by name.

        Left out are models without a price, and those that are known to be too small for it.

        :raises ValueError: tokens below 0
        """
        usage = _checked(TokenUsage(prompt_tokens=prompt_tokens, completion_tokens=completion_tokens))
        costs = []
        for model in await self.find(**wanted):
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
        """What a call would cost now, in dollars, or why that is not known. Tokens count as in `TokenUsage`.

        :raises ValueError: tokens below 0
        :raises ModelNotFoundError, ProviderNotFoundError: the model is not known and leads to no vendor
        """
        usage = TokenUsage(
            prompt_tokens=prompt_tokens,
            completion_tokens=completion_tokens,
            cache_read_tokens=cache_read_tokens,
            cache_write_tokens=cache_write_tokens,
            cache_write_1h_tokens=cache_write_1h_tokens,
        )
        vendor, name = self._named(model, await self._all())
        return self._price(vendor, name, _checked(usage))

    async def estimate(
        self, model: str, messages: Sequence[Message | Mapping[str, Any]], completion_tokens: int | None = None
    ) -> CostEstimate:
        """What a conversation would cost, roughly: a token is taken for four characters of text, and pictures are not
        counted. Without `completion_tokens` the answer is taken to be half as long as the messages, at most 1,000
        tokens.

        :raises ModelNotFoundError, ProviderNotFoundError: the model is not known and leads to no vendor
        """
        prompt = -(-sum(map(_characters, messages)) // CHARACTERS_PER_TOKEN)
        completion = min(prompt // 2, MOST_ESTIMATED) if completion_tokens is None else completion_tokens
        price = await self.cost(model, prompt, completion)
        return CostEstimate(prompt, completion, price.cost, price.reason)

    async def statistics(self) -> ModelStatistics:
        """How many models there are, what they can do and what they ask, in all and by vendor."""
        models = await self._all()
        vendors = sorted({found.model.provider for found in models})
        of_each = {vendor: _statistics([one for one in models if one.model.provider == vendor]) for vendor in vendors}
        return _statistics(models, of_each)

    async def _all(self) -> list[PricedModel]:
        models = await self._list_models()
        await self._refresh_prices()
        return [PricedModel(model, self._card(model)) for model in models]

    def _card(self, model: LLMModel) -> RateCard | None:
        vendor, now = model.provider, datetime.now(UTC)
        return self._prices().rates(vendor, model.model_name, now, priced_as=self._priced_as(vendor))

    def _price(self, vendor: str, name: str, usage: TokenUsage) -> Price:
        return self._prices().price(vendor, name, usage, datetime.now(UTC), priced_as=self._priced_as(vendor))

    def _named(self, text: str, models: Sequence[PricedModel]) -> tuple[str, str]:
        found = [m.model for m in models if m.name == text] or [m.model for m in models if m.model.model_name == text]
        if len(found) == 1:
            return found[0].provider, found[0].model_name
        return self._resolve(text)


def _test(wanted: Wanted) -> Callable[[PricedModel], bool]:
    if unknown := wanted.keys() - Wanted.__annotations__.keys():
        raise TypeError(f"models are not found by {min(unknown)!r}; known: {', '.join(Wanted.__annotations__)}")
    providers = wanted.get("provider")
    vendors = {providers} if isinstance(providers, str) else None if providers is None else {*providers}
    least = {name: _amount(wanted.get(f"min_{name}_rate")) for name in ("input", "output")}
    most = {name: _amount(wanted.get(f"max_{name}_rate")) for name in ("input", "output")}

    def has(found: PricedModel) -> bool:
        model, rates = found.model, found.rates
        return (
            (model.is_active or not wanted.get("active_only", True))
            and (vendors is None or model.provider in vendors)
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
            raise ValueError(f"{name} is {count}; it cannot be less than 0")
    return usage


def _characters(message: Message | Mapping[str, Any]) -> int:
    content = message.content if isinstance(message, Message) else message.get("content")
    if isinstance(content, str):
        return len(content)
    parts = content if isinstance(content, list) else []
    texts = [part.get("text") for part in parts if isinstance(part, Mapping)]
    return sum(len(text) for text in texts if isinstance(text, str))


def _statistics(models: Sequence[PricedModel], vendors: Mapping[str, ModelStatistics] | None = None) -> ModelStatistics:
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
        vendors=vendors or {},
    )


def _span(values: Iterable[Decimal | None]) -> Span:
    known = [value for value in values if value is not None]
    if not known:
        return Span()
    return Span(min(known), max(known), mean(total(known), len(known)))
