"""Dollars as integers of 1e-12 dollar, and back.

Everything that is stored or summed is a whole number of *units* (1 unit = 1e-12 dollar), so no sum ever rounds.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from decimal import ROUND_HALF_EVEN, Context, Decimal, InvalidOperation

#: One amount, a call's cost or a rate, lies between these, so its units fit 64 bits.
MIN_DOLLARS, MAX_DOLLARS = Decimal(-9_000_000), Decimal(9_000_000)

#: Of our own, so that a caller's `decimal.setcontext()` changes no cost.
CONTEXT = Context(prec=60, rounding=ROUND_HALF_EVEN)

#: Most digits before or behind the point of a number in a file: beyond all amounts and sizes, and soon made an int.
_MOST_DIGITS = 100

_scaled = CONTEXT.scaleb

_UNIT = Decimal("1E-12")
_ZERO = Decimal("0E-12")


def parse(value: Decimal | int | float | str) -> Decimal:
    """`value` as exact dollars, rounded half-even to 1e-12; a float enters as `Decimal(repr(value))`.

    Raises ValueError for what is no number, not finite, or not below 9,000,000 dollars in absolute value.
    """
    if isinstance(value, bool):
        raise ValueError("a bool is no amount of dollars")
    try:
        amount = Decimal(repr(value)) if isinstance(value, float) else Decimal(value)
        if not amount.is_finite():
            raise ValueError("an amount of dollars is finite")
        rounded = amount.quantize(_UNIT, context=CONTEXT)
    except (InvalidOperation, TypeError) as error:
        raise ValueError("not an amount of dollars") from error
    if not MIN_DOLLARS < rounded < MAX_DOLLARS:
        raise ValueError(f"an amount of dollars is below {MAX_DOLLARS:,}")
    return rounded or _ZERO  # units have no negative zero


def exact(number: str) -> Decimal:
    """A number of a JSON document as it is written, for `json.loads(parse_float=…)`.

    :raises OverflowError: no amount or size has so many digits
    """
    with contextlib.suppress(InvalidOperation):
        value = Decimal(number)
        if max(abs(value.adjusted()), -int(value.as_tuple().exponent)) <= _MOST_DIGITS:
            return value
    raise OverflowError(f"the number {number[:30]}{'…' if len(number) > 30 else ''} is out of range")


def to_units(dollars: Decimal) -> int:
    """Whole units of 1e-12 dollar; rounds half-even what is finer."""
    scaled = dollars.scaleb(12, CONTEXT)
    units = int(scaled)
    return units if units == scaled else int(scaled.to_integral_value(context=CONTEXT))


def from_units(units: int) -> Decimal:
    """The dollars of a number of units, always with 12 decimal places."""
    return _scaled(units, -12)


def total(amounts: Iterable[Decimal]) -> Decimal:
    """The sum, which does not round."""
    found = Decimal(0)
    for amount in amounts:
        found = CONTEXT.add(found, amount)
    return found


def mean(whole: Decimal, parts: int) -> Decimal:
    """`whole` divided by `parts`, rounded half-even to 1e-12."""
    return CONTEXT.divide(whole, parts).quantize(_UNIT, context=CONTEXT)


def text(dollars: Decimal) -> str:
    """Plain notation without trailing zeros: `0.0000045`, `12`, never an exponent."""
    plain = format(dollars, "f")
    return plain.rstrip("0").rstrip(".") if "." in plain else plain
