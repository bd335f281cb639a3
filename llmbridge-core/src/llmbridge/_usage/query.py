"""Usage queries: conversion of the user's arguments to a backend's query, and labels for its rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, get_args

from .._shared.spelling import hint
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
)
from . import cursor, periods
from .result import UsageResults, results
from .times import When, to_utc

#: Value of a filter: one text or several; None inside a tuple means "calls without one", None alone does not filter.
Accepted = str | Iterable[str | None] | None

#: Shorter names of fields, which filters and `group_by` accept.
ALIASES = {"user": "id_at_origin", "model": "model_name"}


@dataclass(frozen=True, slots=True)
class CallList:
    """Calls, newest first. `next` is the cursor of the next page (None: this is the last)."""

    calls: list[CallRecord]
    next: str | None


@dataclass(frozen=True, slots=True)
class LabelledQuery:
    """Query for a backend, and how its rows are labelled.

    :param query: the query
    :param names: the names of the fields of `group_by` as the caller wrote them, such as `user` or `day`
    :param labels: the label of each period; empty if the query is not grouped by a period
    """

    query: UsageQuery
    names: tuple[str, ...] = ()
    labels: tuple[Any, ...] = ()

    def label(self, rows: Sequence[UsageRow]) -> UsageResults:
        """Return the result for the backend's rows, with the caller's names and the label of the period in each key."""
        return results(rows, map(self._key, rows), (*self.query.filters, *self.query.group_by))

    def _key(self, row: UsageRow) -> dict[str, Any]:
        if self.names == self.query.group_by:
            return row.key
        fields = {**row.key, "period": self.labels[row.period or 0]} if self.labels else row.key
        return {name: fields[field] for name, field in zip(self.names, self.query.group_by, strict=True)}


def build(
    since: When | None,
    until: When | None,
    *,
    group_by: str | Sequence[str],
    tz: str,
    fields: Mapping[str, Accepted],
    tags: Mapping[str, Accepted] | None,
) -> LabelledQuery:
    """Return the backend's query for the arguments of `LLMDatabase.usage`.

    :raises ValueError: an unknown zone, field or period, a naive time, or an empty range
    """
    zone, now = periods.zone(tz), datetime.now(UTC)
    start = EARLIEST if since is None else to_utc(since, zone, now)
    names = tuple(map(_name, (group_by,) if isinstance(group_by, str) else group_by))
    groups = tuple(_group_field(name) for name in names)
    for name, field in zip(names, groups, strict=True):
        if groups.count(field) > 1:
            raise ValueError(f"group_by has {name} twice")
    units = [name for name in groups if name in periods.UNITS]
    if len(units) > 1:
        raise ValueError(f"group_by takes at most one period, not {', '.join(units)}")
    if units and since is None:
        raise ValueError(f"group_by {units[0]} needs since")
    end = to_utc(until, zone, now) if until is not None else now if units else LATEST
    periods.check_range(start, end)
    chosen = filters(fields, tags)
    if not units:
        return LabelledQuery(UsageQuery(chosen, groups, (start, end)), names)
    split = periods.split(start, end, units[0], zone)
    fields_of_rows = tuple("period" if field in units else field for field in groups)
    return LabelledQuery(UsageQuery(chosen, fields_of_rows, split.edges), names, split.labels)


def build_call_query(
    since: When | None,
    until: When | None,
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
    zone, now = periods.zone(tz), datetime.now(UTC)
    start, end = (None if at is None else to_utc(at, zone, now) for at in (since, until))
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


def _group_field(name: str) -> str:
    """Return the field that a name in `group_by` stands for.

    :raises ValueError: there is none
    """
    field = ALIASES.get(name, name)
    if field in (*GROUP_FIELDS, *periods.UNITS) or field.startswith(TAG_PREFIX):
        return field
    known = (*GROUP_FIELDS, *ALIASES, f"{TAG_PREFIX}NAME", *periods.UNITS)
    raise ValueError(f"cannot group by {name!r}; known: {', '.join(known)}{hint(name, known)}")


def filters(fields: Mapping[str, Accepted], tags: Mapping[str, Accepted] | None = None) -> Filters:
    """Return the filters of a backend's query; a field or tag whose value is None does not filter.

    :raises ValueError: a value is neither text nor None, or not a valid status, or a field is given by two names
    """
    given = {name: values for name, values in fields.items() if values is not None}
    for alias, field in ALIASES.items():
        if {alias, field} <= given.keys():
            raise ValueError(f"give {field} or {alias}, which are the same, not both")
    named = {ALIASES.get(name, name): values for name, values in given.items()}
    named |= {TAG_PREFIX + storable(name): values for name, values in (tags or {}).items() if values is not None}
    return {name: _filter_values(name, values) for name, values in named.items()}


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
