"""What crosses the storage boundary: questions, answers and reports. All of it is frozen."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, make_dataclass
from datetime import UTC, datetime
from decimal import Decimal
from itertools import pairwise
from operator import attrgetter
from typing import Any, Literal, cast
from uuid import UUID

from ..schemas import CallRecord
from .histogram import percentile, value

#: The bounds of an unbounded question; every storable time lies in [EARLIEST, LATEST).
EARLIEST = datetime.min.replace(tzinfo=UTC)
LATEST = datetime.max.replace(tzinfo=UTC)

#: Fields that a question may filter by, besides one metadata tag written `tag:NAME`.
FILTER_FIELDS = ("origin", "id_at_origin", "provider", "model_name", "status")
#: Fields that it may group by, besides one tag and `period`.
GROUP_FIELDS = (*FILTER_FIELDS, "error_type")
TAG_PREFIX = "tag:"

#: Most records in one batch, and most calls in one page.
MAX_BATCH = 1000
MAX_PAGE = 1000

#: A filter's field -> the values that it accepts, where None means "calls without one".
Filters = Mapping[str, tuple[str | None, ...]]
#: (called_at, id) of the last call of a page.
Cursor = tuple[datetime, UUID]
Grain = Literal["day", "quarter"]


@dataclass(frozen=True, slots=True)
class MigrationReport:
    """What `apply_migrations` did, by names of migrations; `report["applied"]` works too."""

    applied: list[str]
    skipped: list[str]
    total: int

    def __getitem__(self, name: str) -> Any:
        if name not in self.keys():
            raise KeyError(name)
        return getattr(self, name)

    def keys(self) -> tuple[str, ...]:
        """The names of the fields."""
        return tuple(f.name for f in fields(self))

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def get(self, name: str, default: Any = None) -> Any:
        """The field of that name, else `default`."""
        return getattr(self, name) if name in self.keys() else default


@dataclass(frozen=True, slots=True)
class SchemaStatus:
    """How far a store is migrated. `current` None is an empty store; `writable` False is too new for this code."""

    current: str | None
    head: str
    pending: list[str]
    writable: bool


@dataclass(frozen=True, slots=True)
class UpsertResult:
    """How many rows were new and how many were replaced."""

    inserted: int
    updated: int


@dataclass(frozen=True, slots=True)
class RecordResult:
    """What became of a batch. `expired` are the ids of calls before the store's watermark, which are not stored."""

    inserted: int
    duplicates: int
    expired: tuple[UUID, ...] = ()


@dataclass(frozen=True, slots=True)
class CallQuery:
    """Which calls to list: newest first, at most `limit`, those after the `after` of the page before.

    `since` inclusive, `until` exclusive, None unbounded. `ids` None does not restrict. Raises ValueError for a
    wrong filter, limit, time, cursor or id.
    """

    filters: Filters = field(default_factory=dict)
    since: datetime | None = None
    until: datetime | None = None
    limit: int = 100
    after: Cursor | None = None
    ids: tuple[UUID, ...] | None = None

    def __post_init__(self) -> None:
        _check_filters(self.filters)
        if not 1 <= self.limit <= MAX_PAGE:
            raise ValueError(f"limit is {self.limit}; it must be from 1 to {MAX_PAGE}")
        if self.ids is not None and len(self.ids) > MAX_PAGE:
            raise ValueError(f"{len(self.ids)} ids asked for; at most {MAX_PAGE} at once")
        for one in self.ids or ():
            if not isinstance(one, UUID):
                raise ValueError(f"an id is a UUID, not {type(one).__name__}")
        for at in (self.since, self.until, self.after[0] if self.after else None):
            if at is not None:
                check_utc(at)


@dataclass(frozen=True, slots=True)
class CallPage:
    """Calls, newest first, and the cursor of the next page (None: this is the last)."""

    calls: list[CallRecord]
    next: Cursor | None


@dataclass(frozen=True, slots=True)
class UsageQuery:
    """Which sums to make.

    `edges` are sorted UTC instants, at least two: a call belongs to interval i if edges[i] <= called_at <
    edges[i + 1], and to none outside. `group_by` takes the fields of GROUP_FIELDS, one `tag:NAME`, and `period`,
    the interval. Raises ValueError for anything else.
    """

    filters: Filters = field(default_factory=dict)
    group_by: tuple[str, ...] = ()
    edges: tuple[datetime, ...] = (EARLIEST, LATEST)

    def __post_init__(self) -> None:
        _check_filters(self.filters)
        for name in self.group_by:
            if name not in GROUP_FIELDS and name != "period" and not _is_tag(name):
                raise ValueError(f"cannot group by {name!r}; known: {', '.join(GROUP_FIELDS)}, period, tag:NAME")
        if len(set(self.group_by)) != len(self.group_by):
            raise ValueError("group_by names a field twice")
        if sum(map(_is_tag, self.group_by)) > 1:
            raise ValueError("group_by takes one metadata tag")
        if len(self.edges) < 2:
            raise ValueError("at least two edges are needed")
        for edge in self.edges:
            check_utc(edge)
        if any(a >= b for a, b in pairwise(self.edges)):
            raise ValueError("edges must rise")


@dataclass(frozen=True, slots=True)
class UsageRow:
    """Sums over the calls of one group.

    `key` has the fields of group_by except `period`, which stands in `period` as the index of its interval
    (None: not grouped by it). `requests` counts first attempts; `by_status` has no zeros. Token sums and `cost`
    (dollars, exact) leave out what is None. `unpriced_calls` have no cost and neither reason not_billed nor
    synthetic; `unmeasured_calls` have no total_tokens and not reason not_billed. The times (ms) and histograms
    (bucket of `storage.histogram` -> calls) cover successful calls with a value.
    """

    key: dict[str, Any] = field(default_factory=dict)
    period: int | None = None
    calls: int = 0
    requests: int = 0
    by_status: dict[str, int] = field(default_factory=dict)
    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    cost: Decimal = Decimal("0E-12")
    unpriced_calls: int = 0
    unmeasured_calls: int = 0
    response_time_ms_sum: int = 0
    response_time_ms_count: int = 0
    response_time_histogram: Mapping[int, int] = field(default_factory=dict)
    first_token_histogram: Mapping[int, int] = field(default_factory=dict)

    @property
    def success_rate(self) -> float | None:
        """The part of the calls that succeeded, 0 to 1; None without calls."""
        return self.by_status.get("success", 0) / self.calls if self.calls else None

    @property
    def failed_calls(self) -> int:
        """Calls that did not succeed; `by_status` and a grouping by error_type tell them apart."""
        return self.calls - self.by_status.get("success", 0)

    @property
    def response_time_mean_ms(self) -> float | None:
        """The mean time of a successful call; None where none was timed."""
        return self.response_time_ms_sum / self.response_time_ms_count if self.response_time_ms_count else None

    @property
    def first_token_mean_ms(self) -> float | None:
        """The mean time to the first token of a successful call, within 1.1 %; None where none was timed."""
        timed = sum(self.first_token_histogram.values())
        total = sum(value(index) * calls for index, calls in self.first_token_histogram.items())
        return total / timed if timed else None

    def response_time_ms(self, percent: float) -> float | None:
        """The time below or at which `percent` of the successful calls lie (50: the median), within 1.1 %; None where
        none was timed."""
        return percentile(self.response_time_histogram, percent)

    def first_token_ms(self, percent: float) -> float | None:
        """The time to the first token below or at which `percent` of the successful calls lie, within 1.1 %; None where
        none was timed."""
        return percentile(self.first_token_histogram, percent)


#: As UsageRow, but not frozen: each field of a frozen one is set by a call, which takes several times as long.
_Unfrozen: Any = make_dataclass("_Unfrozen", [f.name for f in fields(UsageRow)], slots=True)
_BEHIND_KEY = attrgetter(*[f.name for f in fields(UsageRow)][1:])


def usage_row(*values: Any) -> UsageRow:
    """A row of the values of all fields in their order. Answers have thousands of rows."""
    row = _Unfrozen(*values)
    row.__class__ = UsageRow
    return cast("UsageRow", row)


def with_key(row: UsageRow, key: dict[str, Any]) -> UsageRow:
    """The same sums with another key."""
    return usage_row(key, *_BEHIND_KEY(row))


@dataclass(frozen=True, slots=True)
class ModelPrice:
    """An own price, in dollars per million tokens, in force from `effective_from` (UTC) until the next one.

    `cache_write_1h` is the rate of what a cache keeps for an hour, `cache_write` that of all else written to one.
    A rate of None is not known: a call that needs it has no cost. 0 is a price. Without any rate it withdraws the one
    before: from then on the model has the price of genai-prices again, if there is one.
    """

    provider: str
    model_name: str
    effective_from: datetime
    input: Decimal | None = None
    output: Decimal | None = None
    cache_read: Decimal | None = None
    cache_write: Decimal | None = None
    cache_write_1h: Decimal | None = None


@dataclass(frozen=True, slots=True)
class CostChange:
    """A new cost (dollars, or None with its reason) for the call `id`, decided at `at` (UTC)."""

    id: UUID
    cost: Decimal | None
    cost_source: str | None
    cost_reason: str | None
    price_version: str | None
    at: datetime


@dataclass(frozen=True, slots=True)
class TotalsReport:
    """How many totals were counted anew, how many were wrong, how many were repaired."""

    checked: int = 0
    wrong: int = 0
    repaired: int = 0


@dataclass(frozen=True, slots=True)
class TotalsRow:
    """Sums over the purged calls of one cell.

    Grain `day`: a UTC day, with key origin, id_at_origin, provider, model_name, status. Grain `quarter`: a
    quarter of an hour, the same key without id_at_origin. `start` is the cell's first instant (UTC). `sums` has
    an empty key and no period.
    """

    grain: Grain
    start: datetime
    key: dict[str, str | None]
    sums: UsageRow


@dataclass(frozen=True, slots=True)
class TotalsPage:
    """Totals of purged days, the text to go on from (None: this is the last page), and the store's watermark
    (UTC midnight; None: nothing was ever purged)."""

    rows: list[TotalsRow]
    next: str | None
    watermark: datetime | None


def check_utc(at: datetime) -> None:
    """Raise ValueError unless `at` is aware and in UTC."""
    if at.tzinfo is not UTC and at.utcoffset() != UTC.utcoffset(None):
        raise ValueError(f"{at!r} is not in UTC")


def _is_tag(name: str) -> bool:
    return name.startswith(TAG_PREFIX) and len(name) > len(TAG_PREFIX)


def _check_filters(filters: Filters) -> None:
    for name, accepted in filters.items():
        if name not in FILTER_FIELDS and not _is_tag(name):
            raise ValueError(f"cannot filter by {name!r}; known: {', '.join(FILTER_FIELDS)}, tag:NAME")
        if not isinstance(accepted, tuple):
            raise ValueError(f"the filter {name!r} must be a tuple of accepted values")
    if sum(map(_is_tag, filters)) > 1:
        raise ValueError("filters take one metadata tag")
