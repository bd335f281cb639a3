"""When the SDKs are imported, and the error if one is not installed."""

from __future__ import annotations

import subprocess
import sys

import pytest


def run(code: str) -> str:
    """Return what a fresh interpreter prints."""
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip()


def test_describing_and_making_a_provider_imports_no_sdk() -> None:
    code = """
import sys
import llmbridge.providers, llmbridge.providers.echo, llmbridge.providers.routing
from llmbridge.providers.pydantic_ai.plugin import llmbridge_provider
plugin = llmbridge_provider()
for prefix in plugin.prefixes:
    plugin.create(prefix, {"api_key": "sk-x"})
heavy = ("pydantic_ai", "openai", "anthropic", "google.genai", "groq", "httpx2", "httpx", "genai_prices")
print([name for name in heavy if name in sys.modules])
"""
    assert run(code) == "[]"


@pytest.mark.parametrize(
    ("provider", "package", "requirement"),
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
def test_a_missing_package_says_what_to_install(provider: str, package: str, requirement: str) -> None:
    code = f"""
import asyncio, sys
sys.modules["{package}"] = None
from llmbridge.errors import ProviderNotFoundError
from llmbridge.plugins import create_provider
from llmbridge.schemas import LLMRequest, Message
request = LLMRequest(model="m", messages=[Message(role="user", content="x")])
try:
    asyncio.run(create_provider("{provider}").complete(request, "m", timeout=1))
except ProviderNotFoundError as error:
    print(error)
"""
    assert f'{provider}: needs packages that are not installed: pip install "{requirement}"' in run(code)
