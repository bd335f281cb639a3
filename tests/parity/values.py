"""Values to record and to query by: few of them, so that they coincide, and those that backends got wrong before.

Each list begins with the simplest value, to which a failing sequence is reduced.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from hypothesis import strategies as st

from llmbridge._shared.money import from_units
from llmbridge.storage import EARLIEST, FILTER_FIELDS, GROUP_FIELDS, LATEST
from llmbridge.testing.records import MAX_INT, make_id

ZONES = (
    "UTC",
    "Europe/Madrid",
    "America/New_York",
    "Asia/Kathmandu",  # +05:45
    "Pacific/Kiritimati",  # +14
    "Pacific/Niue",  # -11
    "Australia/Lord_Howe",  # half an hour of summer time
    "Pacific/Apia",  # skipped 2011-12-30
    "Africa/Monrovia",  # 44 minutes and 30 seconds until 1972
    "America/Sao_Paulo",  # summer time began at midnight
)

_TICK = timedelta(microseconds=1)
#: Where days, hours and offsets change in those zones, and the ends of time.
_TURNS = (
    datetime(2024, 3, 31, 1, tzinfo=UTC),  # Madrid springs forward
    datetime(2024, 4, 1, tzinfo=UTC),
    datetime(2024, 10, 27, 1, tzinfo=UTC),  # Madrid falls back
    datetime(2024, 11, 3, 6, tzinfo=UTC),  # New York falls back
    datetime(2024, 4, 6, 15, tzinfo=UTC),  # Lord Howe falls back
    datetime(2024, 12, 31, 18, 15, tzinfo=UTC),  # midnight in Kathmandu
    datetime(2024, 12, 31, 10, tzinfo=UTC),  # midnight on Kiritimati
    datetime(2011, 12, 30, 10, tzinfo=UTC),  # Apia goes to the last day of the year
    datetime(2018, 11, 4, 3, tzinfo=UTC),  # Sao Paulo has no midnight
    datetime(1972, 1, 7, 0, 44, 30, tzinfo=UTC),
    datetime(1970, 1, 1, tzinfo=UTC),
)
#: Every storable time lies from the first to the last of these.
TIMES = (
    *_TURNS,
    *(turn - _TICK for turn in _TURNS),
    *(turn + _TICK for turn in _TURNS),
    datetime(2024, 3, 31, 1, 30, tzinfo=UTC),
    datetime(2024, 10, 27, 0, 30, 0, 500_000, tzinfo=UTC),
    datetime(1582, 10, 10, tzinfo=UTC),
    EARLIEST,
    EARLIEST + _TICK,
    EARLIEST + timedelta(days=1),
    LATEST - timedelta(days=1),
    LATEST - _TICK,
)

#: Their order differs between code points, UTF-16, locales, case folding and padded comparison; some look like SQL.
NAMES = (
    "app",
    "App",
    "app ",
    "apple",
    "APP",
    "\uff5e",
    "\U0001f600",
    "\U0010ffff",
    "\ud7ff",
    "\ue000",
    "\ufffd",
    "é",
    "e\u0301",
    "Ü",
    "ß",
    "ss",
    "İ",
    "it's",
    '"%_\\',
    "%",
    "_",
    "$1",
    "?",
    ":first",
    "{{schema}}",
    "NULL",
    "null",
    "0",
    " ",
    "\n",
    "\x01",
    "\x7f\x85\u2028",
    "\\u0000",
    "\U0001f600" * 255,
)
KEYS = ("team", "Team", "a.b", "$.a", 'say "hi"', "it's", "é", "\U0001f600", "[0]", "0", "\\", "%", " ")
STATUSES = ("success", "error", "timeout", "rate_limited", "cancelled")
REASONS = ("unknown_model", "unmeasured_usage", "missing_rate", "not_billed", "synthetic")
SOURCES = ("prices", "own_prices", "provider", "caller")

DETAILS = (None, {}, {"web_searches": 0}, {"z": MAX_INT, "a": 2**53 + 1}, {'say "hi"': 1, "\U0001f600": 0, "": 7})
CONTEXTS = (None, {}, {"service_tier": "Priority"}, {"z": "", "a": "null"}, {'"$': "\uff5e", "": "\U0001f600"})
FACTORS = (None, *map(from_units, (0, 1, 780_000_000_001, 9 * 10**18 - 1)))

IDS = (
    *(make_id(_TURNS[0], number) for number in range(12)),
    UUID(int=0),
    UUID(int=1),
    UUID(int=2**63),
    UUID(int=2**64),
    UUID(int=2**127 - 1),
    UUID(int=2**127),
    UUID(int=2**128 - 1),
)
UNITS = (0, 1, -1, 450_000, 10**12, 2**53 + 1, -(2**53) - 1, 9 * 10**18 - 1, 1 - 9 * 10**18)
COUNTS = (0, 1, 17, 2**31, 2**32 - 1, 2**32, 2**53 + 1, MAX_INT - 1, MAX_INT)
MILLISECONDS = (0, 1, 99, 100, 101, 250, 12_345, 86_400_000, 2**53 + 1, MAX_INT)
FLOATS = (0.0, 1.0, 0.1, 0.1 + 0.2, 1e22, 1e16, 123456789012345680.0, 5e-324, 1.7976931348623157e308, -1.5, 1e-7)
SCALARS = (
    "search",
    "Search",
    "1",
    1,
    1.0,
    True,
    False,
    None,
    0,
    -0.0,
    "",
    "true",
    "null",
    10**18,
    2**53 + 1,
    MAX_INT,
    -MAX_INT - 1,
    *FLOATS,
    "\U0001f600",
    "\uff5e",
    "\\u0000",
    '"',
)
TAG_TEXTS = ("search", "1", "1.0", "true", "false", "null", "1e+22", "-0.0", "", "9007199254740993", "1e-07", "\uff5e")

ids = st.sampled_from(IDS)
plain_text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=8)
names = st.sampled_from(NAMES[:6]) | st.sampled_from(NAMES) | plain_text
times = (
    st.sampled_from(TIMES[:4])
    | st.sampled_from(TIMES)
    | st.datetimes(EARLIEST.replace(tzinfo=None), (LATEST - _TICK).replace(tzinfo=None)).map(
        lambda at: at.replace(tzinfo=UTC)
    )
)
money = (st.sampled_from(UNITS) | st.integers(1 - 9 * 10**18, 9 * 10**18 - 1)).map(from_units)
rates = (st.sampled_from([unit for unit in UNITS if unit >= 0])).map(from_units)
counts = st.sampled_from(COUNTS) | st.integers(0, MAX_INT)
milliseconds = st.sampled_from(MILLISECONDS) | st.integers(0, 10**6)
floats = st.sampled_from(FLOATS) | st.floats(allow_nan=False, allow_infinity=False).map(lambda number: number + 0.0)
json_values = st.recursive(
    st.sampled_from(SCALARS) | st.integers(-MAX_INT - 1, MAX_INT) | floats,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=2),
    max_leaves=4,
)
metadata = st.sampled_from(SCALARS).map(lambda value: {KEYS[0]: value}) | st.dictionaries(
    st.sampled_from(KEYS), json_values, max_size=3
)


def or_none(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return values | st.none()


#: Many calls have few of these fields, so that a sequence has room for many calls.
_FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "origin": names,
    "id_at_origin": or_none(names),
    "provider": names,
    "model_name": names,
    "requested_model": or_none(names),
    "response_model": or_none(names | st.just("")),
    "prompt_tokens": or_none(counts),
    "completion_tokens": or_none(counts),
    "total_tokens": or_none(counts),
    "cache_read_tokens": or_none(counts),
    "cache_write_tokens": or_none(counts),
    "cache_write_1h_tokens": or_none(counts),
    "reasoning_tokens": or_none(counts),
    "usage_details": st.sampled_from(DETAILS),
    "usage_source": st.sampled_from(("provider", "partial", "estimated", "synthetic", "none")),
    "estimated_cost": or_none(money),
    "cost_source": or_none(st.sampled_from(SOURCES)),
    "cost_reason": or_none(st.sampled_from(REASONS)),
    "dollars_per_million_tokens_input_used": or_none(money),
    "dollars_per_million_tokens_output_used": or_none(money),
    "price_context": st.sampled_from(CONTEXTS),
    "price_version": or_none(names),
    "price_factor": st.sampled_from(FACTORS),
    "previous_cost": or_none(money),
    "previous_cost_reason": or_none(st.sampled_from(REASONS)),
    "repriced_at": or_none(times),
    "response_time_ms": or_none(milliseconds),
    "time_to_first_token_ms": or_none(milliseconds),
    "stream": st.booleans(),
    "finish_reason": or_none(names | st.just("")),
    "response_id": or_none(names | st.just("")),
    "attempt": st.sampled_from((1, 2, MAX_INT)),
    "group_id": or_none(ids),
    "temperature": or_none(floats),
    "max_tokens": or_none(counts | st.just(-MAX_INT - 1)),
    "tools_used": or_none(st.lists(names | st.just(""), max_size=2)),
    "system_prompt_hash": or_none(names),
    "status": st.sampled_from(STATUSES),
    "error_type": or_none(names | st.just("")),
    "error_message": or_none(names | st.just("") | st.just("\U0010ffff" * 2000)),
    "metadata": or_none(metadata),
}
_calls = st.fixed_dictionaries({"id": ids, "called_at": times}, optional=_FIELDS)
_names_of_fields = st.lists(st.sampled_from(sorted(_FIELDS)), max_size=6, unique=True)

#: Values that no database can ever hold, whatever the call has besides.
POISON: tuple[dict[str, Any], ...] = (
    {"prompt_tokens": MAX_INT + 1},
    {"attempt": 2**64},
    {"max_tokens": -MAX_INT - 2},
    {"response_time_ms": 10**30, "status": "error"},
    {"estimated_cost": from_units(2**63)},
    {"previous_cost": from_units(-(2**64))},
    {"error_message": "half a pair \ud800"},
    {"id_at_origin": "\udfff\ud800"},
    {"metadata": {"team": "\ud800"}},
    {"price_context": {"route": "\ud800"}},
    {"tools_used": ["\udc00"]},
)

_few = st.sampled_from(NAMES[:3]) | names
_models = st.fixed_dictionaries(
    {"provider": _few, "model_name": _few},
    optional={
        "id": or_none(counts),
        "display_name": or_none(names | st.just("")),
        "description": or_none(names | st.just("")),
        "max_context": or_none(counts),
        "max_output_tokens": or_none(counts),
        "supports_vision": st.booleans(),
        "supports_function_calling": st.booleans(),
        "supports_json_mode": st.booleans(),
        "supports_parallel_tool_calls": st.booleans(),
        "tool_call_format": or_none(names | st.just("")),
        "dollars_per_million_tokens_input": or_none(rates),
        "dollars_per_million_tokens_output": or_none(rates),
        "source": names,
        "inactive_from": or_none(times),
        "created_at": or_none(times),
        "updated_at": or_none(times),
    },
)
_prices = st.fixed_dictionaries(
    {"provider": _few, "model_name": _few, "effective_from": times},
    optional={
        **{name: or_none(rates) for name in ("input", "output", "cache_read", "cache_write", "cache_write_1h")},
        "rates": st.dictionaries(st.sampled_from(("web_searches", *KEYS)), rates, max_size=2),
        "context": st.sampled_from([context for context in CONTEXTS if context is not None]),
        "factor": or_none(rates),
    },
)


@st.composite
def calls(draw: st.DrawFn) -> dict[str, Any]:
    """What a call has besides the fields of `llmbridge.testing.records.make_call`."""
    if draw(st.integers(0, 3)) == 3:
        return draw(_calls)
    chosen = {name: _FIELDS[name] for name in draw(_names_of_fields)}
    return draw(st.fixed_dictionaries({"id": ids, "called_at": times, **chosen}))


@st.composite
def models(draw: st.DrawFn) -> dict[str, Any]:
    """The fields of a model."""
    return draw(_models)


@st.composite
def prices(draw: st.DrawFn) -> dict[str, Any]:
    """The fields of an own price."""
    return draw(_prices)


tags = (st.just(KEYS[0]) | st.sampled_from(KEYS)).map("tag:{}".format)


def _accepted(values: st.SearchStrategy[str]) -> st.SearchStrategy[tuple[str | None, ...]]:
    return st.lists(or_none(values), max_size=3).map(tuple)


@st.composite
def filters(draw: st.DrawFn) -> dict[str, tuple[str | None, ...]]:
    """Filters of a question, often none; one that accepts nothing is among them."""
    if draw(st.booleans()):
        return {}
    fields = draw(st.lists(st.sampled_from(FILTER_FIELDS), max_size=2))
    chosen = {field: draw(_accepted(st.sampled_from(STATUSES) if field == "status" else names)) for field in fields}
    if draw(st.booleans()):
        chosen[draw(tags)] = draw(_accepted(st.sampled_from(TAG_TEXTS) | names))
    return chosen


@st.composite
def groupings(draw: st.DrawFn, *, periods: tuple[str, ...] = ("period",)) -> tuple[str, ...]:
    """What to group by, in any order."""
    chosen = draw(st.lists(st.sampled_from(GROUP_FIELDS), max_size=3, unique=True))
    chosen += draw(st.lists(st.sampled_from(periods), max_size=1)) if periods else []
    chosen += draw(st.lists(tags, max_size=1))
    return tuple(draw(st.permutations(chosen)))


edges = st.just((EARLIEST, LATEST)) | st.lists(times | st.just(LATEST), min_size=2, max_size=5, unique=True).map(
    lambda instants: tuple(sorted(instants))
)
