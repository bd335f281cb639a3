"""A time is a datetime, a date, a duration before now or a text; each form means the same in code and in the shell."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from llmbridge import LLMDatabase
from llmbridge._usage.times import is_before_now, to_utc

TOKYO = ZoneInfo("Asia/Tokyo")  # nine hours ahead of UTC
NOW = datetime(2026, 3, 1, 16, 30, tzinfo=UTC)  # in Tokyo the 2nd of March, 01:30


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        (NOW.astimezone(TOKYO), NOW),
        (date(2026, 2, 28), datetime(2026, 2, 27, 15, tzinfo=UTC)),
        (timedelta(days=7), datetime(2026, 2, 22, 16, 30, tzinfo=UTC)),
        ("12h", datetime(2026, 3, 1, 4, 30, tzinfo=UTC)),
        ("7d", datetime(2026, 2, 22, 16, 30, tzinfo=UTC)),
        (" 2w ", datetime(2026, 2, 15, 16, 30, tzinfo=UTC)),
        ("today", datetime(2026, 3, 1, 15, tzinfo=UTC)),
        ("yesterday", datetime(2026, 2, 28, 15, tzinfo=UTC)),
        ("2026-02", datetime(2026, 1, 31, 15, tzinfo=UTC)),
        ("2026-02-28", datetime(2026, 2, 27, 15, tzinfo=UTC)),
        ("2026-02-28T12:00", datetime(2026, 2, 28, 3, tzinfo=UTC)),
        ("2026-02-28T12:00:00+01:00", datetime(2026, 2, 28, 11, tzinfo=UTC)),
    ],
)
def test_every_form_of_a_time(given: Any, meant: datetime) -> None:
    found = to_utc(given, TOKYO, NOW)
    assert (found, found.utcoffset()) == (meant, timedelta(0))


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (datetime(2026, 1, 1), "naive"),
        ("soon", "'soon' is not a time; write 12h"),
        ("", "'' is not a time"),
        ("-7d", "not a time"),
        ("2026-13", "not a time"),
        ("2026-02-30", "not a time"),
        ("999999999w", "years 1 to 9999"),
        (date(1, 1, 1), "years 1 to 9999"),
        (timedelta.max, "years 1 to 9999"),
        (7, "a time must be a datetime, a date, a timedelta or a text, not int"),
        (None, "not NoneType"),
    ],
)
def test_what_is_no_time_is_refused(given: Any, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        to_utc(given, TOKYO, NOW)


def test_a_time_before_now_is_told_from_the_others() -> None:
    assert [is_before_now(at) for at in ("7d", timedelta(1), "today", "2026-01", NOW, None)] == [
        True,
        True,
        *[False] * 4,
    ]


async def test_questions_take_every_form() -> None:
    async with LLMDatabase("memory://") as db:
        for ago in (1, 40):
            await db.record_api_call(
                origin="o", provider="p", model_name="m", called_at=datetime.now(UTC) - timedelta(days=ago)
            )
        for since in ("7d", timedelta(days=7), (datetime.now(UTC) - timedelta(days=7)).date()):
            [row] = await db.usage(since)
            assert row.calls == 1
            assert len((await db.find_calls(since)).calls) == 1
            assert (await db.reprice(since, dry_run=True)).examined == 1
        assert await db.purge("30d", dry_run=True) == 1


async def test_user_and_model_are_shorter_names_of_fields() -> None:
    async with LLMDatabase("memory://") as db:
        await db.record_api_call(origin="o", user="alice", provider="p", model="m")
        await db.record_api_call(origin="o", id_at_origin="bob", provider="p", model_name="m")
        rows = await db.usage("7d", group_by=("user", "day", "model"), user=("alice", "bob"), model="m")
        assert [(row.key["user"], row.key["model"], row.calls) for row in rows] == [("alice", "m", 1), ("bob", "m", 1)]
        assert [list(row.key) for row in rows] == [["user", "day", "model"]] * 2
        assert [row.key for row in await db.usage(group_by="user")] == [{"user": "alice"}, {"user": "bob"}]
        [call] = (await db.find_calls(user="alice")).calls
        assert (call.id_at_origin, call.model_name) == ("alice", "m")
        assert (await db.reprice(user="alice", model="m", dry_run=True)).examined == 1
        with pytest.raises(ValueError, match="give id_at_origin or user, which are the same, not both"):
            await db.usage(user="alice", id_at_origin="alice")
        with pytest.raises(ValueError, match="group_by has user twice"):
            await db.usage(group_by=("user", "id_at_origin"))
        with pytest.raises(TypeError, match="give model_name or model, which are the same, not both"):
            await db.record_api_call(origin="o", provider="p", model="m", model_name="m")


async def test_a_misspelt_name_gets_the_one_that_is_meant() -> None:
    async with LLMDatabase("memory://") as db:
        with pytest.raises(ValueError, match=r"cannot group by 'modle'; known: .*; did you mean model\?"):
            await db.usage(group_by="modle")
        with pytest.raises(TypeError, match=r"no parameter 'promt_tokens'; did you mean prompt_tokens\?"):
            await db.record_api_call(origin="o", provider="p", model="m", promt_tokens=1)
