"""Frozen types of the storage contract: queries, pages, rows and reports."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, make_dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from typing import Any, Literal, cast
from uuid import UUID

from .._shared.json_text import encode_json
from ..schemas import CallRecord

#: Bounds of an unbounded query; every storable time lies in [EARLIEST, LATEST).
EARLIEST = datetime.min.replace(tzinfo=UTC)
LATEST = datetime.max.replace(tzinfo=UTC)

#: Fields that a query may filter by, besides one metadata tag written `tag:NAME`. The totals of purged calls have all
#: but the last one.
FILTER_FIELDS = ("origin", "id_at_origin", "provider", "model_name", "status", "response_model")
#: Fields that a query may group by, besides one tag and `period`.
GROUP_FIELDS = (*FILTER_FIELDS, "error_type")
TAG_PREFIX = "tag:"

#: Most records in one batch, and most calls in one page.
MAX_BATCH = 1000
MAX_PAGE = 1000
#: How far the clocks of machines may differ. A watermark, or the end of a purge, that is further ahead is wrong.
MAX_CLOCK_SKEW = timedelta(days=1)

#: A filter's field -> the values that it accepts, where None means "calls without one".
Filters = Mapping[str, tuple[str | None, ...]]
#: (called_at, id) of the last call of a page.
Cursor = tuple[datetime, UUID]
Grain = Literal["day", "quarter"]


@dataclass(frozen=True, slots=True)
class MigrationReport:
    """Result of `apply_migrations`: names of migrations. `report["applied"]` works too."""

    applied: list[str]
    skipped: list[str]
    total: int

    def __getitem__(self, name: str) -> Any:
        if name not in self.keys():
            raise KeyError(name)
        return getattr(self, name)

    def keys(self) -> tuple[str, ...]:
        """Return the names of the fields."""
        return tuple(f.name for f in fields(self))

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def get(self, name: str, default: Any = None) -> Any:
        """Return the field of that name, else `default`."""
        return getattr(self, name) if name in self.keys() else default


@dataclass(frozen=True, slots=True)
class SchemaStatus:
    """State of a store's migrations.

    `current` is the newest applied migration (None: the store is empty), `head` the newest one that this release knows.
    `writable` is False if the store was migrated by a newer release that this one may not write to. `read_only` is True
    if this user cannot write to the store: the file, the disk or the server allows no writes, or the user has no right.
    `identity` is the text that no other store has (`new_identity`), made by the first migration and kept with the data,
    so that a store that was moved or restored from a backup has the same one. None: the store is empty, or its backend
    keeps none.
    """

    current: str | None
    head: str
    pending: list[str]
    writable: bool
    read_only: bool = False
    identity: str | None = None


@dataclass(frozen=True, slots=True)
class UpsertResult:
    """Result of `upsert_models`: the number of new models and of replaced ones."""

    inserted: int
    updated: int


@dataclass(frozen=True, slots=True)
class RecordResult:
    """Result of `record_calls`. `expired` are the ids of calls before the store's watermark, which are not stored."""

    inserted: int
    duplicates: int
    expired: tuple[UUID, ...] = ()


@dataclass(frozen=True, slots=True)
class CallQuery:
    """Query for a page of calls, newest first.

    `limit` is the most calls of the page. `after` is the cursor of the previous page (None: the first page). `since`
    is inclusive, `until` exclusive; None is unbounded. `ids` None does not restrict.

    :raises ValueError: a filter, limit, time, cursor or id is invalid
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
            raise ValueError(f"too many ids: {len(self.ids)}; pass at most {MAX_PAGE} at once")
        for one in self.ids or ():
            if not isinstance(one, UUID):
                raise ValueError(f"an id must be a UUID, not {type(one).__name__}")
        for at in (self.since, self.until, self.after[0] if self.after else None):
            if at is not None:
                check_utc(at)


@dataclass(frozen=True, slots=True)
class CallPage:
    """Page of calls, newest first, and the cursor of the next page (None: this is the last page)."""

    calls: list[CallRecord]
    next: Cursor | None


@dataclass(frozen=True, slots=True)
class UsageQuery:
    """Query for sums over calls.

    `edges` are sorted UTC times, at least two: a call belongs to interval i if edges[i] <= called_at < edges[i + 1].
    Calls outside all intervals are not counted. `group_by` takes the fields of GROUP_FIELDS, one `tag:NAME`, and
    `period`, which is the interval.

    :raises ValueError: a filter, grouping or edge is invalid
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
            raise ValueError("group_by takes at most one metadata tag")
        if len(self.edges) < 2:
            raise ValueError("edges must be at least two times")
        for edge in self.edges:
            check_utc(edge)
        if any(a >= b for a, b in pairwise(self.edges)):
            raise ValueError("edges must be in ascending order, without repeats")


@dataclass(frozen=True, slots=True)
class UsageRow:
    """Sums over the calls of one group.

    `key` has the fields of group_by except `period`. `period` is the index of the interval (None: not grouped by it).
    `requests` counts first attempts. `by_status` has no zeros. Token sums and `cost` (dollars, exact) do not include
    calls whose value is None: `unpriced_calls` counts calls without a cost whose reason is neither not_billed nor
    synthetic, `unmeasured_calls` those without total_tokens whose reason is not not_billed. The times (ms) and
    histograms (bucket of `storage.histogram` -> calls) cover successful calls with a value.
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


#: UsageRow without `frozen`. A frozen dataclass sets each field by a function call, which takes several times as long.
_Unfrozen: Any = make_dataclass("_Unfrozen", [f.name for f in fields(UsageRow)], slots=True)


def usage_row(*values: Any) -> UsageRow:
    """Return a UsageRow of the values of all its fields, in their order: faster than its constructor, for results of
    thousands of rows."""
    row = _Unfrozen(*values)
    row.__class__ = UsageRow
    return cast("UsageRow", row)


@dataclass(frozen=True, slots=True)
class ModelPrice:
    """Own price of a model, in dollars per million tokens, valid from `effective_from` (UTC) until the next one.

    `model_name` may be `*`, for all models of the provider that have no price of their own. `cache_write_1h` is the
    rate of tokens that a cache keeps for an hour, `cache_write` the rate of all other tokens written to a cache.
    `rates` are those of further units by their names in genai-prices (`web_searches`), in dollars per million tokens or
    characters, per thousand of most other units, per hour of audio. A rate that is missing is unknown: a call that
    needs it has no cost. 0 is a price. A price without any rate ends the previous one: from then on the price of
    genai-prices applies again, if there is one, multiplied by `factor` (None: 1).

    `context` is the price context that a call must have, such as `{"service_tier": "priority"}`; the price with the
    most of it applies.
    """

    provider: str
    model_name: str
    effective_from: datetime
    input: Decimal | None = None
    output: Decimal | None = None
    cache_read: Decimal | None = None
    cache_write: Decimal | None = None
    cache_write_1h: Decimal | None = None
    rates: Mapping[str, Decimal] = field(default_factory=dict, hash=False)
    context: Mapping[str, str] = field(default_factory=dict, hash=False)
    factor: Decimal | None = None

    @property
    def context_text(self) -> str:
        """The context as JSON, the same text for equal contexts."""
        return encode_json(dict(sorted(self.context.items())))

    @property
    def key(self) -> tuple[str, str, str, datetime]:
        """What tells prices apart, in the order in which they are listed: provider, model, context, start."""
        return self.provider, self.model_name, self.context_text, self.effective_from


@dataclass(frozen=True, slots=True)
class CostChange:
    """New cost (dollars, or None with its reason) of the call `id`, decided at `at` (UTC).

    `price_factor` multiplied the list price (None: nothing did).
    """

    id: UUID
    cost: Decimal | None
    cost_source: str | None
    cost_reason: str | None
    price_version: str | None
    at: datetime
    price_factor: Decimal | None = None


@dataclass(frozen=True, slots=True)
class TotalsReport:
    """Result of `check_totals`: how many totals were compared, how many were wrong, how many were repaired.

    `future_watermark`: the watermark, if it was more than a day ahead of the clock of the database. Then calls were
    purged with a wrong clock, and new calls are refused until that day. A repair lowers it.
    """

    checked: int = 0
    wrong: int = 0
    repaired: int = 0
    future_watermark: datetime | None = None


@dataclass(frozen=True, slots=True)
class TotalsRow:
    """Sums over the purged calls of one cell.

    Grain `day`: a UTC day, with the key origin, id_at_origin, provider, model_name, status. Grain `quarter`: a quarter
    of an hour, with the same key without id_at_origin. `start` is the first time of the cell (UTC). `sums` has an
    empty key and no period.
    """

    grain: Grain
    start: datetime
    key: dict[str, str | None]
    sums: UsageRow


@dataclass(frozen=True, slots=True)
class TotalsPage:
    """Page of totals of purged days.

    `next` is the cursor of the next page (None: this is the last page), `watermark` that of the store (UTC midnight;
    None: nothing was ever purged).
    """

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
        raise ValueError("filters take at most one metadata tag")
