"""What is imported when, and what is said when it is not there."""

from __future__ import annotations

import subprocess
import sys


def run(code: str) -> str:
    """What a fresh interpreter prints."""
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip()


def test_describing_and_making_a_provider_imports_no_vendor_library() -> None:
    code = """
import sys
import llmbridge.providers, llmbridge.providers.echo, llmbridge.providers.routing
from llmbridge.providers.vendors import llmbridge_provider
llmbridge_provider().create("openai", {"api_key": "sk-x"})
print([name for name in ("pydantic_ai", "openai", "httpx2", "httpx", "genai_prices") if name in sys.modules])
"""
    assert run(code) == "[]"


def test_a_missing_package_says_what_to_install() -> None:
    code = """
import asyncio, sys
sys.modules["openai"] = None
from llmbridge.errors import ProviderNotFoundError
from llmbridge.providers.vendors import OpenAIProvider
from llmbridge.schemas import LLMRequest, Message
try:
    asyncio.run(OpenAIProvider().complete(LLMRequest(messages=[Message(role="user", content="x")]), "m", timeout=1))
except ProviderNotFoundError as error:
    print(error)
"""
    assert 'pip install "llmbridge-core[openai]"' in run(code)
