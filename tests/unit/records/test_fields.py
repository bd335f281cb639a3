"""The table of fields agrees with CallRecord and with the conformance kit."""

from __future__ import annotations

from datetime import datetime
from typing import Any, get_args
from uuid import UUID

import pytest

from llmbridge._records.fields import FIELDS, INT64, Kind, choices, of_kind
from llmbridge.schemas import CallRecord, Money
from llmbridge.testing.calls import FULL

TYPES: dict[Kind, Any] = {
    "uuid": UUID,
    "name": str,
    "user": str,
    "text": str,
    "message": str,
    "tokens": int,
    "ms": int,
    "ordinal": int,
    "integer": int,
    "number": float,
    "flag": bool,
    "money": Money,
    "time": datetime,
    "texts": list[str],
    "json": dict[str, Any],
    "counts": dict[str, int],
    "labels": dict[str, str],
}


def without_none(annotation: Any) -> Any:
    options = [option for option in get_args(annotation) if option is not type(None)]
    return options[0] if type(None) in get_args(annotation) else annotation


def test_the_table_has_the_fields_of_a_call_in_their_order() -> None:
    assert list(FIELDS) == list(CallRecord.model_fields)


@pytest.mark.parametrize("name", FIELDS)
def test_a_kind_is_of_the_type_that_the_field_has(name: str) -> None:
    annotation = without_none(CallRecord.model_fields[name].annotation)
    if FIELDS[name].kind == "choice":
        assert choices(name) == set(get_args(annotation))
    else:
        assert annotation == TYPES[FIELDS[name].kind]


def test_a_subset_is_a_count_of_what_is_counted() -> None:
    subsets = {name: field.subset_of for name, field in FIELDS.items() if field.subset_of is not None}
    assert set(subsets) | set(subsets.values()) == set(of_kind("tokens"))


def test_the_kit_records_a_call_with_a_value_in_every_field() -> None:
    assert set(FULL) == set(FIELDS)
    assert None not in FULL.values()


@pytest.mark.parametrize("name", of_kind("tokens", "ms", "ordinal"))
def test_the_kit_has_the_limits_of_a_number(name: str) -> None:
    assert isinstance(FULL[name], int)
    assert 0 < FULL[name] < INT64
