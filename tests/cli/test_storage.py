"""`init-db`, `health` and `llmbridge storage`: creating, checking and migrating a database."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from llmbridge import LLMDatabase
from llmbridge._recording.spool import Spool, SpoolCounts
from llmbridge.plugins import create_backend, storage_plugins
from llmbridge.storage import new_identity
from llmbridge.testing import make_call

Command = Callable[..., Any]


def test_init_db_creates_migrates_and_fills(cli: Command, tmp_path: Path) -> None:
    first = cli("init-db", "--db", "sqlite:///new.db")
    assert first.code == 0
    assert (tmp_path / "new.db").is_file()
    assert first.out.splitlines()[0] == "created"
    again = cli("init-db", "--db", "sqlite:///new.db", "--json").document
    assert (again["created"], again["applied"], again["models_added"]) == (False, [], 0)
    assert again["models"] > 10
    assert again["database"] == "sqlite:///new.db"


def test_status_migrates_nothing(cli: Command, tmp_path: Path) -> None:
    (tmp_path / "new.db").touch()
    for _ in range(2):
        status = cli("storage", "status", "--db", "sqlite:///new.db", "--json")
        assert status.code == 0
        assert (status.document["current"], status.document["writable"]) == (None, True)
        assert status.document["pending"]
    assert "none: the database is empty" in cli("storage", "status", "--db", "sqlite:///new.db").out


def test_migrate_says_what_it_applied(cli: Command) -> None:
    applied = cli("storage", "migrate", "--db", "new.db", "--json").document["applied"]
    assert applied
    assert cli("storage", "migrate", "--db", "new.db").out.splitlines() == [
        "applied: none",
        f"there already: {', '.join(applied)}",
    ]
    status = cli("storage", "status", "--db", "new.db", "--json").document
    assert status["pending"] == []
    assert status["target"].endswith("/new.db")


def test_plugins_lists_what_is_installed(cli: Command) -> None:
    found = cli("storage", "plugins", "--json").document["plugins"]
    assert [plugin["name"] for plugin in found] == [plugin.name for plugin in storage_plugins()]
    assert {"memory", "sqlite"} <= {plugin["name"] for plugin in found}
    assert "llmbridge-sqlite" in cli("storage", "plugins").out


def test_plugins_shows_why_one_cannot_be_used(cli: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMBRIDGE_DISABLE_PLUGINS", "llmbridge-sqlite")
    result = cli("storage", "plugins")
    assert result.code == 0
    assert "switched off" in result.out


def test_a_healthy_store_is_0(cli: Command, db_url: str) -> None:
    assert (cli("health").code, cli("health").out) == (0, "healthy\n")
    assert cli("health", "--json").document["status"] == "healthy"


def test_an_unhealthy_store_is_1(cli: Command, tmp_path: Path) -> None:
    (tmp_path / "no.db").write_text("this is no database, whatever its name says")
    result = cli("health", "--db", "sqlite:///no.db")
    assert result.code == 1
    assert result.out.startswith("unhealthy: ")
    told = cli("health", "--db", "sqlite:///no.db", "--json")
    assert (told.code, told.document["status"]) == (1, "unhealthy")


def test_a_file_that_does_not_exist_is_unhealthy_and_not_made(cli: Command, tmp_path: Path) -> None:
    result = cli("health", "--db", "typo/calls.db")
    assert result.code == 1
    assert result.out.startswith("unhealthy: there is no database at ")
    told = cli("health", "--db", "typo/calls.db", "--json")
    assert (told.code, told.document["status"]) == (1, "unhealthy")
    assert told.document["target"].endswith("/typo/calls.db")
    assert list(tmp_path.iterdir()) == []


def test_asking_for_the_health_of_a_store_migrates_nothing(cli: Command, tmp_path: Path) -> None:
    (tmp_path / "new.db").touch()
    for _ in range(2):
        result = cli("health", "--db", "new.db")
        assert result.code == 1
        assert result.out.startswith("unhealthy: SchemaOutdatedError: ")
        assert "llmbridge storage migrate" in result.out
    assert cli("storage", "status", "--db", "new.db", "--json").document["current"] is None
    assert cli("storage", "migrate", "--db", "new.db").code == 0
    assert cli("health", "--db", "new.db").code == 0


def test_a_reader_creates_no_tables(cli: Command, tmp_path: Path) -> None:
    (tmp_path / "new.db").touch()
    for _ in range(2):
        refused = cli("usage", "--db", "new.db")
        assert (refused.code, refused.out) == (2, "")
        assert " has no tables of llmbridge yet" in refused.err
        assert "llmbridge init-db --db " in refused.err
    assert cli("init-db", "--db", "new.db").code == 0
    assert cli("usage", "--db", "new.db").code == 0


def test_a_store_in_memory_lives_for_one_command(cli: Command) -> None:
    assert cli("chat", "hi", "-m", "echo:demo", "--db", "memory://").code == 0
    assert cli("calls", "--db", "memory://", "--json").document["calls"] == []
    assert "in memory" in cli("storage", "status", "--db", "memory://").out


def test_a_name_cannot_steer_the_terminal(cli: Command) -> None:
    async def fill() -> None:
        async with LLMDatabase("sqlite:///new.db") as db:
            await db.record_api_call(origin="o", id_at_origin="\x1b[2Jx\ny", provider="p", model_name="[red]m")

    asyncio.run(fill())
    out = cli("calls", "--db", "new.db").out
    assert "\x1b" not in out
    assert "o/\N{REPLACEMENT CHARACTER}[2Jx y" in out
    assert "p:[red]m" in out


def test_databases_are_copied_to_a_database_that_is_made(cli: Command, db_url: str) -> None:
    copied = cli("storage", "copy", db_url, "sqlite:///copy.db")
    assert copied.out.splitlines()[0] == "calls:  6 copied, 0 there already, 0 too old"
    again = cli("storage", "copy", db_url, "sqlite:///copy.db", "--json").document
    assert (again["calls"], again["duplicates"]) == (0, 6)
    of_each = [cli("usage", "--since", "all", "--json", "--db", url).document for url in (db_url, "sqlite:///copy.db")]
    assert of_each[0]["rows"] == of_each[1]["rows"]
    of_each = [cli("calls", "--json", "--db", url).document for url in (db_url, "sqlite:///copy.db")]
    assert of_each[0] == of_each[1]


def test_what_has_no_tables_is_not_copied_and_gets_none(cli: Command, tmp_path: Path) -> None:
    (tmp_path / "new.db").touch()
    for _ in range(2):
        refused = cli("storage", "copy", "new.db", "copy.db")
        assert (refused.code, refused.out) == (2, "")
        assert "sqlite:///new.db has no tables of llmbridge yet" in refused.err
    assert cli("storage", "status", "--db", "new.db", "--json").document["current"] is None
    assert not (tmp_path / "copy.db").exists()


def test_purged_days_are_copied_with_their_totals(cli: Command, own_directory: Path) -> None:
    url, today = f"sqlite:///{own_directory / 'old.db'}", datetime.now(UTC)

    async def fill() -> None:
        async with LLMDatabase(url) as db:
            for age in range(0, 100, 5):
                call = {"origin": "o", "id_at_origin": f"u{age % 3}", "provider": "p", "model_name": "m"}
                await db.record_api_call(**call, estimated_cost=f"0.{age:012}", called_at=today - timedelta(days=age))
            await db.purge(today - timedelta(days=31))

    asyncio.run(fill())
    copied = cli("storage", "copy", url, "copy.db", "--json").document
    assert (copied["calls"], copied["expired"]) == (7, 0)
    assert copied["totals"] > 13
    cli("purge", "--older-than", "20d", "--db", url)
    assert cli("storage", "copy", url, "copy.db").code == 0
    for by in ("none", "user", "model,status", "day"):
        asked = ("usage", "--since", f"{(today - timedelta(days=120)).date()}", "--by", by, "--json")
        of_each = [cli(*asked, "--db", one).document for one in (url, "copy.db")]
        assert of_each[0]["rows"] == of_each[1]["rows"]
        assert of_each[1]["total"]["calls"] == 20
    assert len(cli("calls", "--json", "--db", "copy.db").document["calls"]) == 5


def test_a_copy_from_nowhere_or_to_itself_is_a_mistake(cli: Command, db_url: str) -> None:
    for source, target, said in (
        ("nowhere.db", "copy.db", "there is no database at"),
        (db_url, db_url, "the same database"),
        (db_url, "", "name two databases"),
        (db_url, "bogus://x", "the database from TO"),
    ):
        result = cli("storage", "copy", source, target)
        assert result.code == 2
        assert said in result.err
    assert not Path("copy.db").exists()


def spool_of(url: str) -> Spool:
    """The spool of a database, as another program sees it that has not reached it yet."""
    backend = create_backend(url)
    assert backend is not None
    return Spool(backend.target or "")


def shown(result: Any) -> list[list[str]]:
    return [line.split() for line in result.out.splitlines()]


def test_what_waits_is_shown_and_tried_again(cli: Command, db_url: str) -> None:
    nothing = cli("storage", "spool", "--json").document
    assert (nothing["waiting"], nothing["set_aside"], nothing["reasons"], nothing["files"]) == (0, 0, {}, [])
    spool = spool_of(db_url)
    spool.put([make_call(number) for number in range(1200)])
    spool.file.set_aside({1: "too large\x1b[2J", 2: "of no provider", 3: "of no provider"})
    assert shown(cli("storage", "spool")) == [
        ["path:", str(spool.path)],
        ["waiting:", "1,197"],
        ["set", "aside:", "3"],
        ["to", "adopt:", "0"],
        ["calls", "set", "aside", "because"],
        ["2", "of", "no", "provider"],
        ["1", "too", "large\N{REPLACEMENT CHARACTER}[2J"],
        ["file", "database", "identity", "waiting", "set", "aside"],
        [spool.path.name, spool.target, "unknown", "1,197", "3"],
    ]
    assert spool.counts() == SpoolCounts(waiting=1197, set_aside=3)
    moved = cli("storage", "spool", "--retry", "--json").document
    counts = {name: moved[name] for name in ("waiting", "set_aside", "to_adopt", "reasons", "retried")}
    assert counts == {"waiting": 0, "set_aside": 0, "to_adopt": 0, "reasons": {}, "retried": 3}
    identity = cli("storage", "status", "--json").document["identity"]
    assert {file["identity"] for file in moved["files"]} == {None, identity}
    assert sum(row["calls"] for row in cli("usage", "--since", "all", "--json").document["rows"]) == 1206


def of_another_database(url: str, calls: int = 3) -> Spool:
    """Calls that were spooled at the address of a database, for the one that was there before."""
    spool = spool_of(url)
    spool.recognize(new_identity())
    spool.put([make_call(number) for number in range(calls)])
    return spool


def test_usage_and_doctor_tell_of_calls_that_wait_at_the_address(cli: Command, db_url: str) -> None:
    assert "spool:" not in cli("usage").err
    of_another_database(db_url)
    told = cli("usage", "--json")
    assert "spool: 3 calls wait on this machine and may be missing here: llmbridge storage spool" in told.err
    assert told.document
    examined = cli("doctor")
    assert examined.code == 1
    assert "0 calls waiting, 3 to adopt or discard (llmbridge storage spool), in " in examined.out
    assert cli("doctor", "--json").document["problems"] == ["spool"]


def test_calls_of_another_database_are_adopted_when_asked_to(cli: Command, db_url: str) -> None:
    spool = of_another_database(db_url)
    name = spool.path.name
    (listed,) = cli("storage", "spool", "--json").document["files"]
    assert listed == {
        "name": name,
        "target": spool.target,
        "identity": spool.identity,
        "waiting": 3,
        "set_aside": 0,
        "problem": None,
    }
    refused = cli("storage", "spool", "--adopt", name)
    assert refused.code == 2
    assert f"3 calls of {spool.target} in {name} will be recorded in {db_url}" in refused.err
    assert "add --yes" in refused.err
    assert spool.file.counts() == (3, 0)
    adopted = cli("storage", "spool", "--adopt", name, "--yes", "--json").document
    assert (adopted["adopted"], adopted["waiting"], adopted["to_adopt"]) == (3, 0, 0)
    assert cli("usage", "--since", "all", "--by", "none", "--json").document["total"]["calls"] == 9
    again = cli("storage", "spool", "--adopt", adopted_file(adopted, db_url, cli), "--yes")
    assert (again.code, "belong to this database already" in again.err) == (2, True)


def adopted_file(document: Any, url: str, cli: Command) -> str:
    identity = cli("storage", "status", "--json", "--db", url).document["identity"]
    return next(str(file["name"]) for file in document["files"] if file["identity"] == identity)


def test_calls_of_a_database_that_is_gone_are_discarded_when_asked_to(cli: Command, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/gone.db"
    spool = of_another_database(url)
    name = spool.path.name
    assert cli("storage", "spool", "--discard", name, "--db", url).code == 2
    assert spool.file.counts() == (3, 0)
    done = cli("storage", "spool", "--discard", name, "--yes", "--json", "--db", url).document
    assert (done["discarded"], done["waiting"], done["files"]) == (3, 0, [])
    assert spool.file.counts() == (0, 0)
    assert not (tmp_path / "gone.db").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--adopt", "x"], "the spool has no file 'x'"),
        (["--discard", "../calls.db"], "the spool has no file '../calls.db'"),
        (["--adopt", "x", "--discard", "x"], "not both"),
        (["--retry", "--db", "nowhere.db"], "there is no database at"),
    ],
)
def test_files_that_cannot_be_adopted_or_discarded_are_a_mistake(
    cli: Command, db_url: str, options: list[str], said: str
) -> None:
    result = cli("storage", "spool", "--yes", *options)
    assert result.code == 2
    assert said in result.err


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pseudo-terminals")
@pytest.mark.parametrize(("answer", "left"), [("y", (0, 0)), ("n", (3, 0)), ("", (3, 0))])
def test_a_person_at_a_terminal_is_asked(
    cli: Command, db_url: str, answer: str, left: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    import pty

    spool = of_another_database(db_url)
    ours, theirs = pty.openpty()
    os.write(ours, f"{answer}\n".encode())
    with open(theirs) as terminal:
        monkeypatch.setattr("sys.stdin", terminal)
        result = cli("storage", "spool", "--discard", spool.path.name)
    os.close(ours)
    assert "will be deleted for good. Go on? [y/N]" in result.err
    assert spool.file.counts() == left


def test_a_file_that_is_no_spool_is_listed_with_what_is_wrong(cli: Command, db_url: str) -> None:
    spool = of_another_database(db_url)
    spool.path.write_bytes(b"no spool" * 1000)
    (listed,) = cli("storage", "spool", "--json").document["files"]
    assert "file is not a database" in listed["problem"]
    assert cli("storage", "spool").code == 0
    assert "not a database" in cli("storage", "spool", "--discard", spool.path.name, "--yes").err


def test_calls_of_a_store_in_memory_wait_nowhere(cli: Command) -> None:
    assert cli("storage", "spool", "--db", "memory://").code == 2
