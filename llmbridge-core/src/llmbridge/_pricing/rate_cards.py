"""Rate cards: the rates of a model at one time, ready for exact arithmetic."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Literal

from .._records.fields import MAX_NAME
from .._shared.money import CONTEXT, parse
from .decomposition import Decomposition

#: Separates the version of the price data from the provider whose price list applied.
LIST_OF = ", list of "

_FREE = Decimal(0)

#: Most factors for which a card is kept.
_MAX_FACTORS = 16

#: Most characters of the name of an entry in a price version.
_MAX_ENTRY = 100


@dataclass(frozen=True, slots=True)
class Rates:
    """Dollars per million tokens of each kind, and dollars per request. A rate of None is unknown.

    `cache_write_1h` is the rate of tokens that a cache keeps for an hour, `cache_write` of all others written to one.
    `units` are all rates that the price names, in dollars by unit of genai-prices (`input_audio_tokens`,
    `web_searches`): per million tokens or characters, per thousand of most other units, per hour of audio. `is_own`
    tells an own price, where only tokens that are neither audio nor cached may cost the rate of others.

    `shares` are the same rates as whole numbers, in the order input, output, cache_read, cache_write, cache_write_1h,
    reasoning: the number of shares that one token costs. A unit (1e-12 dollar) has `shares_per_unit` shares. `unknown`
    are the indices of unknown rates. `recorded` are the input and output rates as a record stores them: exact to 1e-12,
    None if no column can store them.
    """

    input: Decimal | None = None
    output: Decimal | None = None
    cache_read: Decimal | None = None
    cache_write: Decimal | None = None
    cache_write_1h: Decimal | None = None
    reasoning: Decimal | None = None
    request: Decimal = _FREE
    units: Mapping[str, Decimal] = field(default_factory=dict)
    is_own: bool = False
    shares: tuple[int, ...] = field(init=False, repr=False, compare=False)
    unknown: tuple[int, ...] = field(init=False, repr=False, compare=False)
    request_shares: int = field(init=False, repr=False, compare=False)
    shares_per_unit: int = field(init=False, repr=False, compare=False)
    recorded: tuple[Decimal | None, Decimal | None] = field(init=False, repr=False, compare=False)
    _decomposition: Decomposition | None = field(init=False, repr=False, compare=False, default=None)

    def __post_init__(self) -> None:
        rates = (self.input, self.output, self.cache_read, self.cache_write, self.cache_write_1h, self.reasoning)
        # A dollar per million tokens is 10**6 units per token.
        finest = max(
            0, *(decimal_places(rate) - 6 for rate in rates if rate is not None), decimal_places(self.request) - 12
        )
        shares = tuple(0 if rate is None else int(rate.scaleb(6 + finest, CONTEXT)) for rate in rates)
        object.__setattr__(self, "shares", shares)
        object.__setattr__(self, "unknown", tuple(kind for kind, rate in enumerate(rates) if rate is None))
        object.__setattr__(self, "request_shares", int(self.request.scaleb(12 + finest, CONTEXT)))
        object.__setattr__(self, "shares_per_unit", 10**finest)
        object.__setattr__(self, "recorded", (_recorded(self.input), _recorded(self.output)))

    @property
    def decomposition(self) -> Decomposition:
        """The same rates for usage in any units. It is made when it is needed first, since few calls need it."""
        if self._decomposition is None:
            object.__setattr__(self, "_decomposition", Decomposition(self.units, is_own=self.is_own))
        return self._decomposition  # type: ignore[return-value]

    def times(self, factor: Decimal) -> Rates:
        """Return all rates multiplied by a factor, exactly."""

        def product(rate: Decimal | None) -> Decimal | None:
            return None if rate is None else CONTEXT.multiply(rate, factor)

        return Rates(
            input=product(self.input),
            output=product(self.output),
            cache_read=product(self.cache_read),
            cache_write=product(self.cache_write),
            cache_write_1h=product(self.cache_write_1h),
            reasoning=product(self.reasoning),
            request=CONTEXT.multiply(self.request, factor),
            units={unit: CONTEXT.multiply(rate, factor) for unit, rate in self.units.items()},
            is_own=self.is_own,
        )


@dataclass(frozen=True, slots=True)
class RateCard:
    """Rates of one model at one time.

    `bands` are the rates by length of the prompt: a call pays for all its tokens at `bands[i]`, where i is the number
    of `thresholds` (tokens, ascending) that its prompt exceeds. `version` identifies the price data or own price.
    `entry` is the name of the model in the price data. `notes` say what the price does not take into account. Audio is
    charged for at least `least_seconds`. `factor` multiplied all rates (None: nothing did). `price_version` is the text
    for calls that the list of their own provider prices.
    """

    source: Literal["prices", "own_prices"]
    version: str
    bands: tuple[Rates, ...]
    thresholds: tuple[int, ...] = ()
    entry: str = ""
    notes: str = ""
    least_seconds: int = 0
    factor: Decimal | None = None
    price_version: str = field(init=False, repr=False, compare=False)
    _multiplied: dict[Decimal, RateCard] = field(init=False, repr=False, compare=False, default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "price_version", self._version_of(""))

    def version_of_list(self, price_list: str) -> str:
        """Return the price version of a call that the list of another provider prices."""
        return self._version_of(f"{LIST_OF}{price_list}")

    def times(self, factor: Decimal) -> RateCard:
        """Return the card with all rates multiplied by a factor."""
        found = self._multiplied.get(factor)
        if found is None:
            bands = tuple(rates.times(factor) for rates in self.bands)
            if len(self._multiplied) >= _MAX_FACTORS:
                self._multiplied.clear()
            found = self._multiplied[factor] = replace(self, bands=bands, factor=factor)
        return found

    def _version_of(self, price_list: str) -> str:
        entry = f", entry {self.entry[:_MAX_ENTRY]}" if self.entry else ""
        return f"{self.version}{price_list}{entry}{self.notes}"[:MAX_NAME]

    def rates(self, prompt_tokens: int = 0) -> Rates:
        """Return the rates for a prompt of that many tokens, including cached ones."""
        return self.bands[bisect_left(self.thresholds, prompt_tokens)] if self.thresholds else self.bands[0]

    def billed(self, counts: Mapping[str, int]) -> Mapping[str, int]:
        """Return counts by unit as they are charged: audio for a least time."""
        if not self.least_seconds:
            return counts
        seconds = counts.get("audio_seconds") or counts.get("input_audio_seconds")
        if seconds is None:
            return counts
        billed = max(seconds, self.least_seconds) if seconds else 0
        return {**counts, "audio_seconds": billed, "input_audio_seconds": billed}


def _recorded(rate: Decimal | None) -> Decimal | None:
    try:
        return None if rate is None else parse(rate)
    except ValueError:
        return None


def decimal_places(rate: Decimal) -> int:
    """Return the number of decimal places of `rate`; 0 or less for a whole number."""
    return -int(rate.as_tuple().exponent)
