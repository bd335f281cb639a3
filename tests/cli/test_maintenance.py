"""`llmbridge purge`, `forget`, `doctor` and `models reprice`."""

from __future__ import annotations

import asyncio
import io
import itertools
import re
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from llmbridge import LLMDatabase
from llmbridge._pricing.genai_prices import editions
from llmbridge.plugins import create_backend

Command = Callable[..., Any]

TODAY = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
_stores = itertools.count()


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, own_directory: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Calls of two users at two origins, 100, 99, 50 and 0 days old, in a store that the environment names."""
    kinds = {
        "memory": f"memory://maintenance-{next(_stores)}",
        "sqlite": f"sqlite:///{own_directory / 'maintenance.db'}",
    }
    url = kinds[request.param]

    async def fill() -> None:
        async with LLMDatabase(url) as db:
            for age, user, origin in (
                (100, "ann", "shop"),
                (99, "bob", "shop"),
                (50, "ann", "back"),
                (0, "ann", "shop"),
            ):
                call = {"origin": origin, "id_at_origin": user, "provider": "acme", "model_name": "large-1"}
                tokens = {"prompt_tokens": 10**6, "completion_tokens": 0}
                await db.record_api_call(**call, **tokens, called_at=TODAY - timedelta(days=age))

    asyncio.run(fill())
    monkeypatch.setenv("LLMBRIDGE_DATABASE_URL", url)
    return url


def total(cli: Command, *db: str) -> Any:
    named = ("--db", *db) if db else ()
    return cli("usage", "--since", "all", "--by", "none", "--json", *named).document["total"]


def calls(cli: Command) -> list[Any]:
    return list(cli("calls", "--json").document["calls"])


def test_a_purge_deletes_old_calls_day_by_day_and_keeps_the_sums(cli: Command, store: str) -> None:
    before = total(cli)
    dry = cli("purge", "--older-than", "90d", "--dry-run")
    day = (TODAY - timedelta(days=90)).date()
    assert dry.out == f"2 calls before {day} would be deleted; the sums over them stay\n"
    assert len(calls(cli)) == 4
    wet = cli("purge", "--older-than", "90d")
    assert wet.out == f"2 calls before {day} deleted; the sums over them stay\n"
    assert [line for line in wet.err.splitlines() if "deleted" in line] == [
        f"{(TODAY - timedelta(days=age)).date()}: 1 call deleted" for age in (100, 99)
    ]
    assert len(calls(cli)) == 2
    assert total(cli) == before
    assert cli("purge", "--older-than", day.isoformat(), "--json").document == {
        "before": day.isoformat(),
        "calls": 0,
        "dry_run": False,
        "freed_bytes": None,
    }


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "--older-than 90d"),
        (["--older-than", "all"], "--older-than 0d --force"),
        (["--older-than", "6d"], "fewer than 7 need force=True, in a shell --force"),
        (["--older-than", "2999-01-01", "--force"], "2999-01-01 lies in the future"),
        (["--older-than", "ages"], "is not a time"),
    ],
)
def test_a_purge_that_goes_too_far_is_a_mistake(cli: Command, store: str, options: list[str], said: str) -> None:
    result = cli("purge", *options)
    assert result.code == 2
    assert said in result.err
    assert len(calls(cli)) == 4


def test_force_purges_what_is_young(cli: Command, store: str) -> None:
    assert cli("purge", "--older-than", "0d", "--force", "--json").document["calls"] == 3


def test_a_user_is_forgotten_everywhere_or_at_one_origin(cli: Command, store: str) -> None:
    before = total(cli)
    dry = cli("forget", "ann", "--dry-run")
    assert [line.split() for line in dry.out.splitlines()] == [["origin", "calls"], ["back", "1"], ["shop", "2"]]
    assert cli("forget", "ann", "--origin", "back", "--json").document == {
        "user": "ann",
        "dry_run": False,
        "origins": [{"origin": "back", "calls": 1, "rows": 1}],
    }
    wet = cli("forget", "ann")
    assert [line.split() for line in wet.out.splitlines()] == [
        ["origin", "calls", "rows", "changed"],
        ["shop", "2", "2"],
    ]
    assert cli("forget", "ann").out == "no call has the user 'ann'\n"
    assert cli("forget", "bob", "--origin", "back").out == "no call of 'back' has the user 'bob'\n"
    assert {call["id_at_origin"] for call in calls(cli)} == {None, "bob"}
    assert total(cli) == before


def test_nobody_cannot_be_forgotten(cli: Command, store: str) -> None:
    assert cli("forget", "").code == 2


def test_reprice_shows_what_changes_and_changes_it(cli: Command, store: str) -> None:
    cli("models", "set-price", "acme:large-1", "--input", "0.1", "--output", "1", "--from", "2000-01-01")
    dry = cli("models", "reprice", "--from", "60d", "--dry-run")
    header, row, sums = dry.out.splitlines()
    assert header.split()[:3] == ["model", "calls", "changed"]
    assert row.split() == ["acme:large-1", "2", "2", "0", "0.2", "2", "0"]
    assert sums.split() == ["total", "2", "2", "0", "0.2", "2", "0"]
    assert "nothing was changed" in dry.err
    assert total(cli)["unpriced_calls"] == 4

    document = cli("models", "reprice", "--from", "60d", "--json").document
    assert (document["changed"], document["cost_after"], document["dry_run"]) == (2, "0.2", False)
    assert document["models"][0]["model_name"] == "large-1"
    assert (total(cli)["cost"], total(cli)["unpriced_calls"]) == ("0.2", 2)
    assert (
        cli("models", "reprice", "--from", "all", "--to", "60d", "--model", "acme:large-1", "--json").document[
            "changed"
        ]
        == 2
    )
    assert [call["estimated_cost"] for call in calls(cli)] == ["0.1"] * 4
    assert {call["previous_cost_reason"] for call in calls(cli)} == {"unknown_model"}


def test_reprice_takes_the_list_of_another_provider(cli: Command, store: str) -> None:
    async def record() -> None:
        async with LLMDatabase(store) as db:
            call = {"origin": "o", "provider": "mine", "model_name": "gpt-4o-mini"}
            await db.record_api_call(**call, prompt_tokens=10**6, completion_tokens=0)

    asyncio.run(record())
    asked = ("models", "reprice", "--from", "1d", "--provider", "mine", "--json")
    assert cli(*asked).document["without_price"] == 1
    assert cli(*asked, "--priced-as", "mine=openai").document["cost_after"] == "0.15"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "--from is missing"),
        (["--from", "soon"], "is not a time"),
        (["--from", "2026-03-02", "--to", "2026-03-02"], "must be before until"),
        (["--from", "all", "--priced-as", "mine"], "PROVIDER=LIST"),
    ],
)
def test_a_reprice_that_cannot_be_is_a_mistake(cli: Command, store: str, options: list[str], said: str) -> None:
    result = cli("models", "reprice", *options)
    assert result.code == 2
    assert said in result.err


def test_doctor_finds_nothing_wrong_with_a_healthy_database(cli: Command, store: str, db_url: str) -> None:
    result = cli("doctor", "--db", store)
    assert result.code == 0
    found = dict(line.split(":", 1) for line in result.out.splitlines())
    assert found["health"].strip() == "healthy"
    assert found["totals"].strip() == "0 checked, 0 wrong, 0 repaired"
    assert found["schema"].strip() == "001_baseline of 001_baseline"
    assert found["prices"].strip().startswith("genai-prices ")
    assert found["problems"].strip() == "none"
    document = cli("doctor", "--db", db_url, "--json").document
    assert (document["problems"], document["schema"]["pending"], document["prices"]["error"]) == ([], [], None)


def test_doctor_repairs_wrong_totals_when_asked(cli: Command, own_directory: Path) -> None:
    url = f"sqlite:///{own_directory / 'wrong.db'}"

    async def fill() -> None:
        async with LLMDatabase(url) as db:
            for minute in range(600):
                at = TODAY - timedelta(days=20) + timedelta(minutes=minute)
                await db.record_api_call(origin="o", provider="p", model_name="m", estimated_cost="0.1", called_at=at)
            await db.backend.fold_totals()

    asyncio.run(fill())
    with closing(sqlite3.connect(own_directory / "wrong.db")) as connection, connection:
        assert connection.execute("DELETE FROM llmbridge_usage_by_time").rowcount > 0
    assert total(cli, url)["calls"] < 600
    wrong = cli("doctor", "--db", url)
    assert wrong.code == 1
    assert ": run llmbridge doctor --repair" in wrong.out
    assert "problems: totals" in wrong.out
    assert total(cli, url)["calls"] < 600
    repaired = cli("doctor", "--repair", "--json", "--db", url)
    assert (repaired.code, repaired.document["problems"]) == (0, [])
    assert repaired.document["totals"]["repaired"] == repaired.document["totals"]["wrong"] > 0
    assert (total(cli, url)["calls"], total(cli, url)["cost"]) == (600, "60")
    assert cli("doctor", "--db", url).code == 0


def test_doctor_sees_a_store_that_lacks_migrations_and_migrates_nothing(cli: Command, own_directory: Path) -> None:
    with closing(sqlite3.connect("empty.db")) as connection:
        connection.execute("VACUUM")
    result = cli("doctor", "--db", "empty.db")
    assert result.code == 1
    assert "run llmbridge storage migrate" in result.out
    assert "problems: schema" in result.out
    assert cli("storage", "status", "--db", "empty.db", "--json").document["current"] is None


def test_doctor_sees_a_purge_by_a_clock_that_was_years_ahead_and_repairs_it(cli: Command, store: str) -> None:
    async def purge() -> None:
        async with create_backend(store) as backend:
            await backend.purge_calls(TODAY + timedelta(days=3_000))

    asyncio.run(purge())
    until = (TODAY + timedelta(days=3_000)).date()
    found = cli("doctor")
    assert (found.code, "problems: purged" in found.out) == (1, True)
    assert f"up to {until}, by a clock that was wrong: calls until then are refused: run llmbridge doctor" in found.out
    repaired = cli("doctor", "--repair")
    assert (repaired.code, f"up to {until}" in repaired.out, "refused: corrected" in repaired.out) == (0, True, True)
    assert "purged:" not in cli("doctor").out


def test_doctor_sees_broken_prices(cli: Command, store: str) -> None:
    editions.path().parent.mkdir(parents=True)
    editions.path().write_text("{}")
    editions.path().chmod(0o600)
    result = cli("doctor")
    assert result.code == 1
    assert "not valid data of genai-prices" in result.out
    assert "problems: prices" in result.out


def test_doctor_tells_what_waits_in_the_spool(cli: Command, db_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    document = cli("doctor", "--json").document
    assert (document["health"]["spool"]["waiting"], document["problems"]) == (0, [])
    assert "spool:    0 calls waiting, in " in cli("doctor").out
    Path("file").write_text("")
    monkeypatch.setenv("LLMBRIDGE_SPOOL_DIR", "file/spool")
    result = cli("doctor")
    assert result.code == 1
    assert "problems: spool" in result.out


def test_doctor_examines_what_can_be_examined_of_a_store_that_is_none(cli: Command, own_directory: Path) -> None:
    Path("torn.db").write_text("no database at all" * 100)
    result = cli("doctor", "--db", "torn.db")
    assert result.code == 1
    assert "health:   unhealthy: StorageRefusedError" in result.out
    assert "prices:   genai-prices" in result.out
    assert "problems: health" in result.out


def test_money_stays_exact(cli: Command, store: str) -> None:
    cli("models", "set-price", "acme:large-1", "--input", "0.000000000001", "--output", "0", "--from", "2000-01-01")
    cli("models", "reprice", "--from", "all")
    assert Decimal(total(cli)["cost"]) == 4 * Decimal("1e-12")


@pytest.mark.parametrize(
    ("command", "question", "left"),
    [
        (["purge", "--older-than", "90d"], r"delete 2 calls before \S+ and keep their sums\?", 2),
        (["forget", "ann"], r"erase the user 'ann' from 3 calls of back, shop\?", 4),
    ],
    ids=["purge", "forget"],
)
def test_what_destroys_asks_at_a_terminal(
    cli: Command, store: str, monkeypatch: pytest.MonkeyPatch, command: list[str], question: str, left: int
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    def answer(text: str, *more: str) -> Any:
        with monkeypatch.context() as patched:
            patched.setattr(sys, "stdin", Terminal(text))
            patched.setattr("llmbridge.cli.confirmation._is_a_terminal", lambda: True)
            return cli(*command, *more)

    before = calls(cli)
    for text in ("", "\n", "no\n"):
        refused = answer(text)
        assert refused.code == 1
        assert re.search(question, refused.err)
        assert refused.err.endswith("nothing was changed\n")
        assert calls(cli) == before
    assert "[y/N]" not in answer("", "--dry-run").err
    done = answer("y\n")
    assert (done.code, "[y/N]" in done.err) == (0, True)
    assert len(calls(cli)) == left
    assert "[y/N]" not in answer("").err  # there is nothing left to do


def test_yes_does_not_ask(cli: Command, store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmbridge.cli.confirmation._is_a_terminal", lambda: True)
    assert cli("purge", "--older-than", "90d", "--yes").code == 0
    assert cli("forget", "ann", "-y").code == 0
    assert "ann" not in {call["id_at_origin"] for call in calls(cli)}


def test_a_purge_gives_the_space_back_if_asked(cli: Command, db_url: str, tmp_path: Path) -> None:
    async def fill() -> None:
        async with LLMDatabase(db_url) as db:
            long_ago = TODAY - timedelta(days=100)
            await db.record_api_calls(
                {"origin": "o", "provider": "p", "model": "m", "called_at": long_ago, "metadata": {"text": "x" * 999}}
                for _ in range(2_000)
            )

    asyncio.run(fill())
    refused = cli("purge", "--older-than", "90d")
    assert (refused.code, "the newest call is of" in refused.err) == (2, True)
    kept = cli("purge", "--older-than", "90d", "--force", "--json")
    assert (kept.document["calls"], kept.document["freed_bytes"]) == (2_006, None)
    compacted = cli("purge", "--older-than", "90d", "--compact", "--json")
    assert (compacted.document["calls"], compacted.document["freed_bytes"] > 2_000_000) == (0, True)
    assert re.search(r"bytes given back in \d+\.\d s", compacted.err)
