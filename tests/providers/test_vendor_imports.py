"""What is imported when, and what is said when it is not there."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import entry_points, metadata
from typing import Any

import pytest

from llmbridge.providers import GROUP, ProviderPlugin
from llmbridge.providers.pydantic_ai import others, vendors


def run(code: str) -> str:
    """What a fresh interpreter prints."""
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip()


def test_describing_and_making_a_provider_imports_no_vendor_library() -> None:
    code = """
import sys
import llmbridge.providers, llmbridge.providers.echo, llmbridge.providers.routing
from llmbridge.providers.pydantic_ai import others, vendors
for module in (others, vendors):
    plugin = module.llmbridge_provider()
    for prefix in plugin.prefixes:
        plugin.create(prefix, {"api_key": "sk-x"})
heavy = ("pydantic_ai", "openai", "anthropic", "google.genai", "groq", "httpx2", "httpx", "genai_prices")
print([name for name in heavy if name in sys.modules])
"""
    assert run(code) == "[]"


@pytest.mark.parametrize(
    ("vendor", "package", "requirement"),
    [
        ("openai", "openai", "llmbridge-core[openai]"),
        ("anthropic", "anthropic", "llmbridge-core[anthropic]"),
        ("google", "google.genai", "llmbridge-core[google]"),
        ("ollama", "openai", "llmbridge-core[ollama]"),
        ("mistral", "mistralai", "pydantic-ai-slim[mistral]"),
        ("openrouter", "openai", "pydantic-ai-slim[openrouter]"),
        ("openai", "pydantic_ai", "llmbridge-core[openai]"),
    ],
)
def test_a_missing_package_says_what_to_install(vendor: str, package: str, requirement: str) -> None:
    code = f"""
import asyncio, sys
sys.modules["{package}"] = None
from llmbridge.errors import ProviderNotFoundError
from llmbridge.plugins import create_provider
from llmbridge.schemas import LLMRequest, Message
request = LLMRequest(messages=[Message(role="user", content="x")])
try:
    asyncio.run(create_provider("{vendor}").complete(request, "m", timeout=1))
except ProviderNotFoundError as error:
    print(error)
"""
    assert f'{vendor}: needs packages that are not installed: pip install "{requirement}"' in run(code)


def test_every_prefix_has_its_entry_point() -> None:
    claimed = {entry.name: entry.value for entry in entry_points(group=GROUP) if entry.dist.name == "llmbridge-core"}
    described = {prefix: module.__name__ for module in (vendors, others) for prefix in _prefixes(module)}
    assert claimed == {**described, "echo": "llmbridge.providers.echo"}


def test_every_extra_of_another_vendor_is_one_of_the_library() -> None:
    assert set(others.EXTRAS.values()) <= set(metadata("pydantic-ai-slim").get_all("Provides-Extra") or ())


def _prefixes(module: Any) -> tuple[str, ...]:
    plugin: ProviderPlugin = module.llmbridge_provider()
    return plugin.prefixes
