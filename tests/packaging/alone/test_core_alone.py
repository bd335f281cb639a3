"""llmbridge-core works if no other distribution of llmbridge and no package of a provider is installed."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import distributions
from importlib.util import find_spec
from pathlib import Path
from pkgutil import walk_packages

import pytest

import llmbridge
from llmbridge import LLMBridge, LLMRequest, Message
from llmbridge.errors import ProviderNotFoundError, UnknownStorageError
from llmbridge.plugins import storage_plugins

HELLO = [Message(role="user", content="Hello")]


def test_nothing_else_is_installed() -> None:
    ours = {found.name for found in distributions() if found.name.startswith("llmbridge")}
    assert ours == {"llmbridge-core"}
    others = ("aiosqlite", "asyncpg", "pgdbm", "openai", "anthropic", "pydantic_ai")
    assert [name for name in others if find_spec(name) is not None] == []


def test_every_module_that_needs_no_provider_s_package_can_be_imported() -> None:
    needs_sdk, failed = "llmbridge.providers.pydantic_ai.sdk", []
    names = [found.name for found in walk_packages(llmbridge.__path__, "llmbridge.")]
    for name in names:
        try:
            import_module(name)
        except ImportError as error:
            failed.append(f"{name}: {error}")
    assert [told for told in failed if not told.startswith(needs_sdk)] == []
    assert len(names) > 100


async def test_echo_works_without_a_database() -> None:
    async with LLMBridge() as bridge:
        response = await bridge.chat(LLMRequest(model="echo:demo", messages=HELLO))
    assert response.content == "echo: Hello"
    assert response.record_status is None


async def test_memory_records_calls() -> None:
    async with LLMBridge("memory://", origin="alone") as bridge:
        response = await bridge.chat(LLMRequest(model="echo:demo", messages=HELLO), id_at_origin="user-1")
        [call] = await bridge.list_recent_calls("user-1")
        stats = await bridge.get_usage_stats("user-1")
    assert response.record_status == "committed"
    assert (call.id, call.provider, call.model_name, call.status) == (response.call_id, "echo", "demo", "success")
    assert stats is not None
    assert stats.total_calls == 1


@pytest.mark.parametrize("url", ["sqlite:///x.db", "x.db", ":memory:"])
def test_sqlite_says_how_to_install_it(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UnknownStorageError, match=r"pip install llmbridge-sqlite(?![-\w])"):
        LLMBridge(url)
    assert list(tmp_path.iterdir()) == []


def test_the_seed_s_name_of_the_sqlite_backend_says_how_to_install_it() -> None:
    with pytest.raises(UnknownStorageError, match=r"pip install llmbridge-sqlite(?![-\w])"):
        from llmbridge.db_backends import SQLiteBackend  # noqa: F401


def test_postgresql_says_how_to_install_it() -> None:
    with pytest.raises(UnknownStorageError, match=r"pip install llmbridge-postgres(?![-\w])"):
        LLMBridge("postgresql://localhost/books")


@pytest.mark.parametrize(
    ("provider", "requirement"),
    [
        ("openai", "llmbridge-core[openai]"),
        ("anthropic", "llmbridge-core[anthropic]"),
        ("google", "llmbridge-core[google]"),
        ("ollama", "llmbridge-core[ollama]"),
        ("groq", "pydantic-ai-slim[groq]"),
    ],
)
async def test_a_provider_says_how_to_install_its_packages(provider: str, requirement: str) -> None:
    async with LLMBridge() as bridge:
        with pytest.raises(ProviderNotFoundError) as caught:
            await bridge.chat(LLMRequest(model=f"{provider}:any-model", messages=HELLO))
    assert f'pip install "{requirement}"' in str(caught.value)


def test_memory_is_the_only_storage() -> None:
    assert [(plugin.name, plugin.error) for plugin in storage_plugins()] == [("memory", None)]
