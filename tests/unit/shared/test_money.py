"""Dollars become whole units and come back unchanged."""

from __future__ import annotations

import decimal
import subprocess
import sys
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmbridge._shared import money

units = st.integers(-(9 * 10**18) + 1, 9 * 10**18 - 1)


@given(units)
def test_units_survive_the_way_through_dollars(number: int) -> None:
    assert money.to_units(money.from_units(number)) == number


@given(units)
def test_text_reads_back_as_the_same_amount(number: int) -> None:
    text = money.text(money.from_units(number))
    assert Decimal(text) == money.from_units(number)
    assert "E" not in text


def test_a_sum_far_beyond_64_bits_stays_exact() -> None:
    assert money.to_units(money.from_units(10**26 + 1)) == 10**26 + 1


@pytest.mark.parametrize(
    ("given_amount", "expected"),
    [
        (0.1, "0.1"),
        (1, "1"),
        ("0.0000000000005", "0"),
        ("0.0000000000015", "0.000000000002"),
        ("0.0000000000025", "0.000000000002"),
        (Decimal("-0.0000000000005"), "0"),
        (Decimal("8999999.999999999999"), "8999999.999999999999"),
    ],
)
def test_parse_rounds_half_even_to_the_twelfth_place(given_amount: object, expected: str) -> None:
    assert money.parse(given_amount) == Decimal(expected)  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", ["NaN", "Infinity", float("nan"), float("inf"), 9_000_000, "-9000000", "abc", True])
def test_parse_refuses_what_is_no_amount(wrong: object) -> None:
    with pytest.raises(ValueError, match="dollars"):
        money.parse(wrong)  # type: ignore[arg-type]


def test_the_callers_decimal_context_changes_nothing() -> None:
    with decimal.localcontext(decimal.Context(prec=3)):
        assert money.parse("1.234567890123") == Decimal("1.234567890123")
        assert money.to_units(money.from_units(123456789)) == 123456789


@pytest.mark.parametrize("nothing", ["-0", -0.0, Decimal("-0E-20"), "-1E-13"])
def test_zero_has_no_sign(nothing: str | float | Decimal) -> None:
    assert str(money.parse(nothing)) == "0E-12"


def test_a_changed_default_context_changes_no_amount() -> None:
    """In a process of its own, since the context is made at the import."""
    program = """
import decimal
decimal.DefaultContext.Emax, decimal.DefaultContext.Emin = 5, -5
decimal.DefaultContext.traps = {signal: True for signal in decimal.DefaultContext.traps}
decimal.setcontext(decimal.DefaultContext.copy())
from llmbridge._shared import money
assert str(money.parse("1234567.1234567890125")) == "1234567.123456789012"
assert money.to_units(money.parse("8999999.999999999999")) == 8999999999999999999
"""
    subprocess.run([sys.executable, "-c", program], check=True)
