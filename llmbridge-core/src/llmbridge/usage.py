"""Questions about usage: from what people ask to what a store sums, and back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, get_args

from . import periods
from .money import CONTEXT, mean, total
from .records import storable
from .schemas import CallStatus, DailyAnalytics, UsageStats
from .storage.types import EARLIEST, GROUP_FIELDS, LATEST, TAG_PREFIX, Filters, UsageQuery, UsageRow, with_key

#: What a filter takes: one value or several, where None inside a tuple means "calls without one".
Accepted = str | Iterable[str | None] | None

_RATE = Decimal("0.0001")


@dataclass(frozen=True, slots=True)
class Question:
    """A query for the store, and how to name the periods of its answer."""

    query: UsageQuery
    unit: str = ""
    labels: tuple[Any, ...] = ()

    def label(self, rows: Iterable[UsageRow]) -> list[UsageRow]:
        """The store's answer with each row's period in its key, where the question named it."""
        if not self.unit:
            return list(rows)
        return [with_key(row, self._key(row)) for row in rows]

    def _key(self, row: UsageRow) -> dict[str, Any]:
        labelled = {**row.key, "period": self.labels[row.period or 0]}
        return {self.unit if name == "period" else name: labelled[name] for name in self.query.group_by}


def ask(
    since: datetime | date | None,
    until: datetime | date | None,
    *,
    group_by: str | Sequence[str],
    tz: str,
    fields: Mapping[str, Accepted],
    tags: Mapping[str, Accepted] | None,
) -> Question:
    """The question in a store's terms.

    :raises ValueError: an unknown zone, field or period, a naive time, or an empty range
    """
    zone = periods.zone(tz)
    start = EARLIEST if since is None else periods.to_utc(since, zone)
    groups = tuple(map(_name, (group_by,) if isinstance(group_by, str) else group_by))
    for name in groups:
        if name not in (*GROUP_FIELDS, *periods.UNITS) and not name.startswith(TAG_PREFIX):
            known = ", ".join((*GROUP_FIELDS, f"{TAG_PREFIX}NAME", *periods.UNITS))
            raise ValueError(f"cannot group by {name!r}; known: {known}")
    units = [name for name in groups if name in periods.UNITS]
    if len(units) > 1:
        raise ValueError(f"group_by takes one period, not {', '.join(units)}")
    if units and since is None:
        raise ValueError(f"group_by {units[0]} needs since")
    end = datetime.now(UTC) if until is None and units else LATEST if until is None else periods.to_utc(until, zone)
    periods.check_range(start, end)
    chosen = filters(fields, tags)
    if not units:
        return Question(UsageQuery(chosen, groups, (start, end)))
    split = periods.split(start, end, units[0], zone)
    names = tuple("period" if name in units else name for name in groups)
    return Question(UsageQuery(chosen, names, split.edges), units[0], split.labels)


def _name(field: str) -> str:
    if not isinstance(field, str):
        raise ValueError(f"group_by takes names of fields, not {type(field).__name__}")
    return storable(field)


def filters(fields: Mapping[str, Accepted], tags: Mapping[str, Accepted] | None = None) -> Filters:
    """Filters in a store's terms: what is None does not filter.

    :raises ValueError: what is no text, or a status that no call has
    """
    named = {**fields, **{TAG_PREFIX + storable(name): accepted for name, accepted in (tags or {}).items()}}
    return {name: _accepted(name, values) for name, values in named.items() if values is not None}


def _accepted(name: str, values: Accepted) -> tuple[str | None, ...]:
    accepted = (values,) if isinstance(values, str) or not isinstance(values, Iterable) else tuple(values)
    for value in accepted:
        if value is not None and not isinstance(value, str):
            raise ValueError(f"the filter {name} takes text or None, not {type(value).__name__}")
        if name == "status" and value not in (known := get_args(CallStatus)):
            raise ValueError(f"there is no status {value!r}; known: {', '.join(known)}")
    return tuple(_stored(name, value) for value in accepted)


def _stored(name: str, value: str | None) -> str | None:
    """A filter's value as records have it: an empty id_at_origin is none."""
    return None if value is None or (name == "id_at_origin" and not value) else storable(value)


def days_ago(days: int) -> datetime:
    """The time (UTC) that many times 24 hours ago, but not before the beginning of time."""
    now = datetime.now(UTC)
    return now - timedelta(days=days) if days < (now - EARLIEST).days else EARLIEST


def stats(rows: Sequence[UsageRow], since: datetime) -> UsageStats | None:
    """Statistics over rows grouped by provider and model_name; None when there are none."""
    if not rows:
        return None
    calls = sum(row.calls for row in rows)
    unpriced = sum(row.unpriced_calls for row in rows)
    cost = total(row.cost for row in rows)
    timed = sum(row.response_time_ms_count for row in rows)
    successes = sum(row.by_status.get("success", 0) for row in rows)
    busiest = min(rows, key=lambda row: (-row.calls, row.key["provider"], row.key["model_name"]))
    return UsageStats(
        since=since,
        total_calls=calls,
        total_requests=sum(row.requests for row in rows),
        total_tokens=sum(row.total_tokens for row in rows),
        total_cost=cost,
        unpriced_calls=unpriced,
        unmeasured_calls=sum(row.unmeasured_calls for row in rows),
        avg_cost_per_call=mean(cost, calls - unpriced) if calls > unpriced else None,
        most_used_model=busiest.key["model_name"],
        success_rate=_rate(successes, calls),
        avg_response_time_ms=round(sum(row.response_time_ms_sum for row in rows) / timed) if timed else None,
    )


#: The groups of `daily`.
BY_DAY = ("day", "origin", "id_at_origin", "provider", "model_name")


def daily(row: UsageRow) -> DailyAnalytics:
    """The analytics of a row grouped by BY_DAY."""
    mean, statuses = row.response_time_mean_ms, row.by_status
    return DailyAnalytics(
        date=row.key["day"],
        **{name: row.key[name] for name in BY_DAY[1:]},
        total_calls=row.calls,
        total_tokens=row.total_tokens,
        total_prompt_tokens=row.prompt_tokens,
        total_completion_tokens=row.completion_tokens,
        total_cost=row.cost,
        unpriced_calls=row.unpriced_calls,
        unmeasured_calls=row.unmeasured_calls,
        avg_response_time_ms=None if mean is None else round(mean),
        success_rate=_rate(statuses.get("success", 0), row.calls),
        error_count=statuses.get("error", 0),
        timeout_count=statuses.get("timeout", 0),
        rate_limit_count=statuses.get("rate_limited", 0),
        cancelled_count=statuses.get("cancelled", 0),
    )


def _rate(part: int, whole: int) -> Decimal:
    return CONTEXT.divide(part, whole).quantize(_RATE, context=CONTEXT)
