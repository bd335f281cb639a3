"""Strict comparison: the same values with the same types."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from pydantic import BaseModel

from ..schemas import CallRecord, LLMModel
from ..storage.types import ModelPrice, TotalsRow, UsageRow


def assert_same(
    got: Sequence[CallRecord] | Sequence[LLMModel] | Sequence[ModelPrice] | Sequence[TotalsRow] | Sequence[UsageRow],
    expected: Sequence[Any],
) -> None:
    """Fail unless both contain equal records in the same order; name the first field that differs.

    A float is not a Decimal, True is not 1, and a time must be aware and in UTC. Any mapping is accepted for a dict.
    """
    for index, (one, other) in enumerate(zip(got, expected, strict=False)):
        assert type(one) is type(other), f"item {index} is a {type(one).__name__}, not a {type(other).__name__}"
        _compare(_fields(one), _fields(other), f"item {index}")
    assert len(got) == len(expected), f"{len(got)} items, not {len(expected)}"


def _fields(record: Any) -> dict[str, Any]:
    if isinstance(record, BaseModel):
        return dict(record)
    return {field.name: getattr(record, field.name) for field in dataclasses.fields(record)}


def _compare(got: Any, expected: Any, where: str) -> None:
    if isinstance(expected, datetime):
        assert isinstance(got, datetime), f"{where} is {got!r}, not a datetime"
        assert got.utcoffset() == timedelta(0), f"{where} is {got!r}, not in UTC"
    elif isinstance(expected, Decimal):
        assert isinstance(got, Decimal), f"{where} is {got!r}, not a Decimal"
    elif dataclasses.is_dataclass(expected):
        _compare(_fields(got), _fields(expected), where)
        return
    elif not isinstance(expected, Mapping):
        assert type(got) is type(expected), f"{where} is {got!r}, not {expected!r}"
    if isinstance(expected, Mapping):
        assert isinstance(got, Mapping), f"{where} is {got!r}, not a mapping"
        assert got.keys() == expected.keys(), f"{where} has the keys {list(got)}, not {list(expected)}"
        for key in expected:
            _compare(got[key], expected[key], f"{where}, {key}")
        return
    if isinstance(expected, list):
        assert len(got) == len(expected), f"{where} is {got!r}, not {expected!r}"
        for number, (one, other) in enumerate(zip(got, expected, strict=True)):
            _compare(one, other, f"{where}[{number}]")
        return
    assert got == expected, f"{where} is {got!r}, not {expected!r}"
