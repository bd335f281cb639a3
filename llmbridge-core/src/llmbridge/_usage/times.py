"""Times as callers give them: datetimes, dates, durations before now, and texts."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

from .periods import start_of_day

#: A time that a caller gives; see `to_utc`.
When = datetime | date | timedelta | str

_AGO = re.compile(r"(\d{1,9})([hdw])")
_HOURS = {"h": 1, "d": 24, "w": 7 * 24}
_DAY = timedelta(days=1)
_DATES: dict[str, Callable[[str], date]] = {
    r"\d{4}-\d\d-\d\d": date.fromisoformat,
    r"\d{4}-\d\d": lambda text: date.fromisoformat(f"{text}-01"),
}
_FORMS = "12h, 30d or 4w (before now), today, yesterday, 2026-01, 2026-01-31, or 2026-01-31T12:00:00+01:00"


def to_utc(at: When, tz: ZoneInfo, now: datetime | None = None) -> datetime:
    """Return a time in UTC.

    A date is its first instant in the zone `tz`, a timedelta as long before `now`. A text is `12h`, `30d` or `4w`
    before `now`; `today`, `yesterday`, a month `2026-01` or a date `2026-01-31`, each its first instant in `tz`; or a
    time in ISO 8601, in `tz` if it has no offset.

    :param now: the current time (None: that of the system's clock)
    :raises ValueError: a datetime without a zone, a text of another form, or a time outside the years 1 to 9999
    """
    now = now or datetime.now(UTC)
    try:
        if isinstance(at, str):
            return _of_text(at.strip(), tz, now)
        if isinstance(at, timedelta):
            return now.astimezone(UTC) - at
        if isinstance(at, datetime):
            if at.utcoffset() is None:
                raise ValueError(f"{at.isoformat()} is naive; give it a time zone")
            return at.astimezone(UTC)
        if isinstance(at, date):
            return start_of_day(at, tz)
    except OverflowError:
        raise ValueError(f"{at} lies outside the years 1 to 9999 in UTC") from None
    raise ValueError(f"a time must be a datetime, a date, a timedelta or a text, not {type(at).__name__}")


def is_before_now(at: When | None) -> bool:
    """Return whether a time is given by how long before now it is."""
    return isinstance(at, timedelta) or (isinstance(at, str) and _AGO.fullmatch(at.strip()) is not None)


def _of_text(text: str, tz: ZoneInfo, now: datetime) -> datetime:
    if ago := _AGO.fullmatch(text):
        return now.astimezone(UTC) - int(ago[1]) * timedelta(hours=_HOURS[ago[2]])
    if text in ("today", "yesterday"):
        today = now.astimezone(tz).date()
        return start_of_day(today if text == "today" else today - _DAY, tz)
    try:
        for form, read in _DATES.items():
            if re.fullmatch(form, text, re.ASCII):
                return start_of_day(read(text), tz)
        at = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a time; write {_FORMS}") from None
    return (at.replace(tzinfo=tz) if at.utcoffset() is None else at).astimezone(UTC)
