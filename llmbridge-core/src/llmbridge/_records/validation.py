"""Checks of single values of a record. Each returns the value in a form that every backend can store."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, TypeVar

from .._shared import money
from .._shared.json_text import encode_json
from .._shared.text import storable
from ..errors import RecordRejectedError
from ..storage.types import LATEST
from .fields import INT64, MAX_DETAILS_BYTES, MAX_METADATA_BYTES, MAX_METADATA_DEPTH, MAX_NAME, RATE_FIELDS, UNIT_FIELDS

_Value = TypeVar("_Value")


def check_name(field: str, name: str) -> str:
    """Return a required name in storable form.

    :raises RecordRejectedError: it is not text, empty, or longer than 255 characters
    """
    if not isinstance(name, str):
        raise RecordRejectedError(f"{field} must be text, not {type(name).__name__}")
    if not name:
        raise RecordRejectedError(f"{field} is empty")
    if len(name) > MAX_NAME:
        raise RecordRejectedError(f"{field} has {len(name)} characters; at most {MAX_NAME}")
    return storable(name)


def check_user(id_at_origin: str | None) -> str | None:
    """Return an id_at_origin in storable form; an empty one becomes None.

    :raises RecordRejectedError: it is not text, or longer than 255 characters
    """
    return check_name("id_at_origin", id_at_origin) if id_at_origin not in (None, "") else None


def check_metadata(metadata: dict[str, Any] | None) -> dict[str, Any] | None:
    """Return metadata in storable form.

    :raises RecordRejectedError: a key is not text, a value is not JSON, it takes more than 8 KiB, or it nests deeper
        than 32 levels
    """
    if metadata is None:
        return None
    if not isinstance(metadata, dict):
        raise RecordRejectedError(f"metadata must be a dict, not {type(metadata).__name__}")
    clean: dict[str, Any] = _json_value(metadata)
    size = len(encode_json(clean).encode())
    if size > MAX_METADATA_BYTES:
        raise RecordRejectedError(f"metadata takes {size} bytes as JSON; at most {MAX_METADATA_BYTES}")
    return clean


def check_counts(field: str, counts: Mapping[str, int]) -> dict[str, int]:
    """Return counts by unit in storable form.

    :raises RecordRejectedError: a unit is not text, a count is not an integer, negative or does not fit 64 bits, a unit
        has a field of its own, or they take more than 4 KiB
    """
    _check_types(field, counts, int)
    for unit, count in counts.items():
        if unit in UNIT_FIELDS:
            raise RecordRejectedError(f"{field} contains {unit}; use the field {UNIT_FIELDS[unit]}")
        check_range(f"{unit} in {field}", count, least=0)
    return _bounded(field, {storable(str(unit)): int(count) for unit, count in counts.items()})


def check_labels(field: str, labels: Mapping[str, str]) -> dict[str, str]:
    """Return texts by name in storable form.

    :raises RecordRejectedError: a name or a value is not text, or they take more than 4 KiB
    """
    _check_types(field, labels, str)
    return _bounded(field, {storable(str(name)): storable(str(text)) for name, text in labels.items()})


def check_amount(field: str, amount: Decimal | float | str | None) -> Decimal | None:
    """Return an amount of dollars, exact to 1e-12; None stays None.

    :raises RecordRejectedError: it is not a finite number below 9,000,000 dollars in absolute value
    """
    if amount is None:
        return None
    try:
        return money.parse(amount)
    except ValueError as error:
        raise RecordRejectedError(f"{field}: {error}") from None


def check_count(field: str, count: int) -> int:
    """Return a count.

    :raises RecordRejectedError: it is negative, or does not fit 64 bits
    """
    check_range(field, count, least=0)
    return count


def check_integer(field: str, number: int | None) -> int | None:
    """Return an integer; None stays None.

    :raises RecordRejectedError: it does not fit 64 bits
    """
    check_range(field, number, least=-INT64)
    return number


def check_finite(field: str, number: float | None) -> float | None:
    """Return a number; None stays None.

    :raises RecordRejectedError: it is not finite
    """
    return None if number is None else _finite(field, number)


def check_rate(field: str, rate: Decimal | float | str | None) -> Decimal | None:
    """Return a rate in dollars per million tokens, exact to 1e-12; None stays None.

    :raises RecordRejectedError: it is negative, or not a valid amount (see `check_amount`)
    """
    amount = check_amount(field, rate)
    if amount is not None and amount < 0:
        raise RecordRejectedError(f"{field} is negative")
    return amount


def check_rates(field: str, rates: Mapping[str, Decimal | float | str]) -> dict[str, Decimal]:
    """Return rates by unit, exact to 1e-12.

    :raises RecordRejectedError: a rate is not a valid one (see `check_rate`), a unit has a field of its own, or they
        take more than 4 KiB
    """
    _check_types(field, rates, object)
    clean: dict[str, Decimal] = {}
    for unit, rate in rates.items():
        if unit in RATE_FIELDS:
            raise RecordRejectedError(f"{field} contains {unit}; use the field {RATE_FIELDS[unit]}")
        checked = check_rate(f"the rate of {unit}", rate)
        if checked is None:
            raise RecordRejectedError(f"the rate of {unit} is None; leave it out")
        clean[storable(unit)] = checked
    _bounded(field, {unit: str(rate) for unit, rate in clean.items()})
    return clean


def cut_text(text: str | None, longest: int) -> str | None:
    """Return `text` in storable form, cut to `longest` characters; None stays None."""
    return None if text is None else storable(text[:longest] if len(text) > longest else text)


def check_range(field: str, number: int | None, *, least: int) -> int | None:
    """Return an integer; None stays None.

    :raises RecordRejectedError: it is less than `least`, or does not fit 64 bits
    """
    if number is not None and not least <= number < INT64:
        raise RecordRejectedError(f"{field} is {number}; it must be from {least} to {INT64 - 1}")
    return number


def _check_types(field: str, values: object, kind: type) -> None:
    if not isinstance(values, Mapping):
        raise RecordRejectedError(f"{field} must be a dict, not {type(values).__name__}")
    for name, value in values.items():
        if not isinstance(name, str):
            raise RecordRejectedError(f"the keys of {field} must be text, not {type(name).__name__}")
        if not isinstance(value, kind):
            raise RecordRejectedError(f"{name} in {field} must be {kind.__name__}, not {type(value).__name__}")


def _bounded(field: str, values: dict[str, _Value]) -> dict[str, _Value]:
    size = len(encode_json(values).encode())
    if size > MAX_DETAILS_BYTES:
        raise RecordRejectedError(f"{field} takes {size} bytes as JSON; at most {MAX_DETAILS_BYTES}")
    return values


def _finite(field: str, number: float) -> float:
    if not math.isfinite(number):
        raise RecordRejectedError(f"{field} is {number}; it must be finite")
    return number + 0.0  # SQLite has no negative zero


def check_optional_time(field: str, at: datetime | None) -> datetime | None:
    """Return an aware time in UTC (see `check_time`); None stays None."""
    return None if at is None else check_time(field, at)


def check_time(field: str, at: object) -> datetime:
    """Return an aware time in UTC.

    :raises RecordRejectedError: it is not an aware datetime before 9999-12-31T23:59:59.999999Z
    """
    if not isinstance(at, datetime) or at.utcoffset() is None:
        raise RecordRejectedError(f"{field} is not a valid time: pass a datetime with a time zone")
    try:
        moment = at if at.tzinfo is UTC else at.astimezone(UTC)
    except OverflowError:
        raise RecordRejectedError(f"{field} lies outside the years 1 to 9999 in UTC") from None
    if moment >= LATEST:
        raise RecordRejectedError(f"{field} must be before {LATEST:%Y-%m-%dT%H:%M:%S.%fZ}")
    return moment


def _json_value(value: Any, depth: int = 1) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return storable(str(value))
    if isinstance(value, int):
        check_range("a number in metadata", value, least=-INT64)
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise RecordRejectedError(f"metadata contains {value}; numbers must be finite")
        return float(value)
    if isinstance(value, list | tuple | dict) and depth > MAX_METADATA_DEPTH:
        raise RecordRejectedError(f"metadata nests deeper than {MAX_METADATA_DEPTH} levels")
    if isinstance(value, list | tuple):
        return [_json_value(item, depth + 1) for item in value]
    if isinstance(value, dict):
        if not all(isinstance(key, str) for key in value):
            raise RecordRejectedError("the keys of metadata must be text")
        return {storable(str(key)): _json_value(item, depth + 1) for key, item in value.items()}
    raise RecordRejectedError(f"metadata contains a {type(value).__name__}, which is not a JSON type")
