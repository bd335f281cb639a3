"""The vendor's stand-in, and a provider that calls it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from llmbridge.providers import BaseLLMProvider
from llmbridge.providers.vendors import llmbridge_provider

from .fake_vendor import FakeVendor, running

KEY = "sk-canary-4711-do-not-show"


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls to loopback go there directly, whatever the machine has set."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture
def vendor() -> Iterator[FakeVendor]:
    """A server on loopback that speaks OpenAI's protocol."""
    with running() as server:
        yield server


@pytest.fixture
async def openai(vendor: FakeVendor) -> AsyncIterator[BaseLLMProvider]:
    """`openai:` with a key, calling the stand-in."""
    provider = llmbridge_provider().create("openai", {"api_key": KEY, "base_url": vendor.url})
    yield provider
    await provider.close()
