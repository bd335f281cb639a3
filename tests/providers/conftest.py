"""A fake provider on the loopback interface, and llmbridge's providers that call it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

import pytest

from llmbridge.plugins import create_provider
from llmbridge.providers import BaseLLMProvider
from llmbridge.providers.pydantic_ai.plugin import llmbridge_provider

from ..support.fake_provider import FakeProvider, running

KEY = "sk-canary-4711-do-not-show"


@dataclass(frozen=True)
class Provider:
    """A provider, a model of it that the price list has, and the version in its base URL."""

    name: str
    model: str
    suffix: str = ""


PROVIDERS = (
    Provider("openai", "gpt-4o", "/v1"),
    Provider("anthropic", "claude-opus-4-8"),
    Provider("google", "gemini-2.5-flash"),
    Provider("ollama", "llama3.2"),
    Provider("groq", "llama-3.3-70b-versatile"),
    Provider("vllm", "some-model", "/v1"),
)

#: Those that have an extra of their own, of whose answers we know the raw counts.
OWN = PROVIDERS[:4]


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls to loopback go there directly, whatever the machine has set."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture
def server() -> Iterator[FakeProvider]:
    """A server on loopback that speaks the providers' protocols."""
    with running() as server:
        yield server


@pytest.fixture
async def openai(server: FakeProvider) -> AsyncIterator[BaseLLMProvider]:
    """`openai:` with a key, calling the fake provider."""
    provider = llmbridge_provider().create("openai", {"api_key": KEY, "base_url": server.url})
    yield provider
    await provider.close()


@pytest.fixture
async def provider(server: FakeProvider, which: Provider) -> AsyncIterator[BaseLLMProvider]:
    """One of `PROVIDERS`, with a key, calling the fake provider."""
    made = create_provider(which.name, api_key=KEY, base_url=server.origin + which.suffix)
    yield made
    await made.close()
