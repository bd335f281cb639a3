"""Units of usage, from genai-prices: what is counted, for how many a rate is, and which unit includes which."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import combinations


@dataclass(frozen=True, slots=True)
class Unit:
    """One unit. A rate is dollars for `per` of it, and `price_key` is its name in a price list.

    `dimensions` say what is counted. A unit includes every other one that has all its dimensions: all input tokens
    include those of audio.
    """

    name: str
    price_key: str
    per: int
    dimensions: frozenset[tuple[str, str]]

    def has(self, name: str, *values: str) -> bool:
        """Return whether the unit has one of the values in a dimension."""
        return any((name, value) in self.dimensions for value in values)

    @property
    def is_tokens(self) -> bool:
        """Whether tokens are counted."""
        return self.has("family", "tokens")


#: The unit of a fee for the request itself: its count is always 1, whatever a call reports.
REQUESTS = "requests"


@cache
def units() -> Mapping[str, Unit]:
    """Return all units of the installed genai-prices by name."""
    from genai_prices.data_units import unit_data

    return {
        name: Unit(name, unit.get("price_key", name), unit["per"], frozenset(unit["dimensions"].items()))
        for name, unit in unit_data.items()
    }


@cache
def by_price_key() -> Mapping[str, Unit]:
    """Return all units of the installed genai-prices by their names in a price list."""
    return {unit.price_key: unit for unit in units().values()}


def nearest(unit: Unit, names: Iterable[str]) -> Unit | None:
    """Return the most specific of the named units that is `unit` or includes it; None if there is none, or several of
    which none includes another."""
    including = [one for one in map(units().__getitem__, names) if one.dimensions <= unit.dimensions]
    found = max(including, key=lambda one: len(one.dimensions), default=None)
    return found if found is not None and all(one.dimensions <= found.dimensions for one in including) else None


@cache
def overlaps(name: str) -> tuple[frozenset[str], tuple[tuple[str, str], ...]]:
    """Return what shows that a unit's count is not 0: the units that it includes, and the pairs of units that overlap
    in just this one."""
    dimensions, known = units()[name].dimensions, units().values()
    included = frozenset(unit.name for unit in known if dimensions < unit.dimensions)
    including = [unit for unit in known if unit.dimensions < dimensions]
    pairs = [(a.name, b.name) for a, b in combinations(including, 2) if a.dimensions | b.dimensions == dimensions]
    return included, tuple(pairs)


def required(names: Collection[str]) -> set[str]:
    """Return the units that must have rates if these have: those that include one of them, and those of what two of
    them count. Otherwise it is not clear at which rate some usage is charged."""
    known = units()
    named = [known[name] for name in names]
    including = {unit.name for unit in known.values() for one in named if unit.dimensions < one.dimensions}
    both = {one.dimensions | other.dimensions for one, other in combinations(named, 2)}
    return including | {unit.name for unit in known.values() if unit.dimensions in both}


def check_coverage(names: Collection[str]) -> None:
    """Raise ValueError if it is not clear at which rate some usage is charged, as genai-prices does."""
    if missing := required(names) - set(names):
        raise ValueError(f"it has a rate for {', '.join(sorted(names))}, but none for {', '.join(sorted(missing))}")
    known = {unit.dimensions for unit in units().values()}
    for one, other in combinations(map(units().__getitem__, sorted(names)), 2):
        dimensions = one.dimensions | other.dimensions
        if len(dict(dimensions)) == len(dimensions) and dimensions not in known:
            raise ValueError(f"it has rates for {one.name} and {other.name}, and no unit is for what both count")
