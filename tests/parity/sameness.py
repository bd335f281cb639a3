"""Comparison of two results, with the place of the first difference."""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Iterable, Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import count
from typing import Any
from uuid import UUID

from pydantic import BaseModel

from llmbridge.errors import LLMBridgeError


@dataclasses.dataclass(frozen=True)
class Raised:
    """An error instead of an answer, in what the contract says about it."""

    kind: type[Exception]
    attributes: dict[str, Any]


#: Of these, what is equal is the same.
_PLAIN = frozenset({str, int, bool, UUID, type(None)})


async def outcome(asked: Awaitable[Any]) -> Any:
    """The answer, or the error that the contract allows instead of it. Any other comes through."""
    try:
        return await asked
    except (LLMBridgeError, ValueError, TypeError) as error:
        told = {name: getattr(error, name) for name in ("ids", "earliest") if hasattr(error, name)}
        return Raised(type(error), told)


def difference(got: Any, expected: Any, where: str = "the answer") -> str | None:
    """What is not the same, to the type, the sign of zero and the last digit; None when all is. Any mapping may stand
    for a dict."""
    found = _difference(got, expected)
    return None if found is None else where + found


def _difference(got: Any, expected: Any) -> str | None:
    if isinstance(expected, dict) and isinstance(got, Mapping):
        got = dict(got)
    kind = type(expected)
    if type(got) is not kind:
        return f" is {got!r}, not {expected!r}"
    if kind in _PLAIN:
        return None if got == expected else f" is {got!r}, not {expected!r}"
    if isinstance(expected, BaseModel):
        return _difference(dict(got), dict(expected))
    if isinstance(expected, dict):
        if got.keys() != expected.keys():
            return f" has the keys {list(got)}, not {list(expected)}"
        return _first("[{!r}]", ((key, got[key], value) for key, value in expected.items()))
    if isinstance(expected, list | tuple):
        if len(got) != len(expected):
            return f" has {len(got)} items, not {len(expected)}: {got!r}, not {expected!r}"
        return _first("[{}]", zip(count(), got, expected, strict=False))
    if dataclasses.is_dataclass(expected):
        names = (field.name for field in dataclasses.fields(expected))
        return _first(".{}", ((name, getattr(got, name), getattr(expected, name)) for name in names))
    return None if _exact(got) == _exact(expected) else f" is {got!r}, not {expected!r}"


def _first(place: str, pairs: Iterable[tuple[Any, Any, Any]]) -> str | None:
    """The first difference among pairs, each with its name, and the place of that name in the whole."""
    for name, got, expected in pairs:
        found = _difference(got, expected)
        if found is not None:
            return place.format(name) + found
    return None


def _exact(value: Any) -> Any:
    if isinstance(value, float | Decimal):
        return repr(value)
    if isinstance(value, datetime) and value.utcoffset() != timedelta(0):
        return value.isoformat()
    return value
