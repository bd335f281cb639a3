"""The fast path makes the same records as the full conversion."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from enum import StrEnum
from typing import Any
from uuid import UUID, SafeUUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llmbridge._pricing.price_book import PriceBook
from llmbridge._recording.record_builder import complete
from llmbridge._records import canonical
from llmbridge._records.fast_path import try_convert
from llmbridge.errors import RecordRejectedError
from llmbridge.schemas import CallRecord

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
FIELDS: dict[str, Any] = {
    "id": UUID(int=7),
    "origin": "app",
    "id_at_origin": "user-1",
    "provider": "openai",
    "model_name": "gpt-4o-mini",
    "prompt_tokens": 812,
    "completion_tokens": 0,
    "response_time_ms": 640,
    "temperature": 0.2,
    "stream": False,
    "tools_used": ["search"],
    "status": "success",
    "metadata": {"team": "search", "try": 2, "beta": True, "trace": None},
    "usage_details": {"input_audio_tokens": 12, "web_searches": 0},
    "price_context": {"service_tier": "default"},
    "called_at": NOON,
}


class Text(str):
    __slots__ = ()


class Number(int):
    pass


class Ratio(float):
    pass


class Instant(datetime):
    pass


class Identity(UUID):
    pass


class Mapping(dict):  # type: ignore[type-arg]
    pass


class Status(StrEnum):
    SUCCESS = "success"


texts = st.one_of(
    st.text(st.characters(codec="ascii"), max_size=5),
    st.sampled_from(
        ["success", "provider", "prices", "not_billed", "x" * 255, "x" * 256, "ö", "\0", "\ud800", "1", ""]
    ),
)
integers = st.one_of(
    st.integers(0, 10**6), st.sampled_from([-1, 0, 1, 2**63 - 1, 2**63, -(2**63), -(2**63) - 1, 10**30])
)
scalars = st.one_of(
    st.none(),
    st.booleans(),
    texts,
    integers,
    st.floats(),
    st.decimals(allow_nan=True, allow_infinity=True),
    texts.map(Text),
    integers.map(Number),
    st.floats(allow_nan=False).map(Ratio),
    st.sampled_from([-0.0, math.nan, math.inf, 1.0, Decimal("0.1"), Decimal("1e-13"), Decimal(10**9), Status.SUCCESS]),
    st.uuids(),
    st.uuids().map(lambda id_: Identity(int=id_.int)),
    st.just(UUID(int=0)),
    st.datetimes(),
    st.datetimes(timezones=st.sampled_from([UTC, timezone(timedelta(hours=2)), timezone(timedelta(0), "nowhere")])),
    st.datetimes().map(lambda at: Instant.combine(at.date(), at.time(), UTC)),
    st.sampled_from([datetime.max.replace(tzinfo=UTC), datetime.min.replace(tzinfo=UTC), NOON.isoformat()]),
    st.binary(max_size=3),
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.one_of(texts, texts.map(Text), integers, st.none()), inner, max_size=3),
        st.dictionaries(texts, inner, max_size=3).map(Mapping),
        st.lists(texts, max_size=3),
        st.lists(inner, max_size=2).map(tuple),
    ),
    max_leaves=4,
)
names = st.sampled_from([*CallRecord.model_fields, "system_prompt", "nonsense"])
#: What is right for its field, so that most of what is drawn gets far.
fitting = {
    **dict.fromkeys(("origin", "id_at_origin", "provider", "model_name", "finish_reason", "error_message"), texts),
    **dict.fromkeys(("prompt_tokens", "total_tokens", "attempt", "max_tokens", "response_time_ms"), integers),
    "metadata": st.dictionaries(texts, scalars, max_size=4),
    "usage_details": st.dictionaries(st.one_of(texts, st.just("input_tokens")), integers, max_size=3),
    "price_context": st.dictionaries(texts, texts, max_size=3),
    "tools_used": st.lists(texts, max_size=3),
    "temperature": st.floats(),
    "status": st.sampled_from(["success", "error", "nonsense", Status.SUCCESS]),
    "usage_source": st.sampled_from(["none", "provider", "nobody"]),
    "called_at": st.datetimes(timezones=st.just(UTC)),
    "group_id": st.uuids(),
}


@st.composite
def given_fields(draw: st.DrawFn) -> dict[str, Any]:
    """Ordinary fields of which a few are something else, or missing."""
    fields = {name: draw(fitting[name]) if draw(st.booleans()) else FIELDS[name] for name in FIELDS if name in fitting}
    fields["id"] = FIELDS["id"]
    for name in draw(st.lists(st.sampled_from(sorted(fields)), max_size=2)):
        fields.pop(name, None)
    for name in draw(st.lists(names, max_size=3)):
        fields[name] = draw(fitting.get(name, values) if draw(st.booleans()) else values)
    return fields


def exactly(value: Any) -> Any:
    """A value with the types of all that is in it."""
    if isinstance(value, dict):
        return dict, [(exactly(key), exactly(item)) for key, item in value.items()]
    if isinstance(value, list):
        return list, [exactly(item) for item in value]
    return type(value), repr(value)


@settings(max_examples=600, suppress_health_check=[HealthCheck.too_slow])
@given(given_fields())
def test_what_is_taken_as_it_stands_is_what_conversion_gives(fields: dict[str, Any]) -> None:
    short = try_convert(fields)
    if short is None:
        return
    fields = {"id": UUID(int=7), "called_at": NOON, **fields}
    long = CallRecord.from_values(canonical.convert(fields))
    whole = try_convert(fields)
    assert whole is not None
    record = CallRecord.from_values(whole)
    assert record == long
    assert exactly(vars(record)) == exactly(vars(long))
    assert {**vars(record), **short} == {**vars(record), "id": short["id"], "called_at": short["called_at"]}
    assert record.model_dump_json() == long.model_dump_json()
    assert list(vars(record)) == list(CallRecord.model_fields)


@settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(names, values, max_size=3))
def test_nothing_odd_is_ordinary(changes: dict[str, Any]) -> None:
    fields = FIELDS | changes
    short = try_convert(fields)
    if short is not None:
        assert exactly(short) == exactly(canonical.convert(fields))


def test_most_calls_are_ordinary() -> None:
    assert try_convert(FIELDS) is not None
    assert (
        try_convert(FIELDS | {"id_at_origin": None, "metadata": None, "status": "error", "error_type": "Timeout"})
        is not None
    )


@pytest.mark.parametrize(
    "odd",
    [
        *({"origin": text} for text in ("", "x" * 256, "ö", "a\0", "\ud800", Text("app"), None, 1)),
        *({"id_at_origin": text} for text in ("", "ö", Text("user"))),
        *({"prompt_tokens": count} for count in (-1, 2**63, True, Number(1), 1.0, "1")),
        *({"attempt": number} for number in (0, None)),
        *({"temperature": number} for number in (-0.0, math.nan, math.inf, 1, Ratio(0.5))),
        *({"called_at": at} for at in (NOON.replace(tzinfo=None), Instant(2026, 3, 1, tzinfo=UTC), NOON.isoformat())),
        {"called_at": NOON.astimezone(timezone(timedelta(0), "nowhere"))},
        {"called_at": datetime.max.replace(tzinfo=UTC)},
        *({"status": status} for status in ("nonsense", Status.SUCCESS, ["success"])),
        *({"metadata": {"k": value}} for value in (2**63, 0.5, "\0", "ö", Text("x"), Number(1), [1], {"a": 1})),
        *({"metadata": {key: 1}} for key in ("ö", Text("k"), 1)),
        {"metadata": Mapping(k=1)},
        *({"usage_details": {"k": value}} for value in (2**63, -1, True, 0.5, "1", Number(1), None)),
        *({"usage_details": {key: 1}} for key in ("ö", Text("k"), "\0", "input_tokens", "x" * 5000)),
        *({"price_context": {"k": value}} for value in ("ö", Text("x"), "\0", 1, None, "x" * 5000)),
        *({"price_context": {key: "x"}} for key in ("ö", Text("k"), 1)),
        *({"tools_used": tools} for tools in ([Text("x")], [1], ["ö"], [""], ("x",))),
        *({"group_id": id_} for id_ in (Identity(int=1), str(UUID(int=1)))),
        {"id": Identity(int=1)},
        {"estimated_cost": Decimal(1)},
        {"error_message": "no key here"},
        {"stream": None},
        {"nonsense": None},
        {"nonsense": "x"},
    ],
    ids=repr,
)
def test_what_is_only_a_little_unusual_is_not(odd: dict[str, Any]) -> None:
    assert try_convert(FIELDS | odd) is None


@pytest.mark.parametrize("name", ["origin", "provider", "model_name"])
def test_what_lacks_a_field_is_not(name: str) -> None:
    assert try_convert({key: value for key, value in FIELDS.items() if key != name}) is None


@pytest.mark.parametrize("name", ["id", "called_at"])
def test_an_id_and_a_time_may_be_filled_in_but_not_left_out(name: str) -> None:
    fields = {key: value for key, value in FIELDS.items() if key != name}
    filled = try_convert(fields)
    assert filled is not None
    assert filled[name] is None
    with pytest.raises(RecordRejectedError, match=name):
        canonical.convert(fields)
    assert try_convert(FIELDS | {name: None}) is None


def test_what_the_caller_changes_later_does_not_change_the_record() -> None:
    fields = FIELDS | {
        "metadata": {"team": "search"},
        "tools_used": ["search"],
        "usage_details": {},
        "price_context": {},
    }
    record = complete(fields, PriceBook())
    fields["metadata"]["team"] = "sales"
    fields["tools_used"].append("mail")
    fields["usage_details"]["web_searches"] = 1
    fields["price_context"]["speed"] = "fast"
    assert (record.metadata, record.tools_used) == ({"team": "search"}, ["search"])
    assert record.usage_details == record.price_context == {}


def test_metadata_that_could_be_too_long_as_json_takes_the_long_way() -> None:
    most = {"k": "\x01" * 1357}
    assert try_convert(FIELDS | {"metadata": most}) is not None
    assert canonical.convert(FIELDS | {"metadata": most})["metadata"] == most
    assert try_convert(FIELDS | {"metadata": {"k": "x" * 1361}}) is None


def test_an_unsafe_uuid_is_as_good_as_any() -> None:
    fields = FIELDS | {"id": UUID(int=3, is_safe=SafeUUID.unsafe)}
    assert complete(fields, PriceBook()).id == UUID(int=3)
