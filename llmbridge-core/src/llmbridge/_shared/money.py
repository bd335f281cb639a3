"""Conversion between dollars and whole units of 1e-12 dollar.

Everything that is stored or summed is a whole number of *units* (1 unit = 1e-12 dollar), so no sum ever rounds.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from decimal import ROUND_HALF_EVEN, Context, Decimal, DivisionByZero, InvalidOperation, Overflow

#: Bounds of one amount (a call's cost or a rate), so that its units fit 64 bits.
MIN_DOLLARS, MAX_DOLLARS = Decimal(-9_000_000), Decimal(9_000_000)

#: Separate context, so that a caller's `decimal.setcontext()` changes no cost. What is not given here would come from
#: `decimal.DefaultContext`, which an application may have changed.
CONTEXT = Context(
    prec=60,
    rounding=ROUND_HALF_EVEN,
    Emin=-999_999,
    Emax=999_999,
    capitals=1,
    clamp=0,
    flags=[],
    traps=[InvalidOperation, DivisionByZero, Overflow],
)

#: Most digits before or after the point of a number in a file: more than any valid amount has, and few enough to
#: convert quickly.
_MAX_DIGITS = 100

_scaled = CONTEXT.scaleb

_UNIT = Decimal("1E-12")
_ZERO = Decimal("0E-12")


def parse(value: Decimal | int | float | str) -> Decimal:
    """Return `value` as dollars, rounded half-even to 1e-12; a float is converted as `Decimal(repr(value))`.

    :raises ValueError: it is not a finite number below 9,000,000 dollars in absolute value
    """
    if isinstance(value, bool):
        raise ValueError("a bool is not an amount of dollars")
    try:
        amount = Decimal(repr(value)) if isinstance(value, float) else Decimal(value)
        if not amount.is_finite():
            raise ValueError("an amount of dollars must be finite")
        rounded = amount.quantize(_UNIT, context=CONTEXT)
    except (InvalidOperation, TypeError) as error:
        raise ValueError("not an amount of dollars") from error
    if not MIN_DOLLARS < rounded < MAX_DOLLARS:
        raise ValueError(f"an amount of dollars must be below {MAX_DOLLARS:,}")
    return rounded or _ZERO  # units have no negative zero


def exact(number: str) -> Decimal:
    """Return a number of a JSON document exactly as it is written, for `json.loads(parse_float=…)`.

    :raises OverflowError: it has more digits than any valid amount or size
    """
    with contextlib.suppress(InvalidOperation):
        value = Decimal(number)
        if max(abs(value.adjusted()), -int(value.as_tuple().exponent)) <= _MAX_DIGITS:
            return value
    raise OverflowError(f"the number {number[:30]}{'…' if len(number) > 30 else ''} is out of range")


def to_units(dollars: Decimal) -> int:
    """Return dollars as whole units of 1e-12 dollar, rounded half-even."""
    scaled = dollars.scaleb(12, CONTEXT)
    units = int(scaled)
    return units if units == scaled else int(scaled.to_integral_value(context=CONTEXT))


def from_units(units: int) -> Decimal:
    """Return a number of units as dollars, always with 12 decimal places."""
    return _scaled(units, -12)


def total(amounts: Iterable[Decimal]) -> Decimal:
    """Return the exact sum."""
    found = Decimal(0)
    for amount in amounts:
        found = CONTEXT.add(found, amount)
    return found


def mean(whole: Decimal, parts: int) -> Decimal:
    """Return `whole` divided by `parts`, rounded half-even to 1e-12."""
    return CONTEXT.divide(whole, parts).quantize(_UNIT, context=CONTEXT)


def text(dollars: Decimal) -> str:
    """Return dollars in plain notation without trailing zeros or exponent: `0.0000045`, `12`."""
    plain = format(dollars, "f")
    return plain.rstrip("0").rstrip(".") if "." in plain else plain
