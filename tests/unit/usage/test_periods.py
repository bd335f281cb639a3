"""Calendar periods of any zone become UTC edges that cover the range once."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmbridge import LLMDatabase
from llmbridge._usage import periods

ZONES = [
    "UTC",
    "Europe/Madrid",
    "America/New_York",
    "America/Sao_Paulo",
    "America/St_Johns",
    "Asia/Kathmandu",
    "Asia/Beirut",
    "Australia/Lord_Howe",
    "Pacific/Apia",
    "Pacific/Kiritimati",
    "Africa/Cairo",
    "Pacific/Chatham",
]


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(ZONES),
    st.sampled_from(periods.UNITS),
    st.datetimes(datetime(1990, 1, 1), datetime(2037, 1, 1)),
    st.timedeltas(timedelta(microseconds=1), timedelta(days=70)),
)
def test_periods_cover_the_range_once_and_carry_distinct_labels(
    zone: str, unit: str, start: datetime, length: timedelta
) -> None:
    tz, since = ZoneInfo(zone), start.replace(tzinfo=UTC)
    split = periods.split(since, since + length, unit, tz)
    assert split.edges[0] == since
    assert split.edges[-1] == since + length
    assert all(a < b for a, b in pairwise(split.edges))
    assert len(split.labels) == len(split.edges) - 1
    assert all(a < b for a, b in pairwise(split.labels))


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(["UTC", "Europe/Madrid", "Asia/Kathmandu", "Australia/Lord_Howe"]), st.integers(0, 40_000 * 24))
def test_an_hour_label_is_the_local_hour_of_every_instant_in_it(zone: str, hours: int) -> None:
    tz = ZoneInfo(zone)
    since = datetime(1995, 1, 1, tzinfo=UTC) + timedelta(hours=hours / 3)
    split = periods.split(since, since + timedelta(hours=5), "hour", tz)
    for label, (a, b) in zip(split.labels, pairwise(split.edges), strict=True):
        for instant in (a, a + (b - a) / 2, b - timedelta(microseconds=1)):
            local = instant.astimezone(tz)
            assert (local.date(), local.hour, local.utcoffset()) == (label.date(), label.hour, label.utcoffset())


@pytest.mark.parametrize(
    ("zone", "since", "labels"),
    [
        (
            "Pacific/Chatham",
            datetime(2026, 4, 4, 13, 20, tzinfo=UTC),
            ["05T03:00:00+13:45", "05T02:45:00+12:45", "05T03:00:00+12:45", "05T04:00:00+12:45"],
        ),
        (
            "Pacific/Chatham",
            datetime(2026, 9, 26, 13, 20, tzinfo=UTC),
            ["27T02:00:00+12:45", "27T03:45:00+13:45", "27T04:00:00+13:45", "27T05:00:00+13:45"],
        ),
        (
            "Australia/Lord_Howe",
            datetime(2026, 4, 4, 14, 20, tzinfo=UTC),
            ["05T01:00:00+11:00", "05T01:30:00+10:30", "05T02:00:00+10:30"],
        ),
        (
            "America/St_Johns",
            datetime(1995, 4, 2, 3, 30, 30, tzinfo=UTC),
            ["02T00:00:00-03:30", "02T01:01:00-02:30", "02T02:00:00-02:30", "02T03:00:00-02:30"],
        ),
        (
            "Europe/Madrid",
            datetime(2026, 10, 25, 0, 30, tzinfo=UTC),
            ["25T02:00:00+02:00", "25T02:00:00+01:00", "25T03:00:00+01:00"],
        ),
    ],
)
def test_an_hour_in_which_the_clock_is_set_is_two_with_labels_of_their_own(
    zone: str, since: datetime, labels: list[str]
) -> None:
    split = periods.split(since, since + timedelta(hours=2), "hour", ZoneInfo(zone))
    assert [label.isoformat()[8:] for label in split.labels] == labels
    assert all(a < b for a, b in pairwise(split.labels))
    for label, (_, end) in zip(split.labels, pairwise(split.edges), strict=True):
        assert label < end


async def test_hours_in_which_the_clock_is_set_sum_to_the_whole() -> None:
    since = datetime(2026, 4, 4, 13, tzinfo=UTC)
    async with LLMDatabase("memory://") as db:
        for minutes in range(0, 120, 15):
            at = since + timedelta(minutes=minutes)
            await db.record_api_call(origin="o", provider="acme", model_name="m", called_at=at)
        rows = await db.usage(since, since + timedelta(hours=2), group_by="hour", tz="Pacific/Chatham")
    by_hour = {row.key["hour"]: row.calls for row in rows}
    assert list(by_hour.values()) == [1, 3, 1, 3]


def test_a_day_of_daylight_saving_has_23_and_25_hours() -> None:
    tz = ZoneInfo("Europe/Madrid")

    def length(day: date) -> timedelta:
        return periods.start_of_day(day + timedelta(days=1), tz) - periods.start_of_day(day, tz)

    assert length(date(2026, 3, 29)) == timedelta(hours=23)
    assert length(date(2026, 10, 25)) == timedelta(hours=25)
    assert length(date(2026, 10, 26)) == timedelta(hours=24)


def test_a_midnight_that_does_not_exist_is_the_first_instant_of_its_day() -> None:
    tz = ZoneInfo("America/Sao_Paulo")
    start = periods.start_of_day(date(2018, 11, 4), tz)
    assert start.astimezone(tz).isoformat() == "2018-11-04T01:00:00-02:00"


def test_a_day_that_the_zone_skipped_has_no_period() -> None:
    tz = ZoneInfo("Pacific/Apia")
    since = periods.start_of_day(date(2011, 12, 29), tz)
    labels = periods.split(since, since + timedelta(days=2), "day", tz).labels
    assert labels == (date(2011, 12, 29), date(2011, 12, 31))


def test_weeks_begin_on_monday_and_months_on_the_first() -> None:
    tz = ZoneInfo("Asia/Kathmandu")
    since = datetime(2026, 1, 1, tzinfo=UTC)
    weeks = periods.split(since, since + timedelta(days=20), "week", tz).labels
    assert weeks == (date(2025, 12, 29), date(2026, 1, 5), date(2026, 1, 12), date(2026, 1, 19))
    months = periods.split(since, since + timedelta(days=40), "month", tz)
    assert months.labels == (date(2026, 1, 1), date(2026, 2, 1))
    assert months.edges[1] == datetime(2026, 1, 31, 18, 15, tzinfo=UTC)


@pytest.mark.parametrize("name", ["Mars/Olympus", "", "../etc/passwd", "Europe"])
def test_an_unknown_zone_is_named(name: str) -> None:
    with pytest.raises(ValueError, match="time zone"):
        periods.zone(name)


def test_a_range_of_too_many_periods_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="periods"):
        periods.split(datetime(1, 1, 2, tzinfo=UTC), datetime(9999, 1, 1, tzinfo=UTC), "hour", ZoneInfo("UTC"))


def test_a_clock_set_back_over_midnight_stays_in_the_new_day() -> None:
    tz = ZoneInfo("America/St_Johns")
    since = datetime(2010, 11, 6, 12, tzinfo=UTC)
    split = periods.split(since, since + timedelta(days=3), "day", tz)
    assert split.labels == (date(2010, 11, 6), date(2010, 11, 7), date(2010, 11, 8), date(2010, 11, 9))
    assert split.edges[1] == datetime(2010, 11, 7, 2, 30, tzinfo=UTC)


@pytest.mark.parametrize("unit", periods.UNITS)
def test_the_ends_of_time_are_refused_clearly(unit: str) -> None:
    end = datetime.max.replace(tzinfo=UTC)
    with pytest.raises(ValueError, match="years 1 to 9999"):
        periods.split(end - timedelta(minutes=30), end, unit, ZoneInfo("Asia/Tokyo"))
