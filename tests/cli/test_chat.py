"""`llmbridge chat` prints the response on stdout, and its cost and record status on stderr."""

from __future__ import annotations

import io
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

Command = Callable[..., Any]
ECHO = ("--model", "echo:demo")


def test_the_answer_is_all_that_stdout_has(cli: Command) -> None:
    result = cli("chat", "Hello there", *ECHO, "--db", "new.db")
    assert (result.code, result.out) == (0, "echo: Hello there\n")
    assert "echo:demo, 2 tokens in, 3 out, cost nothing (synthetic); recorded as " in result.err


def test_what_was_given_is_on_the_record(cli: Command) -> None:
    options = ("--user", "ann", "--origin", "shop", "--tag", "team=search", "--temperature", "0", "--max-tokens", "9")
    response = cli("chat", "Hi", *ECHO, "--db", "new.db", "--system", "Be brief", *options, "--json").document
    assert (response["content"], response["record_status"], response["cost"]) == ("echo: Hi", "committed", None)
    [call] = cli("calls", "--db", "new.db", "--json").document["calls"]
    assert call["id"] == response["call_id"]
    assert (call["id_at_origin"], call["origin"], call["metadata"]) == ("ann", "shop", {"team": "search"})
    assert (call["temperature"], call["max_tokens"]) == (0.0, 9)
    assert call["system_prompt_hash"]


def test_a_dash_reads_stdin(cli: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("from a pipe\n"))
    assert cli("chat", "-", *ECHO, "--no-db").out == "echo: from a pipe\n"


def test_without_a_database_nothing_is_opened(cli: Command, tmp_path: Path) -> None:
    result = cli("chat", "Hi", *ECHO, "--no-db")
    assert result.err == "echo:demo, 1 token in, 2 out, cost nothing (synthetic); not recorded: no database\n"
    assert list(tmp_path.iterdir()) == []


def test_without_a_model_it_says_how_to_name_one(cli: Command) -> None:
    result = cli("chat", "Hi")
    assert result.code == 2
    assert "--model openai:gpt-4o-mini" in result.err


def test_a_key_missing_is_the_provider_s_refusal(cli: Command) -> None:
    result = cli("chat", "Hi", "--model", "openai:gpt-4o", "--no-db", "--json")
    assert (result.code, result.document["error"]["type"]) == (1, "AuthenticationError")


def test_an_answer_that_may_not_be_recorded_is_printed_and_1(
    cli: Command, own_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (own_directory / "file").touch()
    monkeypatch.setenv("LLMBRIDGE_SPOOL_DIR", str(own_directory / "file" / "spool"))
    cli("init-db", "--db", "new.db")
    with closing(sqlite3.connect(own_directory / "new.db")) as connection:
        connection.execute(
            "CREATE TRIGGER broken BEFORE INSERT ON llmbridge_calls BEGIN SELECT RAISE(ABORT, 'broken'); END"
        )
    result = cli("chat", "Hi", *ECHO, "--db", "new.db")
    assert (result.code, result.out) == (1, "echo: Hi\n")
    assert result.err.splitlines()[-1].endswith("; the call may not be recorded: the database failed")
    told = cli("chat", "Hi", *ECHO, "--db", "new.db", "--json")
    assert (told.code, told.document["content"], told.document["record_status"]) == (1, "echo: Hi", "lost")


def test_an_empty_origin_is_not_the_database_s_fault(
    cli: Command, own_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLMBRIDGE_DATABASE_URL", "sqlite:///new.db")
    for origin in ("", "o" * 256):
        result = cli("chat", "Hi", *ECHO, "--origin", origin)
        assert result.code == 2
        assert result.err.startswith("error: --origin ")
        assert len(result.err.splitlines()) == 1
    assert list(own_directory.iterdir()) == []


def test_a_tag_given_twice_is_a_mistake(cli: Command) -> None:
    result = cli("chat", "Hi", *ECHO, "--no-db", "--tag", "a=1", "--tag", "a=2")
    assert result.code == 2
    assert "--tag 'a' is given twice" in result.err


@pytest.mark.parametrize(
    "address", ["localhost:8000/v1", "http://", "ftp://localhost/v1", "http://localhost:99999/v1", "http://[::1/v1"]
)
def test_a_malformed_address_of_a_provider_is_a_mistake(
    cli: Command, own_directory: Path, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", address)
    result = cli("chat", "Hi", "--model", "openai:gpt-4o", "--db", "new.db")
    assert result.code == 2
    assert result.err == (
        "error: OPENAI_BASE_URL is not the address of a server; write one like http://localhost:8000/v1\n"
    )
    assert list(own_directory.iterdir()) == []


def test_a_request_that_cannot_be_sent_is_a_mistake(cli: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://localhost:1/v1")
    result = cli("chat", "half a \ud83d", "--model", "openai:gpt-4o", "--no-db", "--json")
    assert (result.code, result.document["error"]["type"]) == (2, "InvalidRequestError")
