"""The vendors' stand-in, and providers that call it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

import pytest

from llmbridge.plugins import create_provider
from llmbridge.providers import BaseLLMProvider
from llmbridge.providers.pydantic_ai.vendors import llmbridge_provider

from .fake_vendor import FakeVendor, running

KEY = "sk-canary-4711-do-not-show"


@dataclass(frozen=True)
class Vendor:
    """A vendor, a model of it that the price list has, and where the version stands in its base URL."""

    name: str
    model: str
    suffix: str = ""


VENDORS = (
    Vendor("openai", "gpt-4o", "/v1"),
    Vendor("anthropic", "claude-opus-4-8"),
    Vendor("google", "gemini-2.5-flash"),
    Vendor("ollama", "llama3.2"),
    Vendor("groq", "llama-3.3-70b-versatile"),
    Vendor("vllm", "some-model", "/v1"),
)

#: Those that have an extra of their own, of whose answers we know the raw counts.
OWN = VENDORS[:4]


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls to loopback go there directly, whatever the machine has set."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture
def vendor() -> Iterator[FakeVendor]:
    """A server on loopback that speaks the vendors' protocols."""
    with running() as server:
        yield server


@pytest.fixture
async def openai(vendor: FakeVendor) -> AsyncIterator[BaseLLMProvider]:
    """`openai:` with a key, calling the stand-in."""
    provider = llmbridge_provider().create("openai", {"api_key": KEY, "base_url": vendor.url})
    yield provider
    await provider.close()


@pytest.fixture
async def provider(vendor: FakeVendor, which: Vendor) -> AsyncIterator[BaseLLMProvider]:
    """The provider of a vendor, with a key, calling the stand-in."""
    made = create_provider(which.name, api_key=KEY, base_url=vendor.origin + which.suffix)
    yield made
    await made.close()
