"""`llmbridge chat`: the answer on stdout, its cost and its record on stderr."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llmbridge.cli.database import keys_from_env_file

Command = Callable[..., Any]
ECHO = ("--model", "echo:demo")


def test_the_answer_is_all_that_stdout_has(cli: Command) -> None:
    result = cli("chat", "Hello there", *ECHO, "--db", "new.db")
    assert (result.code, result.out) == (0, "echo: Hello there\n")
    assert "echo:demo, 2 tokens in, 3 out, cost unknown (synthetic); recorded as " in result.err


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


def test_without_books_nothing_is_opened(cli: Command, tmp_path: Path) -> None:
    result = cli("chat", "Hi", *ECHO, "--no-db")
    assert result.err == "echo:demo, 1 tokens in, 2 out, cost unknown (synthetic); not recorded: no database\n"
    assert list(tmp_path.iterdir()) == []


def test_without_a_model_it_says_how_to_name_one(cli: Command) -> None:
    result = cli("chat", "Hi")
    assert result.code == 2
    assert "--model openai:gpt-4o-mini" in result.err


def test_a_key_missing_is_the_vendor_s_refusal(cli: Command) -> None:
    result = cli("chat", "Hi", "--model", "openai:gpt-4o", "--no-db", "--json")
    assert (result.code, result.document["error"]["type"]) == (1, "AuthenticationError")


def test_a_vendor_s_settings_are_taken_from_the_env_file(own_directory: Path) -> None:
    (own_directory / ".env").write_text(
        "OPENAI_API_KEY=from-file\nOPENAI_BASE_URL=http://localhost:1/v1\nHTTP_PROXY=http://localhost:2\nPATH=/nowhere\n"
    )
    before = dict(os.environ)
    with keys_from_env_file():
        new = {name: value for name, value in os.environ.items() if before.get(name) != value}
    assert new == {"OPENAI_API_KEY": "from-file", "OPENAI_BASE_URL": "http://localhost:1/v1"}
    assert dict(os.environ) == before


def test_a_key_of_the_environment_is_never_sent_to_an_address_of_the_env_file(
    own_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "mine")
    (own_directory / ".env").write_text("OPENAI_API_KEY=theirs\nOPENAI_BASE_URL=http://localhost:1/v1\n")
    with keys_from_env_file():
        assert os.environ["OPENAI_API_KEY"] == "mine"
        assert "OPENAI_BASE_URL" not in os.environ
