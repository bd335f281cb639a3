"""Reads the token usage that a provider reported from the SDK's response, before pydantic-ai changes it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ....schemas import TokenUsage

#: Counts from here on are taken as not reported; the sum of the few that are added fits 64 bits.
_TOO_MANY = 2**60

#: Most characters of a term of the price.
_LONGEST_TERM = 255


@dataclass(slots=True)
class UsageTap:
    """What a provider reported in one call and pydantic-ai does not pass on.

    `usage` is the usage object as it was received (None: not received yet). `price_context` is what the answer told of
    the terms of its price, by its names, and `model` the model that it named. `has_ended` tells whether the provider
    itself ended a streamed response (None: nothing was streamed, or it has not told yet that it is).
    """

    usage: Any = None
    price_context: dict[str, str] = field(default_factory=dict)
    model: str | None = None
    has_ended: bool | None = None

    def add(self, reported: Any) -> None:
        """Merge usage that is reported in several parts: later counts replace earlier ones."""
        if isinstance(reported, Mapping):
            known = {name: value for name, value in reported.items() if value is not None}
            self.usage = {**(self.usage or {}), **known}

    def add_model(self, name: Any) -> None:
        """Take the name of the model from an answer, or from a part of one."""
        if isinstance(name, str) and name:
            self.model = name

    def add_price_context(self, source: Any, *names: str) -> None:
        """Take terms of the price from an object or a mapping: its texts and enumerations of these names."""
        for name in names:
            told = source.get(name) if isinstance(source, Mapping) else getattr(source, name, None)
            told = getattr(told, "value", told)
            if isinstance(told, str) and told:
                self.price_context[name] = told[:_LONGEST_TERM]


class TappedStream:
    """A stream of an SDK that passes each event to `tap` before pydantic-ai receives it."""

    def __init__(self, stream: Any, tap: Callable[[Any], None]) -> None:
        self._stream = stream
        self._tap = tap
        self._events: AsyncIterator[Any] | None = None

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        if self._events is None:
            self._events = aiter(self._stream)
        event = await anext(self._events)
        self._tap(event)
        return event

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def as_data(reported: Any) -> Any:
    """Return a model of an SDK as a dict with the fields that were received."""
    return reported.model_dump(warnings=False, exclude_unset=True) if hasattr(reported, "model_dump") else reported


def count(counts: Any, name: str) -> int | None:
    """Return the number of tokens in the field `name`; None if it is missing or not a valid count."""
    value = counts.get(name) if isinstance(counts, Mapping) else None
    return value if type(value) is int and 0 <= value < _TOO_MANY else None


def total(first: int | None, *more: int | None) -> int | None:
    """Return the sum of a count and others that are not part of it; None if the first is unknown."""
    return None if first is None else first + sum(number or 0 for number in more)


def none_if_empty(usage: TokenUsage) -> TokenUsage | None:
    """Return the usage, or None if it has no count."""
    return None if usage == TokenUsage() else usage
