"""Fast path: skip validation for fields that already are in canonical form.

Validation and conversion take several times as long as everything else about a record. They are skipped if every value
has exactly the type of CallRecord and the canonical form would not change it. Otherwise the slow path,
`canonical.convert`, makes the same record.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from operator import itemgetter
from typing import Any, NamedTuple
from uuid import UUID

from ..schemas import CallRecord
from ..storage.types import LATEST
from .fields import (
    COUNTS,
    FIELDS,
    INT64,
    MAX_DETAILS_BYTES,
    MAX_METADATA_BYTES,
    MAX_NAME,
    MAX_TOOLS,
    SHORT_TEXTS,
    UNIT_FIELDS,
    Kind,
    choices,
    of_kind,
)

#: Most bytes of JSON of an ASCII character (`\u001f`), and of an entry of a mapping besides its texts: a number of 20
#: digits, four quotes, colon and comma.
_LONGEST_ESCAPE = 6
_LONGEST_FRAME = 26


def try_convert(fields: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return a value for every field of CallRecord, in canonical form; None if the slow path is needed.

    Fields that are not given get their defaults. A missing id or time is None.
    """
    shape = _shape(tuple(fields), tuple(map(type, fields.values())))
    if shape is None:
        return None
    for name in shape.counts:
        if not 0 <= fields[name] < INT64:
            return None
    for name, is_canonical in shape.checks:
        if not is_canonical(fields[name]):
            return None
    if not _are_plain(shape.texts(fields)):
        return None
    values = _BLANK.copy()
    values.update(fields)
    for name in shape.copied:  # the caller may change these objects later
        values[name] = values[name].copy()
    return values


class _Shape(NamedTuple):
    """Checks that remain for fields of the same names and types."""

    texts: Callable[[Mapping[str, Any]], tuple[str, ...]]
    counts: tuple[str, ...]
    checks: tuple[tuple[str, Callable[[Any], bool]], ...]
    copied: tuple[str, ...]


@lru_cache(maxsize=1024)
def _shape(names: tuple[str, ...], kinds: tuple[type, ...]) -> _Shape | None:
    """Return the checks for fields of these names and types; None if they are not those of a CallRecord.

    The result is cached: an application makes calls of few shapes.
    """
    kind_of = dict(zip(names, kinds, strict=True))
    if not kind_of.keys() >= _REQUIRED:
        return None
    present = []
    for name, kind in kind_of.items():
        if kind is _TYPE_OF.get(name):
            present.append(name)
        elif name not in _OPTIONAL or kind is not type(None):
            return None
    return _Shape(
        itemgetter(*(name for name in present if name in _TEXTS)),
        tuple(name for name in present if name in _COUNTS),
        tuple((name, _CHECKS[name]) for name in present if name in _CHECKS),
        tuple(name for name in present if _TYPE_OF[name] in (list, dict)),
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
    return len(items) <= MAX_TOOLS and all(type(item) is str for item in items) and _are_plain(items)


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
    return _fits("".join(texts), len(metadata), MAX_METADATA_BYTES)


def _are_counts(counts: dict[Any, Any]) -> bool:
    for unit, count in counts.items():
        if type(unit) is not str or type(count) is not int or not 0 <= count < INT64 or unit in UNIT_FIELDS:
            return False
    return _fits("".join(counts), len(counts), MAX_DETAILS_BYTES)


def _are_labels(labels: dict[Any, Any]) -> bool:
    for name, text in labels.items():
        if type(name) is not str or type(text) is not str:
            return False
    return _fits("".join(labels) + "".join(labels.values()), len(labels), MAX_DETAILS_BYTES)


def _fits(text: str, entries: int, limit: int) -> bool:
    """Return whether the JSON of a flat object with these texts fits the limit, and needs no other characters."""
    return len(text) * _LONGEST_ESCAPE + entries * _LONGEST_FRAME < limit and text.isascii() and "\0" not in text


#: The type of a value on the fast path, by kind. Messages and money always take the slow path.
_TYPES: Mapping[Kind, type] = {
    "uuid": UUID,
    "name": str,
    "user": str,
    "text": str,
    "choice": str,
    "tokens": int,
    "ms": int,
    "ordinal": int,
    "integer": int,
    "number": float,
    "flag": bool,
    "time": datetime,
    "texts": list,
    "json": dict,
    "counts": dict,
    "labels": dict,
}
_TYPE_OF = {name: _TYPES[field.kind] for name, field in FIELDS.items() if field.kind in _TYPES}

_TEXTS = frozenset(SHORT_TEXTS)
_COUNTS = frozenset((*COUNTS, *of_kind("ordinal", "integer")))
_CHECKS_BY_KIND: Mapping[Kind, Callable[[Any], bool]] = {
    "ordinal": _is_positive,
    "number": _is_positive,
    "time": _is_utc,
    "texts": _are_plain_texts,
    "json": _is_short_and_flat,
    "counts": _are_counts,
    "labels": _are_labels,
}
_CHECKS: dict[str, Callable[[Any], bool]] = {
    **{name: choices(name).__contains__ for name in of_kind("choice")},
    **{name: _CHECKS_BY_KIND[field.kind] for name, field in FIELDS.items() if field.kind in _CHECKS_BY_KIND},
}
_FILLED_IN = frozenset({"id", "called_at"})
_REQUIRED = frozenset(name for name, field in CallRecord.model_fields.items() if field.is_required()) - _FILLED_IN
_BLANK: dict[str, Any] = {
    name: None if field.is_required() else field.default for name, field in CallRecord.model_fields.items()
}
_OPTIONAL = frozenset(name for name, value in _BLANK.items() if value is None) - _REQUIRED - _FILLED_IN
