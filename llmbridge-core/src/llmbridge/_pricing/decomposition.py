"""Decomposition of usage in any units into the units that a price has rates for.

The rule is that of genai-prices. Each unit with a rate is charged for its count without those of the units with a rate
that it includes; so a count without a rate of its own is charged as part of the nearest unit that includes it. A count
that is not told is 0, unless counts that are told show that it is not: then the cost is unknown.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal
from fractions import Fraction
from math import lcm
from typing import Literal, NamedTuple

from .genai_prices.units import REQUESTS, Unit, nearest, overlaps, required, units

#: Most names of units in a cache; names come from callers, so there may be any number of them.
_MAX_NAMES = 256

#: Why a call has no cost.
Unknown = Literal["unmeasured_usage", "missing_rate"]

_UNITS_PER_DOLLAR = 10**12
_ROOTS = frozenset({"input_tokens", "output_tokens"})
#: The token units of an own price, which a call never pays at the rate of another unit.
_OWN = (*sorted(_ROOTS), "cache_read_tokens", "cache_write_tokens", "cache_write_1h_tokens")


class _Part(NamedTuple):
    """A unit that is charged: the shares that one of it costs (None: its rate is unknown), and the parts in it."""

    unit: str
    share: int | None
    below: tuple[str, ...]


class Decomposition:
    """The rates of a price in all units, as whole numbers of shares.

    :param rates: dollars by unit, for `Unit.per` of it
    :param is_own: whether it is an own price, which names every rate that applies: tokens read from a cache or written
        to one, and what is not tokens, have no cost without a rate of their own
    """

    def __init__(self, rates: Mapping[str, Decimal], *, is_own: bool = False) -> None:
        known = units()
        exact = {
            name: Fraction(rate) * _UNITS_PER_DOLLAR / known[name].per for name, rate in rates.items() if name in known
        }
        #: The number of shares in a unit of money (1e-12 dollar).
        self.shares_per_unit = lcm(*(rate.denominator for rate in exact.values()))
        shares = {name: int(rate * self.shares_per_unit) for name, rate in exact.items()}
        self._is_own = is_own
        self._is_free = not rates
        self._request_shares = shares.pop(REQUESTS, None)
        names = _completed(shares) if is_own else shares
        ordered = sorted(names, key=lambda name: (-len(known[name].dimensions), name))
        self._parts = [
            _Part(
                name,
                self._share(known[name], shares),
                tuple(other for other in ordered if known[name].dimensions < known[other].dimensions),
            )
            for name in ordered
        ]
        self._names = frozenset(names)
        self._charged: dict[str, bool | None] = {}

    def charge(self, counts: Mapping[str, int]) -> int | Unknown:
        """Return the shares that counts by unit cost, or why that is unknown."""
        left: dict[str, int] = {}
        shares = self._request_shares or 0
        is_missing = False
        for unit, share, below in self._parts:
            count = counts.get(unit)
            if count is None:
                if unit in _ROOTS or _is_implied(unit, counts):
                    return "unmeasured_usage"
                count = 0
            for other in below:
                count -= left[other]
            if count < 0:
                return "unmeasured_usage"
            left[unit] = count
            if share is not None:
                shares += count * share
            elif count:
                is_missing = True
        charged = [self._is_charged(unit, count) for unit, count in counts.items()]
        if is_missing or False in charged:
            return "missing_rate"
        if True in charged or self._request_shares is not None or self._is_free:
            return shares
        return "missing_rate"

    def _is_charged(self, name: str, count: int) -> bool | None:
        """Return whether a unit has a rate; None if it costs nothing without one. A count of 0 needs no rate."""
        if name not in self._charged:
            if len(self._charged) >= _MAX_NAMES:
                self._charged.clear()
            self._charged[name] = self._has_rate(name)
        found = self._charged[name]
        return found if count or found else None

    def _has_rate(self, name: str) -> bool | None:
        unit = units().get(name)
        if unit is None or name == REQUESTS:
            return False
        part = nearest(unit, self._names)
        needed = _needed(unit, is_own=self._is_own)
        if part is None:
            return False if needed or self._is_own else None
        return needed <= part.dimensions

    def _share(self, unit: Unit, shares: Mapping[str, int]) -> int | None:
        including = nearest(unit, shares)
        if including is None or not _needed(unit, is_own=self._is_own) <= including.dimensions:
            return None
        return shares[including.name]


def _needed(unit: Unit, *, is_own: bool) -> frozenset[tuple[str, str]]:
    """Return the dimensions that a unit must share with the unit whose rate it costs.

    Audio, and images and video in the output, cost several times as much as text: without a rate of their own the cost
    is unknown.
    """
    if not unit.is_tokens:
        return frozenset()
    kinds = ("audio", "image", "video") if unit.has("direction", "output") else ("audio",)
    needed = {("modality", kind) for kind in kinds}
    if is_own:
        needed |= {("token_type", "cache_read"), ("token_type", "cache_write"), ("cache_ttl", "1h")}
    return unit.dimensions & needed


def _completed(names: Iterable[str]) -> set[str]:
    """Return units with all that they need to be told apart: the units that include them, and what two of them count.

    A list of prices always has these.
    """
    found = set(names)
    if any(units()[name].is_tokens for name in found):
        found |= {*_OWN}
    while not (more := required(found)) <= found:
        found |= more
    return found


def _is_implied(name: str, counts: Mapping[str, int]) -> bool:
    """Return whether counts show that a unit's count, which is not told, need not be 0: what it includes was counted,
    or two counts overlap in it."""
    included, pairs = overlaps(name)
    return any(count and other in included for other, count in counts.items()) or any(
        counts.get(one) and counts.get(other) for one, other in pairs
    )
