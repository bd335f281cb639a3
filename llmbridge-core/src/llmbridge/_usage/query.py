"""Usage queries: conversion of the user's arguments to a backend's query, and labels for its rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any, get_args

from .._shared.text import storable
from ..schemas import CallRecord, CallStatus
from ..storage.types import (
    EARLIEST,
    GROUP_FIELDS,
    LATEST,
    TAG_PREFIX,
    CallPage,
    CallQuery,
    Filters,
    UsageQuery,
    UsageRow,
    with_key,
)
from . import cursor, periods

#: Value of a filter: one text or several; None inside a tuple means "calls without one", None alone does not filter.
Accepted = str | Iterable[str | None] | None


@dataclass(frozen=True, slots=True)
class CallList:
    """Calls, newest first. `next` is the cursor of the next page (None: this is the last)."""

    calls: list[CallRecord]
    next: str | None


@dataclass(frozen=True, slots=True)
class LabelledQuery:
    """Query for a backend, and the labels of its periods.

    :param query: the query
    :param unit: hour, day, week or month; empty if the query is not grouped by a period
    :param labels: the label of each period
    """

    query: UsageQuery
    unit: str = ""
    labels: tuple[Any, ...] = ()

    def label(self, rows: Iterable[UsageRow]) -> list[UsageRow]:
        """Return the backend's rows, with the label of each row's period in its key."""
        if not self.unit:
            return list(rows)
        return [with_key(row, self._key(row)) for row in rows]

    def _key(self, row: UsageRow) -> dict[str, Any]:
        labelled = {**row.key, "period": self.labels[row.period or 0]}
        return {self.unit if name == "period" else name: labelled[name] for name in self.query.group_by}


def build(
    since: datetime | date | None,
    until: datetime | date | None,
    *,
    group_by: str | Sequence[str],
    tz: str,
    fields: Mapping[str, Accepted],
    tags: Mapping[str, Accepted] | None,
) -> LabelledQuery:
    """Return the backend's query for the arguments of `LLMDatabase.usage`.

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
        raise ValueError(f"group_by takes at most one period, not {', '.join(units)}")
    if units and since is None:
        raise ValueError(f"group_by {units[0]} needs since")
    end = datetime.now(UTC) if until is None and units else LATEST if until is None else periods.to_utc(until, zone)
    periods.check_range(start, end)
    chosen = filters(fields, tags)
    if not units:
        return LabelledQuery(UsageQuery(chosen, groups, (start, end)))
    split = periods.split(start, end, units[0], zone)
    names = tuple("period" if name in units else name for name in groups)
    return LabelledQuery(UsageQuery(chosen, names, split.edges), units[0], split.labels)


def build_call_query(
    since: datetime | date | None,
    until: datetime | date | None,
    *,
    tz: str,
    fields: Mapping[str, Accepted],
    tags: Mapping[str, Accepted] | None = None,
    limit: int,
    after: str | None = None,
) -> CallQuery:
    """Return the query for one page of calls; `after` is the cursor of the page before.

    :raises ValueError: an unknown zone or status, a naive time, an empty range, or an invalid limit or cursor
    """
    zone = periods.zone(tz)
    start, end = (None if at is None else periods.to_utc(at, zone) for at in (since, until))
    periods.check_range(start, end)
    position = None if after is None else cursor.decode(after)
    return CallQuery(filters(fields, tags), start, end, limit, position)


def call_list(page: CallPage) -> CallList:
    """Return a page of calls with the text of its cursor."""
    return CallList(page.calls, None if page.next is None else cursor.encode(page.next))


def _name(field: str) -> str:
    if not isinstance(field, str):
        raise ValueError(f"group_by takes names of fields, not {type(field).__name__}")
    return storable(field)


def filters(fields: Mapping[str, Accepted], tags: Mapping[str, Accepted] | None = None) -> Filters:
    """Return the filters of a backend's query; a field or tag whose value is None does not filter.

    :raises ValueError: a value is neither text nor None, or not a valid status
    """
    named = {**fields, **{TAG_PREFIX + storable(name): accepted for name, accepted in (tags or {}).items()}}
    return {name: _filter_values(name, values) for name, values in named.items() if values is not None}


def _filter_values(name: str, values: Accepted) -> tuple[str | None, ...]:
    accepted = (values,) if isinstance(values, str) or not isinstance(values, Iterable) else tuple(values)
    for value in accepted:
        if value is not None and not isinstance(value, str):
            raise ValueError(f"the filter {name} takes text or None, not {type(value).__name__}")
        if name == "status" and value not in (known := get_args(CallStatus)):
            raise ValueError(f"{value!r} is not a valid status; known: {', '.join(known)}")
    return tuple(_canonical_value(name, value) for value in accepted)


def _canonical_value(name: str, value: str | None) -> str | None:
    """Return a filter's value in canonical form; an empty id_at_origin becomes None."""
    return None if value is None or (name == "id_at_origin" and not value) else storable(value)
