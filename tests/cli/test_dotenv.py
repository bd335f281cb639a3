"""The file ./.env: which variables of a provider are used, and that a key is never sent to an address from another
place."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from llmbridge.cli.dotenv import provider_variables, read
from llmbridge.providers.pydantic_ai.table import PROVIDERS

from ..support.fake_provider import FakeProvider, running

Command = Callable[..., Any]

#: The providers with a variable for their address.
ADDRESSABLE = [(kind, row.variables.addresses[0]) for kind, row in PROVIDERS.items() if row.variables.addresses]


@pytest.fixture
def server() -> Iterator[FakeProvider]:
    """A fake provider on loopback."""
    with running() as fake:
        yield fake


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment without any variable of a provider, whatever the machine has set."""
    for row in PROVIDERS.values():
        for name in row.variables.names:
            monkeypatch.delenv(name, raising=False)


def changes(kind: str) -> dict[str, str | None]:
    """What `provider_variables` changes in the environment; None: it hides a variable."""
    before = dict(os.environ)
    with provider_variables(f"{kind}:any-model"):
        inside = dict(os.environ)
    assert dict(os.environ) == before
    names = {name for name in before.keys() | inside.keys() if before.get(name) != inside.get(name)}
    return {name: inside.get(name) for name in names}


def test_the_variables_of_the_provider_are_taken_and_nothing_else(own_directory: Path) -> None:
    (own_directory / ".env").write_text(
        "OPENAI_API_KEY=from-file\nOPENAI_BASE_URL=http://localhost:1/v1\nOPENAI_ORG_ID=org\nHTTP_PROXY=http://localhost:2\n"
        "ANTHROPIC_API_KEY=other\nPATH=/nowhere\n"
    )
    assert changes("openai") == {
        "OPENAI_API_KEY": "from-file",
        "OPENAI_BASE_URL": "http://localhost:1/v1",
        "OPENAI_ORG_ID": "org",
    }
    assert changes("echo") == {}


def test_a_key_with_any_name_is_taken(own_directory: Path) -> None:
    (own_directory / ".env").write_text("HF_TOKEN=hf\nHEROKU_INFERENCE_KEY=heroku\nAWS_ACCESS_KEY_ID=aws\n")
    assert changes("huggingface") == {"HF_TOKEN": "hf"}
    assert changes("heroku") == {"HEROKU_INFERENCE_KEY": "heroku"}
    assert changes("bedrock") == {"AWS_ACCESS_KEY_ID": "aws"}


@pytest.mark.parametrize(("kind", "address"), ADDRESSABLE)
def test_a_key_of_the_environment_goes_to_no_address_of_the_file(
    own_directory: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], kind: str, address: str
) -> None:
    (own_directory / ".env").write_text(f"{address}=http://localhost:1\n")
    for key in PROVIDERS[kind].variables.keys:
        with monkeypatch.context() as patch:
            patch.setenv(key, "mine")
            assert changes(kind) == {}
            assert capsys.readouterr().err.startswith(f"{address} of ./.env is not used: {key} of {kind} is set")


@pytest.mark.parametrize(("kind", "address"), ADDRESSABLE)
def test_a_key_of_the_file_goes_to_no_address_of_the_environment(
    own_directory: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], kind: str, address: str
) -> None:
    key = PROVIDERS[kind].variables.keys[0]
    (own_directory / ".env").write_text(f"{key}=theirs\n")
    monkeypatch.setenv(address, "http://localhost:1")
    assert changes(kind) == {}
    assert capsys.readouterr().err.startswith(f"{key} of ./.env is not used: {address} of {kind} is set")


def test_headers_of_the_environment_go_to_no_address_of_the_file(
    own_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (own_directory / ".env").write_text("OPENAI_API_KEY=theirs\nOPENAI_BASE_URL=http://localhost:1/v1\n")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "Authorization: Bearer mine")
    assert changes("openai") == {}


def test_an_organization_of_the_environment_goes_to_no_address_of_the_file(
    own_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (own_directory / ".env").write_text("OPENAI_BASE_URL=http://localhost:1/v1\n")
    monkeypatch.setenv("OPENAI_ORG_ID", "mine")
    assert changes("openai") == {"OPENAI_BASE_URL": "http://localhost:1/v1", "OPENAI_ORG_ID": None}


def test_a_stored_key_goes_to_no_address_of_the_file(own_directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (own_directory / ".env").write_text(
        "AWS_ENDPOINT_URL=http://localhost:1\nGOOGLE_VERTEX_BASE_URL=http://localhost:1\n"
    )
    assert changes("bedrock") == {}
    assert "the file has no key of bedrock" in capsys.readouterr().err
    assert changes("google-cloud") == {}


def test_what_both_places_have_is_the_environments_without_a_word(
    own_directory: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (own_directory / ".env").write_text("OPENAI_API_KEY=theirs\n")
    monkeypatch.setenv("OPENAI_API_KEY", "mine")
    assert changes("openai") == {}
    assert capsys.readouterr().err == ""


def test_a_reference_is_replaced_by_a_value_of_the_file_alone(
    own_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET", "mine")
    (own_directory / ".env").write_text("HOST=db\nDATABASE_URL=sqlite:///${HOST}-${SECRET}-${OTHER:-x}.db\n")
    assert read()["DATABASE_URL"] == "sqlite:///db-${SECRET}-x.db"


def test_the_environments_key_is_not_sent_to_an_address_of_the_file(
    cli: Command, own_directory: Path, server: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    (own_directory / ".env").write_text(f"GOOGLE_GEMINI_BASE_URL={server.origin}\n")
    # Its library must go nowhere: a proxy that refuses stands for Google.
    monkeypatch.setenv("GOOGLE_API_KEY", "mine")
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    result = cli("chat", "Hi", "--model", "google:gemini-2.5-flash", "--no-db", "--timeout", "5")
    assert result.code == 1
    assert "GOOGLE_GEMINI_BASE_URL of ./.env is not used: GOOGLE_API_KEY of google is set" in result.err
    assert server.requests == []


def test_a_key_and_an_address_of_the_file_are_used_together(
    cli: Command, own_directory: Path, server: FakeProvider
) -> None:
    (own_directory / ".env").write_text(f"GOOGLE_GEMINI_BASE_URL={server.origin}\nGOOGLE_API_KEY=theirs\n")
    result = cli("chat", "Hi", "--model", "google:gemini-2.5-flash", "--no-db")
    assert result.code == 0
    [request] = server.requests
    assert request.headers["x-goog-api-key"] == "theirs"
