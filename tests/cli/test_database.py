"""Which database a command uses, and what it prints about it."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llmbridge.cli.database import Choice

Command = Callable[..., Any]
SECRET = "s3cr3t-w0rd"


def said(result: Any) -> str:
    return next(line for line in result.err.splitlines() if line.startswith("database: "))


def test_the_nearest_source_wins(cli: Command, own_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    status = ("storage", "status")
    home = f"sqlite:///{Path.home()}/.llmbridge/llmbridge.db"
    assert said(cli(*status)) == f"database: {home} (from the default)"

    env_file = own_directory / ".env"
    env_file.write_text("DATABASE_URL=sqlite:///d.db\n")
    assert said(cli(*status)) == "database: sqlite:///d.db (from DATABASE_URL in ./.env)"
    monkeypatch.setenv("DATABASE_URL", "sqlite:///c.db")
    assert said(cli(*status)) == "database: sqlite:///c.db (from DATABASE_URL)"
    env_file.write_text("DATABASE_URL=sqlite:///d.db\nexport LLMBRIDGE_DATABASE_URL='sqlite:///b.db' # ours\n")
    assert said(cli(*status)) == "database: sqlite:///b.db (from LLMBRIDGE_DATABASE_URL in ./.env)"
    monkeypatch.setenv("LLMBRIDGE_DATABASE_URL", "sqlite:///a.db")
    assert said(cli(*status)) == "database: sqlite:///a.db (from LLMBRIDGE_DATABASE_URL)"
    assert said(cli("--db", "before.db", *status)) == "database: sqlite:///before.db (from --db)"
    assert said(cli("--db", "before.db", *status, "--db", "after.db")) == "database: sqlite:///after.db (from --db)"


def test_an_empty_variable_is_none(cli: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMBRIDGE_DATABASE_URL", "")
    monkeypatch.setenv("DATABASE_URL", "sqlite:///c.db")
    assert "(from DATABASE_URL)" in said(cli("storage", "status"))


def test_the_default_says_what_to_install(cli: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMBRIDGE_PLUGINS", "")
    result = cli("usage")
    assert result.code == 2
    assert "the database from the default: " in result.err


def test_json_has_the_database_on_stderr_only(cli: Command, db_url: str) -> None:
    result = cli("usage", "--json")
    assert "rows" in result.document
    assert "database: sqlite:///" in result.err


@pytest.mark.parametrize(
    "args",
    [
        ["usage", "--db", f"postgresql://ann:{SECRET}@localhost:1/books"],
        ["health", "--db", f"postgresql://ann:{SECRET}@localhost:1/books", "--json"],
        ["calls", "--db", f"postgresql+asyncpg://ann:{SECRET}@localhost:1/books"],
        ["usage", "--db", f"postgresql://ann:{SECRET}@localhost:99999/books"],
        ["usage", "--db", f"nonsense://ann:{SECRET}@localhost:1/books"],
        ["usage", "--db", f"sqlite:///new.db?password={SECRET}"],
        ["usage", f"postgresql://ann:{SECRET}@localhost:1/books"],
        [f"postgresql://ann:{SECRET}@localhost:1/books"],
    ],
)
def test_a_password_is_never_shown(cli: Command, args: list[str]) -> None:
    result = cli(*args)
    assert result.code in (1, 2)
    assert SECRET not in result.out + result.err


def test_a_wrong_variable_is_named(cli: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "mysql://localhost/books")
    result = cli("usage")
    assert result.code == 2
    assert "the database from DATABASE_URL: " in result.err


def test_an_env_file_that_is_no_text_is_a_mistake(cli: Command, own_directory: Path) -> None:
    (own_directory / ".env").write_bytes(b"DATABASE_URL=\xff\xfe\n")
    result = cli("usage")
    assert result.code == 2
    assert "./.env cannot be read" in result.err
    assert cli("usage", "--db", "memory://").code == 0


READING = [
    ["usage"],
    ["calls"],
    ["models", "list"],
    ["models", "show", "openai:gpt-4o"],
    ["storage", "status"],
]


@pytest.mark.parametrize("args", READING, ids=" ".join)
@pytest.mark.parametrize("url", ["typo.db", "sqlite:///typo/calls.db", "~/typo.db"])
def test_reading_makes_no_file(cli: Command, own_directory: Path, args: list[str], url: str) -> None:
    result = cli(*args, "--db", url)
    assert (result.code, result.out) == (2, "")
    last = result.err.splitlines()[-1]
    assert last.startswith("error: there is no database at /")
    assert "yet; llmbridge init-db --db sqlite:///" in last
    assert list(own_directory.iterdir()) == []
    assert not (Path.home() / "typo.db").exists()


def test_reading_makes_no_default_database(cli: Command) -> None:
    result = cli("usage", "--json")
    assert result.code == 2
    assert "llmbridge init-db --db sqlite:///" in result.document["error"]["message"]
    assert not (Path.home() / ".llmbridge").exists()


def test_what_is_said_of_a_missing_file_makes_it(cli: Command, own_directory: Path) -> None:
    folder = own_directory / "my books"
    said = cli("usage", "--db", str(folder / "calls.db")).err.splitlines()[-1]
    _, *words = shlex.split(said.partition("; ")[2])[:4]
    assert cli(*words).code == 0
    assert (folder / "calls.db").is_file()
    assert cli("usage", "--db", str(folder / "calls.db")).code == 0


def test_databases_are_named_by_their_place_without_the_secrets_of_the_url() -> None:
    choice = Choice("postgresql://shop:hunter2@db/orders?schema=Other%20books&sslmode=require&sslpassword=x", "--db")
    assert choice.shown() == "postgresql://shop:***@db/orders?schema=Other%20books"
    assert f"llmbridge init-db --db '{choice.shown()}' creates them" in str(choice.without_schema())
    assert Choice("postgresql://db/orders", "--db").shown() == "postgresql://db/orders"
    socket = Choice("postgresql:///?host=/run/pg&port=5433&dbname=a%26b&password=hunter2&user=ann", "--db")
    assert socket.shown() == "postgresql://?host=/run/pg&port=5433&dbname=a%26b&user=ann"


@pytest.mark.parametrize(
    "args", [["init-db"], ["storage", "migrate"], ["chat", "Hi", "--model", "echo:demo"]], ids=" ".join
)
def test_writing_makes_the_file(cli: Command, own_directory: Path, args: list[str]) -> None:
    assert cli(*args, "--db", "new/calls.db").code == 0
    assert (own_directory / "new" / "calls.db").is_file()


def test_the_plugin_may_stand_at_both_places(cli: Command, db_url: str) -> None:
    for args in (["--plugin", "nobody", "usage"], ["usage", "--plugin", "nobody"]):
        result = cli(*args)
        assert result.code == 2
        assert "nobody" in result.err
    assert cli("--plugin", "nobody", "usage", "--plugin", "llmbridge-sqlite").code == 0
