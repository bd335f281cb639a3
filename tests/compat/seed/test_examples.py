"""The examples of the proposal that llmbridge is based on run as written."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from llmbridge import LLMBridge, LLMRequest, Message

EXAMPLES = Path(__file__).parent / "examples"


async def chat(service: LLMBridge) -> int | None:
    """Call `service` once and return how many calls are recorded then."""
    response = await service.chat(LLMRequest(model="echo:demo", messages=[Message(role="user", content="Hello")]))
    assert response.content == "echo: Hello"
    calls = await service.list_recent_calls()
    await service.close()
    return len(calls)


async def test_local_development_opens_nothing_and_ends_without_a_database() -> None:
    service = runpy.run_path(str(EXAMPLES / "local_development.py"))["service"]
    assert not service.enable_db_logging
    assert service.db is None
    assert list(Path.home().iterdir()) == []
    assert await chat(service) == 0


async def test_a_database_in_the_home_folder_records_calls() -> None:
    assert await chat(LLMBridge(db_connection_string="~/llmbridge.db", enable_db_logging=True)) == 1
    assert await chat(LLMBridge(db_connection_string="~/llmbridge.db", enable_db_logging=True)) == 2
    assert (Path.home() / "llmbridge.db").is_file()


async def test_a_database_in_memory_records_calls() -> None:
    assert await chat(LLMBridge(db_connection_string=":memory:", enable_db_logging=True)) == 1
    assert list(Path.home().iterdir()) == []


@pytest.mark.parametrize("url", ["sqlite:///books.sqlite", "books.db", "./books"])
async def test_auto_detection_finds_sqlite(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATABASE_URL", url)
    service = runpy.run_path(str(EXAMPLES / "auto_detection.py"))["service"]
    assert type(service.db.backend).__name__ == "SQLiteBackend"
    assert await chat(service) == 1


async def test_auto_detection_without_a_url_uses_no_database() -> None:
    service = runpy.run_path(str(EXAMPLES / "auto_detection.py"))["service"]
    assert service.db is None
    assert await chat(service) == 0
