"""Two answers are the same, or where they differ first."""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from pydantic import BaseModel

from llmbridge.errors import LLMBridgeError


@dataclasses.dataclass(frozen=True)
class Raised:
    """An error instead of an answer, in what the contract says about it."""

    kind: type[Exception]
    attributes: dict[str, Any]


#: Of these, what is equal and of the same type is the same.
_PLAIN = (str, int, UUID, type(None))


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
    if isinstance(got, Mapping) and isinstance(expected, dict):
        got = dict(got)
    if type(got) is not type(expected):
        return f"{where} is {got!r}, not {expected!r}"
    if got == expected and isinstance(expected, _PLAIN):
        return None
    if isinstance(expected, BaseModel):
        return difference(dict(got), dict(expected), where)
    if dataclasses.is_dataclass(expected):
        names = [field.name for field in dataclasses.fields(expected)]
        pairs = [(f".{name}", getattr(got, name), getattr(expected, name)) for name in names]
    elif isinstance(expected, dict):
        if got.keys() != expected.keys():
            return f"{where} has the keys {list(got)}, not {list(expected)}"
        pairs = [(f"[{key!r}]", got[key], expected[key]) for key in expected]
    elif isinstance(expected, list | tuple):
        if len(got) != len(expected):
            return f"{where} has {len(got)} items, not {len(expected)}: {got!r}, not {expected!r}"
        pairs = [(f"[{i}]", one, other) for i, (one, other) in enumerate(zip(got, expected, strict=True))]
    else:
        return None if _exact(got) == _exact(expected) else f"{where} is {got!r}, not {expected!r}"
    return next(filter(None, (difference(one, other, where + part) for part, one, other in pairs)), None)


def _exact(value: Any) -> Any:
    if isinstance(value, float | Decimal):
        return repr(value)
    if isinstance(value, datetime) and value.utcoffset() != timedelta(0):
        return value.isoformat()
    return value
