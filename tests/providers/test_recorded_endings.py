"""For every provider and every fault: what the caller gets, and which row is stored."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx2
import pytest

from llmbridge import LLMBridge, LLMRequest, Message, ModelPrice
from llmbridge.errors import ContentFilterError, InvalidResponseError, LLMBridgeError, ProviderUnavailableError

from ..support.fake_provider import FakeProvider, Reply
from ..support.wires import completion, sse
from .conftest import KEY, OWN, Provider

PROMPT = "the canary of the lake"

#: fault -> the exception (None: an answer), then status, reason of no cost and error type of the row.
ENDINGS: dict[str, tuple[str | None, str, str | None]] = {
    "": (None, "success", None),
    "rich_usage": (None, "success", None),
    "length": (None, "success", None),
    "no_usage": (None, "success", "unmeasured_usage"),
    "rate_limit": ("RateLimitError", "rate_limited", "not_billed"),
    "quota": ("RateLimitError", "rate_limited", "not_billed"),
    "auth": ("AuthenticationError", "error", "not_billed"),
    "forbidden": ("AuthenticationError", "error", "not_billed"),
    "not_found": ("ModelNotFoundError", "error", "not_billed"),
    "bad_request": ("InvalidRequestError", "error", "not_billed"),
    "context_length": ("ContextLengthError", "error", "not_billed"),
    "content_filter": ("ContentFilterError", "error", "not_billed"),
    "too_large": ("InvalidRequestError", "error", "not_billed"),
    "server_error": ("ProviderUnavailableError", "error", "not_billed"),
    "html502": ("ProviderUnavailableError", "error", "not_billed"),
    "unavailable": ("ProviderUnavailableError", "error", "not_billed"),
    "overloaded": ("ProviderUnavailableError", "error", "not_billed"),
    "html200": ("InvalidResponseError", "error", "unmeasured_usage"),
    "malformed": ("InvalidResponseError", "error", "unmeasured_usage"),
    "empty": ("InvalidResponseError", "error", "unmeasured_usage"),
    "wrong_shape": ("InvalidResponseError", "error", "unmeasured_usage"),
    "silent": ("InvalidResponseError", "error", "unmeasured_usage"),
    "hang": ("ProviderTimeoutError", "timeout", "unmeasured_usage"),
    "reset": ("ProviderUnavailableError", "error", "unmeasured_usage"),
    "reset_mid": ("ProviderUnavailableError", "error", "unmeasured_usage"),
}

#: Dollars per million: input, output, cache read, cache write, cache write for an hour; 12 and 7 tokens, and a
#: hundred and twenty of which 40 were read from a cache, 25 written to one (10 of them for an hour).
RATES = {
    "openai": ("2.5", "10", "1.25", "2.5", "0"),
    "anthropic": ("5", "25", "0.5", "6.25", "10"),
    "google": ("0.3", "2.5", "0.03", "0", "0"),
    "ollama": ("1", "2", "0.5", "1.25", "0"),
}
WRITTEN = {"openai": (25, 0), "anthropic": (15, 10), "google": (0, 0), "ollama": (25, 0)}


@pytest.fixture
async def bridge(server: FakeProvider, which: Provider, tmp_path: Path) -> AsyncIterator[LLMBridge]:
    async with LLMBridge(f"sqlite:///{tmp_path}/calls.db", origin="app", max_retries=0) as opened:
        opened.register_provider(which.name, api_key=KEY, base_url=server.origin + which.suffix)
        if which.name == "ollama":  # what runs at home is on no list
            assert opened.db is not None
            rates = map(Decimal, RATES["ollama"][:4])
            await opened.db.set_prices([ModelPrice("ollama", which.model, datetime(2026, 1, 1, tzinfo=UTC), *rates)])
        yield opened


def by_hand(which: Provider, fault: str) -> Decimal:
    """The cost of an answer, in dollars."""
    plain, output, read, written, for_an_hour = map(Decimal, RATES[which.name])
    if fault != "rich_usage":
        return (12 * plain + 7 * output) / 1_000_000
    five_minutes, an_hour = WRITTEN[which.name]
    fresh = 100 - 40 - five_minutes - an_hour
    sum_ = fresh * plain + 20 * output + 40 * read + five_minutes * written + an_hour * for_an_hour
    return sum_ / 1_000_000


def rows(path: Path) -> list[dict[str, Any]]:
    plain = sqlite3.connect(path)
    plain.row_factory = sqlite3.Row
    found = [dict(row) for row in plain.execute("SELECT * FROM call_log")]
    plain.close()
    return found


@pytest.mark.parametrize("which", OWN, ids=lambda one: one.name)
async def test_every_ending_is_the_right_exception_and_the_right_row(
    bridge: LLMBridge, server: FakeProvider, which: Provider, tmp_path: Path
) -> None:
    for fault, (raised, _, reason) in ENDINGS.items():
        server.fault = fault
        request = LLMRequest(
            model=f"{which.name}:{which.model}",
            messages=[Message(role="user", content=PROMPT)],
            timeout=0.5 if fault == "hang" else 20.0,
            metadata={"fault": fault},
        )
        if raised is None:
            response = await bridge.chat(request)
            assert (response.content, response.provider) == (f"echo: {PROMPT}", which.name)
            assert response.cost == (None if reason else by_hand(which, fault)), fault
        else:
            with pytest.raises(LLMBridgeError) as caught:
                await bridge.chat(request)
            assert type(caught.value).__name__ == raised, fault
    await bridge.close()

    found = {row["metadata"]: row for row in rows(tmp_path / "calls.db")}
    assert len(found) == len(ENDINGS)
    for fault, (raised, status, reason) in ENDINGS.items():
        row = found[f'{{"fault":"{fault}"}}']
        assert (row["status"], row["cost_reason"], row["error_type"]) == (status, reason, raised), fault
        assert (row["provider"], row["model_name"]) == (which.name, which.model)
        cost = None if raised or reason else by_hand(which, fault)
        assert (row["estimated_cost"] and Decimal(row["estimated_cost"])) == cost
        assert (row["total_tokens"] is None) == (raised is not None or fault == "no_usage")
    rich = found['{"fault":"rich_usage"}']
    counts = ("prompt_tokens", "completion_tokens", "total_tokens", "cache_read_tokens", "reasoning_tokens")
    assert [rich[name] for name in counts] == [100, 20, 120, 40, 5]
    assert (rich["cache_write_tokens"] or 0, rich["cache_write_1h_tokens"] or 0) == (
        sum(WRITTEN[which.name]),
        WRITTEN[which.name][1],
    )
    assert b"canary" not in b"".join(path.read_bytes() for path in tmp_path.iterdir())


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("which", [one for one in OWN if one.name == "google"], ids=["google"])
async def test_a_prompt_that_is_blocked_costs_what_the_provider_counted_of_it(
    bridge: LLMBridge, server: FakeProvider, which: Provider, tmp_path: Path, streamed: bool
) -> None:
    body = {
        "promptFeedback": {"blockReason": "SAFETY"},
        "usageMetadata": {"promptTokenCount": 12, "totalTokenCount": 12},
    }
    server.events = sse(body)
    server.reply = None if streamed else Reply(body=body)
    request = LLMRequest(model=f"{which.name}:{which.model}", messages=[Message(role="user", content=PROMPT)])
    asked = anext(bridge.stream(request)) if streamed else bridge.chat(request)
    with pytest.raises(ContentFilterError):
        await asked
    await bridge.close()
    [row] = rows(tmp_path / "calls.db")
    assert (row["status"], row["prompt_tokens"], row["completion_tokens"]) == ("error", 12, 0)
    assert (row["usage_source"], Decimal(row["estimated_cost"])) == ("provider", 12 * Decimal("0.3") / 1_000_000)


@pytest.mark.parametrize("which", [one for one in OWN if one.name == "openai"], ids=["openai"])
async def test_an_answer_of_no_use_costs_what_the_provider_counted_of_it(
    bridge: LLMBridge, server: FakeProvider, which: Provider, tmp_path: Path
) -> None:
    server.fault = "no_choices"
    request = LLMRequest(model=f"{which.name}:{which.model}", messages=[Message(role="user", content=PROMPT)])
    with pytest.raises(InvalidResponseError) as caught:
        await bridge.chat(request)
    await bridge.close()
    assert caught.value.usage is not None
    [row] = rows(tmp_path / "calls.db")
    assert (row["status"], row["error_type"], row["usage_source"]) == ("error", "InvalidResponseError", "provider")
    assert Decimal(row["estimated_cost"]) == by_hand(which, "")


@pytest.mark.parametrize("which", [one for one in OWN if one.name == "anthropic"], ids=["anthropic"])
async def test_a_whole_answer_that_breaks_off_leaves_what_was_counted(
    bridge: LLMBridge, server: FakeProvider, which: Provider, tmp_path: Path
) -> None:
    server.fault = "stream_cut"
    long = {"thinking": {"type": "enabled", "budget_tokens": 30_000}}  # which the library streams
    request = LLMRequest(
        model=f"{which.name}:{which.model}", messages=[Message(role="user", content=PROMPT)], extra=long
    )
    with pytest.raises(ProviderUnavailableError):
        await bridge.chat(request)
    await bridge.close()
    [row] = rows(tmp_path / "calls.db")
    assert (row["prompt_tokens"], row["usage_source"]) == (12, "partial")


@pytest.mark.parametrize(
    ("told", "cost"),
    [
        ({"cost": 0.00123}, "0.00123"),
        ({"cost": 0.00005, "is_byok": True, "cost_details": {"upstream_inference_cost": 0.001}}, "0.00105"),
    ],
    ids=["credits", "own key"],
)
async def test_what_a_gateway_says_it_charged_is_what_the_call_cost(
    server: FakeProvider, tmp_path: Path, told: dict[str, Any], cost: str
) -> None:
    body = {"model": "openai/gpt-4o", "messages": [{"role": "user", "content": PROMPT}]}
    made = completion(body)
    [choice] = made["choices"]
    more = {"provider": "Acme", "choices": [{**choice, "native_finish_reason": "stop"}]}
    server.reply = Reply(body={**made, **more, "usage": {**made["usage"], **told}})
    async with (
        httpx2.AsyncClient(transport=_Elsewhere(server.origin)) as client,
        LLMBridge(f"sqlite:///{tmp_path}/calls.db") as opened,
    ):
        opened.register_provider("openrouter", api_key=KEY, http_client=client)
        request = LLMRequest(model="openrouter:openai/gpt-4o", messages=[Message(role="user", content=PROMPT)])
        assert (await opened.chat(request)).cost == Decimal(cost)
    [row] = rows(tmp_path / "calls.db")
    assert (row["cost_source"], Decimal(row["estimated_cost"])) == ("provider", Decimal(cost))


class _Elsewhere(httpx2.AsyncHTTPTransport):
    """Takes what is meant for a provider that has one address to the stand-in."""

    def __init__(self, origin: str) -> None:
        super().__init__()
        self._origin = httpx2.URL(origin)

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        there = {"scheme": self._origin.scheme, "host": self._origin.host, "port": self._origin.port}
        request.url = request.url.copy_with(**there)
        return await super().handle_async_request(request)


#: fault of a stream -> the exception (None: an answer), and the status of the row.
STREAM_ENDINGS: dict[str, tuple[str | None, str]] = {
    "": (None, "success"),
    "rich_usage": (None, "success"),
    "rate_limit": ("RateLimitError", "rate_limited"),
    "stream_cut": ("ProviderUnavailableError", "error"),
    "stream_error": ("ProviderUnavailableError", "error"),
    "stream_hang": ("ProviderTimeoutError", "timeout"),
    "reset_mid": ("ProviderUnavailableError", "error"),
}


@pytest.mark.parametrize("which", OWN, ids=lambda one: one.name)
async def test_every_ending_of_a_stream_is_one_row_with_what_the_provider_had_counted(
    bridge: LLMBridge, server: FakeProvider, which: Provider, tmp_path: Path
) -> None:
    async def consume(request: LLMRequest) -> None:
        async for chunk in bridge.stream(request):
            server.resume.set()
            if chunk.response is not None:
                assert chunk.response.cost == by_hand(which, server.fault)

    for fault, (raised, _) in STREAM_ENDINGS.items():
        server.fault = fault
        server.resume.clear()
        request = LLMRequest(
            model=f"{which.name}:{which.model}",
            messages=[Message(role="user", content=PROMPT)],
            timeout=1.0 if fault == "stream_hang" else 20.0,
            metadata={"fault": fault},
        )
        if raised is None:
            await consume(request)
        else:
            with pytest.raises(LLMBridgeError) as caught:
                await consume(request)
            assert type(caught.value).__name__ == raised, fault
    await bridge.close()

    found = {row["metadata"]: row for row in rows(tmp_path / "calls.db")}
    assert len(found) == len(STREAM_ENDINGS)
    counts_early = which.name in ("anthropic", "google")
    for fault, (raised, status) in STREAM_ENDINGS.items():
        row = found[f'{{"fault":"{fault}"}}']
        assert (row["status"], row["error_type"], row["stream"]) == (status, raised, 1), fault
        if raised is None:
            assert Decimal(row["estimated_cost"]) == by_hand(which, fault)
        elif fault == "rate_limit":
            assert (row["usage_source"], row["cost_reason"]) == ("none", "not_billed")
        elif counts_early:
            assert (row["usage_source"], row["prompt_tokens"]) == ("partial", 12), fault
        else:
            assert (row["usage_source"], row["cost_reason"]) == ("none", "unmeasured_usage"), fault
    assert b"canary" not in b"".join(path.read_bytes() for path in tmp_path.iterdir())
