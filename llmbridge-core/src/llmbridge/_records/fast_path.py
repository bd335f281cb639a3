"""The short way to a record: the fields of most calls are in canonical form when they are given.

Fields that have exactly the types of CallRecord and nothing in them that canonical form would change need neither
validation nor conversion, which together take several times as long as everything else about a record. Whatever is
only a little unusual goes the long way, by `records.convert`, which gives the same record.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from operator import itemgetter
from typing import Any, NamedTuple, get_args
from uuid import UUID

from ..schemas import CallRecord, CallStatus, CostReason, CostSource, UsageSource
from ..storage.types import LATEST
from .fields import INT64, MAX_METADATA_BYTES, MAX_NAME, NATURALS

#: Most bytes of JSON that an ASCII character takes, as one that is escaped by its number, and an entry of a mapping
#: besides its texts: a number of 20 digits, four quotes, colon and comma.
_LONGEST_ESCAPE = 6
_LONGEST_FRAME = 26


def in_full(fields: Mapping[str, Any]) -> dict[str, Any] | None:
    """A value for every field of CallRecord, in canonical form, the defaults of those that are not given included; None
    where that takes a closer look. A missing id or time is left to be filled in, as None."""
    shape = _shape(tuple(fields), tuple(map(type, fields.values())))
    if shape is None:
        return None
    for name in shape.counts:
        if not 0 <= fields[name] < INT64:
            return None
    for name, is_fine in shape.checks:
        if not is_fine(fields[name]):
            return None
    if not _are_plain(shape.texts(fields)):
        return None
    values = {**_BLANK, **fields}
    for name in shape.copied:  # the caller's, who may change them later
        values[name] = values[name].copy()
    return values


class _Shape(NamedTuple):
    """What is left to look at in fields of the same names and types."""

    texts: Callable[[Mapping[str, Any]], tuple[str, ...]]
    counts: tuple[str, ...]
    checks: tuple[tuple[str, Callable[[Any], bool]], ...]
    copied: tuple[str, ...]


@lru_cache(maxsize=1024)
def _shape(names: tuple[str, ...], kinds: tuple[type, ...]) -> _Shape | None:
    """None where these are not the names and types of a CallRecord. Applications make calls of few shapes."""
    kind_of = dict(zip(names, kinds, strict=True))
    if not kind_of.keys() >= _REQUIRED:
        return None
    present = []
    for name, kind in kind_of.items():
        if kind is _KINDS.get(name):
            present.append(name)
        elif name not in _OPTIONAL or kind is not type(None):
            return None
    return _Shape(
        itemgetter(*(name for name in present if name in _TEXTS)),
        tuple(name for name in present if name in _COUNTS),
        tuple((name, _CHECKS[name]) for name in present if name in _CHECKS),
        tuple(name for name in present if _KINDS[name] in (list, dict)),
    )


def _are_plain(texts: Collection[str]) -> bool:
    text = "".join(texts)
    return (
        text.isascii()
        and "\0" not in text
        and all(texts)
        and (len(text) <= MAX_NAME or max(map(len, texts)) <= MAX_NAME)
    )


def _are_plain_texts(items: list[Any]) -> bool:
    return all(type(item) is str for item in items) and _are_plain(items)


def _is_positive(number: float) -> bool:
    return 0 < number < math.inf


def _is_utc(at: datetime) -> bool:
    return at.tzinfo is UTC and at < LATEST


def _is_short_and_flat(metadata: dict[Any, Any]) -> bool:
    texts: list[str] = []
    for key, value in metadata.items():
        kind = type(value)
        if type(key) is not str:
            return False
        texts.append(key)
        if kind is str:
            texts.append(value)
        elif not (value is None or kind is bool or (kind is int and -INT64 <= value < INT64)):
            return False
    text = "".join(texts)
    size = len(text) * _LONGEST_ESCAPE + len(metadata) * _LONGEST_FRAME
    return size < MAX_METADATA_BYTES and text.isascii() and "\0" not in text


_TEXTS = (
    "origin",
    "id_at_origin",
    "provider",
    "model_name",
    "requested_model",
    "price_version",
    "finish_reason",
    "response_id",
    "system_prompt_hash",
    "error_type",
)
_COUNTS = (*NATURALS, "max_tokens", "attempt")
_CHOICES = {"status": CallStatus, "usage_source": UsageSource, "cost_source": CostSource, "cost_reason": CostReason}

#: The one type that a field has on the short way, if it is not None; money takes the long way.
_KINDS: dict[str, type] = {
    **dict.fromkeys((*_TEXTS, *_CHOICES), str),
    **dict.fromkeys(_COUNTS, int),
    "id": UUID,
    "group_id": UUID,
    "called_at": datetime,
    "stream": bool,
    "temperature": float,
    "tools_used": list,
    "metadata": dict,
}
_CHECKS: dict[str, Callable[[Any], bool]] = {
    **{name: frozenset(get_args(choices)).__contains__ for name, choices in _CHOICES.items()},
    "attempt": _is_positive,
    "temperature": _is_positive,
    "called_at": _is_utc,
    "tools_used": _are_plain_texts,
    "metadata": _is_short_and_flat,
}
_FILLED_IN = frozenset({"id", "called_at"})
_REQUIRED = frozenset(name for name, field in CallRecord.model_fields.items() if field.is_required()) - _FILLED_IN
_BLANK = {name: None if field.is_required() else field.default for name, field in CallRecord.model_fields.items()}
_OPTIONAL = frozenset(name for name, value in _BLANK.items() if value is None) - _REQUIRED - _FILLED_IN
