"""`llmbridge usage` prints exact sums by any grouping, and says which calls are unpriced or unmeasured."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from datetime import UTC, datetime, time, timedelta
from typing import Any

import pytest

from llmbridge import LLMDatabase

ALL = ("usage", "--since", "2026-03-01")
Command = Callable[..., Any]


def cells(out: str) -> list[list[str]]:
    return [line.replace("≥ ", "≥").split() for line in out.splitlines()]


def test_the_default_groups_by_provider_and_model(cli: Command, db_url: str) -> None:
    header, *rows = cells(cli(*ALL).out)
    assert " ".join(header) == "provider model calls requests tokens cost $ unpriced unmeasured success mean ms"
    assert rows == [
        ["openai", "gpt-4o", "5", "5", "3,702", "≥1234567.500004500001", "1", "1", "60.0%", "40"],
        ["openai", "mystery", "1", "1", "1,234", "unknown", "1", "0", "100.0%", "40"],
        ["total", "6", "6", "4,936", "≥1234567.500004500001", "2", "1", "66.7%", "40"],
    ]


def test_the_default_is_the_last_30_days(cli: Command, db_url: str) -> None:
    assert cells(cli("usage").out)[1:] == [["total", "0", "0", "0", "0", "0", "0", "-", "-"]]
    assert cli("usage", "--since", "all", "--json").document["total"]["calls"] == 6


@pytest.mark.parametrize(
    ("by", "keys"),
    [
        (["user"], [{"id_at_origin": None}, {"id_at_origin": "ann"}, {"id_at_origin": "bob"}]),
        (["tag:team"], [{"tag:team": None}, {"tag:team": "ads"}, {"tag:team": "search"}]),
        (["provider,status"], [{"provider": "openai", "status": s} for s in ("rate_limited", "success", "timeout")]),
        (["origin", "day"], [{"origin": "back-office", "day": "2026-03-02"}, {"origin": "shop", "day": "2026-03-01"}]),
        (["week"], [{"week": "2026-02-23"}, {"week": "2026-03-02"}]),
        (["response_model"], [{"response_model": None}, {"response_model": "gpt-4o-2024-08-06"}]),
        (["month"], [{"month": "2026-03-01"}]),
        (["none"], [{}]),
    ],
)
def test_calls_are_grouped_by_what_is_asked(cli: Command, db_url: str, by: list[str], keys: list[Any]) -> None:
    options = [word for name in by for word in ("--by", name)]
    rows = cli(*ALL, "--json", *options).document["rows"]
    assert [row["key"] for row in rows if row["key"] != {"origin": "shop", "day": "2026-03-02"}] == keys


def test_none_in_a_key_is_shown_as_a_dash(cli: Command, db_url: str) -> None:
    assert [row[0] for row in cells(cli(*ALL, "--by", "user").out)] == ["user", "-", "ann", "bob", "total"]


def test_days_are_those_of_the_zone_asked_for(cli: Command, db_url: str) -> None:
    found = cli(*ALL, "--by", "day", "--tz", "Europe/Madrid", "--json").document
    assert [(row["key"]["day"], row["calls"]) for row in found["rows"]] == [("2026-03-02", 6)]
    assert found["since"] == "2026-02-28T23:00:00Z"
    hours = cli(*ALL, "--by", "hour", "--tz", "Asia/Kathmandu", "--json").document["rows"]
    assert [row["key"]["hour"] for row in hours] == ["2026-03-02T05:00:00+05:45", "2026-03-02T06:00:00+05:45"]


@pytest.mark.parametrize(
    ("options", "calls"),
    [
        (["--user", "ann"], 2),
        (["--user", "ann", "--user", "bob"], 4),
        (["--user", ""], 2),
        (["--origin", "back-office"], 1),
        (["--provider", "openai"], 6),
        (["--model", "mystery"], 1),
        (["--model", "openai:mystery"], 1),
        (["--model", "openai:mystery", "--model", "openai:gpt-4o"], 6),
        (["--model", "openai:mystery", "--provider", "openai"], 1),
        (["--model", "openai:mystery", "--model", "gpt-4o", "--provider", "openai"], 6),
        (["--model", "openai:mystery", "--provider", "ollama"], 0),
        (["--model", "openai:nothing"], 0),
        (["--status", "timeout", "--status", "rate_limited"], 2),
        (["--response-model", "gpt-4o-2024-08-06"], 1),
        (["--response-model", "", "--response-model", "gpt-4o-2024-08-06"], 6),
        (["--tag", "team=search"], 1),
        (["--tag", "team=search", "--tag", "team=ads"], 2),
        (["--tag", "team="], 4),
        (["--until", "2026-03-02"], 3),
        (["--since", "2026-03-01T23:40:00Z"], 5),
        (["--since", "2026-03-02T00:40:00", "--tz", "Europe/Madrid"], 5),
        (["--since", "520w"], 6),
    ],
)
def test_filters_choose_the_calls(cli: Command, db_url: str, options: list[str], calls: int) -> None:
    assert cli(*ALL, *options, "--json").document["total"]["calls"] == calls


@pytest.fixture
def purged(db_url: str) -> datetime:
    """A call in each quarter of three days around 30 days ago, all purged; the first of the days."""
    first = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=31)
    known = {"origin": "shop", "id_at_origin": "ann", "provider": "openai", "model_name": "gpt-4o"}

    async def fill() -> None:
        async with LLMDatabase(db_url) as db:
            times = [first + timedelta(minutes=15 * number) for number in range(3 * 96)]
            await asyncio.gather(*(db.record_api_call(**known, called_at=at) for at in times))
            await db.purge(first + timedelta(days=4), force=True)

    asyncio.run(fill())
    return first


@pytest.mark.parametrize("by", ["model", "user", "day", "day,user"])
@pytest.mark.parametrize("since", [(), ("--since", "30d"), ("--since", "720h")])
def test_a_start_counted_back_from_now_moves_to_midnight_where_there_are_only_totals(
    cli: Command, purged: datetime, by: str, since: tuple[str, ...]
) -> None:
    found = cli("usage", "--by", by, "--json", *since)
    assert found.code == 0
    start = datetime.fromisoformat(found.document["since"])
    assert start.time() == time(0)
    assert found.document["total"]["calls"] == 96 * (3 - (start - purged).days) > 0
    assert f"since {start:%Y-%m-%d} 00:00 UTC" in found.err


def test_a_start_that_is_asked_for_stays_and_the_error_says_from_when_on_there_is_an_answer(
    cli: Command, purged: datetime
) -> None:
    asked, day = purged + timedelta(minutes=4), purged.date() + timedelta(days=1)
    refused = cli("usage", "--since", asked.isoformat())
    assert refused.code == 2
    assert f"ask from {purged.date()}T00:15:00+00:00 on" in refused.err
    assert cli("usage", "--since", f"{purged.date()}T00:15:00", "--json").document["total"]["calls"] == 3 * 96 - 1
    refused = cli("usage", "--since", asked.isoformat(), "--by", "user")
    assert f"ask from {day}T00:00:00+00:00 on" in refused.err
    assert cli("usage", "--since", str(day), "--by", "user", "--json").document["total"]["calls"] == 2 * 96


def test_days_of_users_in_another_zone_are_not_in_the_totals(cli: Command, purged: datetime) -> None:
    refused = cli("usage", "--by", "user,day", "--tz", "Europe/Madrid")
    assert refused.code == 2
    assert f"ask from {purged.date() + timedelta(days=3)}T00:00:00+00:00 on" in refused.err


def test_json_has_exact_money_as_text_and_percentiles(cli: Command, db_url: str) -> None:
    total = cli(*ALL, "--by", "user", "--json").document["total"]
    assert total["cost"] == "1234567.500004500001"
    assert total["by_status"] == {"success": 4, "timeout": 1, "rate_limited": 1}
    assert (total["unpriced_calls"], total["unmeasured_calls"], round(total["success_rate"], 6)) == (2, 1, 0.666667)
    assert [total[f"response_time_{name}_ms"] for name in ("mean", "p50", "p95", "p99")] == [40, 40, 40, 40]
    assert total["first_token_p50_ms"] is None


def test_a_sum_without_unpriced_calls_is_not_marked(cli: Command, db_url: str) -> None:
    assert cells(cli(*ALL, "--user", "ann").out)[-1][4] == "1234567.000004500001"


def test_a_name_with_a_colon_is_a_name_unless_a_provider_stands_before_it(cli: Command, db_url: str) -> None:
    async def fill() -> None:
        async with LLMDatabase(db_url) as db:
            for provider, name in (("ollama", "llama3.2:latest"), ("acme", "one"), ("acme", "llama3.2:latest")):
                await db.record_api_call(origin="shop", provider=provider, model_name=name)

    asyncio.run(fill())

    def calls(*options: str) -> int:
        found: int = cli(*ALL, *options, "--json").document["total"]["calls"]
        assert len(cli("calls", *options, "--json").document["calls"]) == found
        return found

    assert calls("--model", "llama3.2:latest") == 2
    assert calls("--model", "ollama:llama3.2:latest") == 1
    assert calls("--model", "llama3.2:latest", "--provider", "ollama") == 1
    assert calls("--model", "acme:one") == 1
    for several in (["ollama:llama3.2:latest", "acme:one"], ["acme:one", "gpt-4o"]):
        result = cli(*ALL, *(word for name in several for word in ("--model", name)))
        assert result.code == 2
        assert "only of one provider" in result.err


def test_a_provider_that_nobody_has_is_told(cli: Command, db_url: str) -> None:
    for command in (ALL, ["calls"], ["models", "reprice", "--from", "all"]):
        told = cli(*command, "--provider", "OpenAI")
        assert told.code == 0
        assert "no plugin, model or call has the provider 'OpenAI' yet; did you mean openai?" in told.err
    assert "has the provider" not in cli(*ALL, "--provider", "openai", "--provider", "echo", "--provider", "").err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--since", "all", "--by", "month"], "--by month needs a --since other than all"),
        (["--by", "day,month"], "--by takes one period, not day, month"),
        (["--by", "user,day", "--by", "id_at_origin"], "--by names user twice"),
        (["--by", "tag:team,tag:room"], "--by takes one tag, not tag:team, tag:room"),
        (["--tag", "a=1", "--tag", "a=2", "--tag", "b=1"], "--tag takes several values only of one name, not a, b"),
    ],
)
def test_a_wrong_question_is_told_in_the_words_of_the_options(cli: Command, options: list[str], said: str) -> None:
    assert cli("usage", *options).err == f"error: {said}\n"


def test_times_are_shown_when_asked_for(cli: Command, db_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fill() -> None:
        async with LLMDatabase(db_url) as db:
            for ms in range(1, 41):
                times = {"response_time_ms": ms, "time_to_first_token_ms": 50 - ms}
                await db.record_api_call(origin="timed", provider="anthropic", model_name="claude", **times)

    asyncio.run(fill())
    asked = ("usage", "--origin", "timed", "--times")
    header, row, _ = cells(cli(*asked).out)
    assert " ".join(header) == (
        "provider model calls success mean ms p50 p95 p99 first mean first p50 first p95 first p99"
    )
    assert row == ["anthropic", "claude", "40", "100.0%", "20", "20", "38", "40", "30", "29", "47", "49"]
    document = cli(*asked, "--json").document["total"]
    assert (document["response_time_mean_ms"], document["first_token_p50_ms"]) == (20, 29)

    for name, value in (("FORCE_COLOR", "1"), ("TERM", "xterm"), ("COLUMNS", "80")):
        monkeypatch.setenv(name, value)
    lines = re.sub(r"\x1b\[[\d;]*m", "", cli(*asked).out).splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[2].split() == row
