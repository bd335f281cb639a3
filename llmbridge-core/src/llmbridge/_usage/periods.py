"""Conversion of calendar periods and time zones to UTC edges, so that backends need neither."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo

#: Calendar periods that usage can be grouped by.
UNITS = ("hour", "day", "week", "month")

#: Most periods in one query.
MAX_PERIODS = 20_000

_DAY = timedelta(days=1)
_HOUR = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Periods:
    """Consecutive periods: interval i is [edges[i], edges[i + 1]) in UTC and has the label labels[i].

    The label of a day is its date, of a week the date of its Monday (ISO 8601), of a month the date of its first day.
    The label of an hour is the aware local time of its start, with its UTC offset: a full hour, or the time within an
    hour at which the zone changed its offset. The range of the query may cut the first and the last period.
    """

    edges: tuple[datetime, ...]
    labels: tuple[Any, ...]


def zone(name: str) -> ZoneInfo:
    """Return the IANA time zone of that name.

    :raises ValueError: there is no such zone
    """
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, TypeError, OSError):
        raise ValueError(f"{name!r} is not a valid IANA time zone, such as UTC or Europe/Madrid") from None


def check_range(since: datetime | None, until: datetime | None) -> None:
    """Raise ValueError unless `since` is before `until`; None is unbounded."""
    if since is not None and until is not None and since >= until:
        raise ValueError(f"since ({since.isoformat()}) must be before until ({until.isoformat()})")


def split(since: datetime, until: datetime, unit: str, tz: ZoneInfo) -> Periods:
    """Return the periods of `unit` in `tz` that overlap [since, until).

    :raises ValueError: an unknown unit, an empty range, or more than MAX_PERIODS periods
    """
    if unit not in UNITS:
        raise ValueError(f"{unit!r} is not a valid period; known: {', '.join(UNITS)}")
    check_range(since, until)
    edges, step = [since], _STEPS[unit]
    labels: list[Any] = []
    while edges[-1] < until:
        if len(labels) == MAX_PERIODS:
            raise ValueError(f"more than {MAX_PERIODS} periods: pass a shorter range or a longer period")
        try:
            label, end = step(edges[-1], tz)
        except OverflowError:
            raise ValueError("a period lies outside the years 1 to 9999") from None
        labels.append(label)
        edges.append(min(end, until))
    return Periods(tuple(edges), tuple(labels))


def midnight(at: datetime) -> datetime:
    """Return the start of the UTC day that contains `at`, which is in UTC."""
    return at.replace(hour=0, minute=0, second=0, microsecond=0)


def start_of_day(day: date, tz: ZoneInfo) -> datetime:
    """Return the first instant (UTC) at which it is `day` in `tz`, or a later day if the zone skipped that day."""
    local = datetime.combine(day, time.min, tz)
    instant = local.astimezone(UTC)
    if instant.astimezone(tz).replace(tzinfo=None) == local.replace(tzinfo=None):
        return instant
    return _first(instant - 2 * _DAY, instant, lambda at: at.astimezone(tz).date() >= day)


def _hour(at: datetime, tz: ZoneInfo) -> tuple[datetime, datetime]:
    offset = at.astimezone(tz).utcoffset() or timedelta(0)
    local = at.astimezone(timezone(offset))
    start = local.replace(minute=0, second=0, microsecond=0)
    into = local - start
    end = at + _HOUR - into
    if into and (at - into).astimezone(tz).utcoffset() != offset:
        # The offset changed within this hour: the part before the change is a period of its own.
        changed = _first(at - into, at, lambda later: later.astimezone(tz).utcoffset() == offset)
        start = changed.astimezone(local.tzinfo)
    if end.astimezone(tz).utcoffset() != offset:
        end = _first(at, end, lambda later: later.astimezone(tz).utcoffset() != offset)
    return start, end


def _day(at: datetime, tz: ZoneInfo) -> tuple[date, datetime]:
    day = _date(at, tz)
    return day, start_of_day(day + _DAY, tz)


def _week(at: datetime, tz: ZoneInfo) -> tuple[date, datetime]:
    day = _date(at, tz)
    monday = day - _DAY * day.weekday()
    return monday, start_of_day(monday + 7 * _DAY, tz)


def _month(at: datetime, tz: ZoneInfo) -> tuple[date, datetime]:
    first = _date(at, tz).replace(day=1)
    return first, start_of_day((first + 31 * _DAY).replace(day=1), tz)


_STEPS: dict[str, Callable[[datetime, ZoneInfo], tuple[Any, datetime]]] = {
    "hour": _hour,
    "day": _day,
    "week": _week,
    "month": _month,
}


def _date(at: datetime, tz: ZoneInfo) -> date:
    """Return the day whose [start, start of the next day) contains `at`.

    If a zone sets its clock back over midnight, the time after that still belongs to the new day.
    """
    day = at.astimezone(tz).date()
    return day + _DAY if start_of_day(day + _DAY, tz) <= at else day


def _first(before: datetime, after: datetime, holds: Callable[[datetime], bool]) -> datetime:
    """Return the first whole second in (before, after] at which `holds` is true, by bisection; it is at `after`."""
    low, high = 0, int((after - before).total_seconds())
    origin = after - timedelta(seconds=high)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(origin + timedelta(seconds=middle)) else (middle, high)
    return origin + timedelta(seconds=high)
