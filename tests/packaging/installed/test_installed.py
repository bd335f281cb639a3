"""Both storage distributions, installed as a user installs them. These tests do not read the source tree."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import sysconfig
from decimal import Decimal
from importlib.metadata import distribution, entry_points, files, version
from pathlib import Path

import pytest

from llmbridge import LLMBridge, LLMRequest, Message

OURS = ("llmbridge-core", "llmbridge-postgres", "llmbridge-sqlite")


def llmbridge(*args: str) -> subprocess.CompletedProcess[str]:
    """Run the installed command."""
    command = Path(sysconfig.get_path("scripts")) / "llmbridge"
    return subprocess.run([command, *args], capture_output=True, text=True, check=False)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty folder and an empty home."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("DATABASE_URL", raising=False)
    monkeypatch.delenv("LLMBRIDGE_DATABASE_URL", raising=False)


def test_everything_comes_from_the_installed_packages() -> None:
    site = Path(sysconfig.get_path("purelib")).resolve()
    for name in ("llmbridge", "llmbridge_postgres", "llmbridge_sqlite"):
        module = __import__(name)
        assert module.__file__ is not None
        assert Path(module.__file__).resolve().parent == site / name


def test_all_distributions_have_one_version() -> None:
    assert len({version(name) for name in OURS}) == 1


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("llmbridge-core", {"llmbridge/py.typed", "llmbridge/_models/catalog.json"}),
        ("llmbridge-postgres", {"llmbridge_postgres/py.typed", "llmbridge_postgres/migrations/001_baseline.sql"}),
        ("llmbridge-sqlite", {"llmbridge_sqlite/py.typed", "llmbridge_sqlite/migrations/001_baseline.sql"}),
    ],
)
def test_a_wheel_has_its_data_and_nothing_foreign(name: str, wanted: set[str]) -> None:
    packed = {str(path) for path in files(name) or []}
    package = name.replace("-core", "").replace("-", "_")
    own = {path for path in packed if not path.startswith(("..", name.replace("-", "_") + "-"))}
    assert wanted <= packed
    assert any(path.endswith("licenses/LICENSE") for path in packed)
    assert {path.partition("/")[0] for path in own} == {package}


def test_the_extras_of_providers_are_forwarded() -> None:
    offered = {name: set(distribution(name).metadata.get_all("Provides-Extra") or []) for name in OURS}
    assert offered["llmbridge-core"] >= {"openai", "anthropic", "google", "ollama", "all"}
    assert all(extras == offered["llmbridge-core"] for extras in offered.values())


def test_the_schemes_are_announced() -> None:
    announced = {entry.name for entry in entry_points(group="llmbridge.storage")}
    assert announced == {"memory", "postgres", "postgresql", "sqlite"}


def test_a_call_is_found_by_the_next_process() -> None:
    async def call() -> None:
        async with LLMBridge("sqlite:///calls.db", origin="shop") as bridge:
            request = LLMRequest(model="echo:demo", messages=[Message(role="user", content="Hello")])
            response = await bridge.chat(request, id_at_origin="user-1")
        assert response.record_status == "committed"

    asyncio.run(call())
    code = (
        "import asyncio, llmbridge\n"
        "async def main():\n"
        "    async with llmbridge.LLMBridge('sqlite:///calls.db', origin='shop') as bridge:\n"
        "        print((await bridge.get_usage_stats('user-1')).total_calls)\n"
        "asyncio.run(main())\n"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "1\n"


def test_the_catalog_is_there() -> None:
    async def models() -> list[str]:
        async with LLMBridge("sqlite:///calls.db") as bridge:
            return [model.model_name for model in await bridge.get_models_from_db("openai")]

    assert "gpt-4o-mini" in asyncio.run(models())


def test_calls_are_priced_without_a_network() -> None:
    async def cost() -> Decimal | None:
        async with LLMBridge("memory://") as bridge:
            assert bridge.db is not None
            call_id = await bridge.db.record_api_call(
                origin="shop", provider="openai", model_name="gpt-4o-mini", prompt_tokens=1000, completion_tokens=0
            )
            assert call_id is not None
            call = await bridge.db.get_call_record(call_id)
        assert call is not None
        return call.estimated_cost

    assert asyncio.run(cost()) == Decimal("0.00015")


def test_the_command_line_chats_and_shows_the_usage() -> None:
    chatted = llmbridge("chat", "--db", "sqlite:///calls.db", "--model", "echo:demo", "Hello")
    assert chatted.returncode == 0, chatted.stderr
    assert "echo: Hello" in chatted.stdout
    used = llmbridge("usage", "--db", "sqlite:///calls.db", "--json")
    assert used.returncode == 0, used.stderr
    assert '"calls": 1' in json.dumps(json.loads(used.stdout))
