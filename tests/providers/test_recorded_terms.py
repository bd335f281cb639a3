"""The terms of the price that an answer tells stand in the record, and the cost is that of these terms."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from decimal import Decimal
from typing import Any

import pytest

from llmbridge import CallRecord, LLMBridge, LLMRequest, Message
from llmbridge.errors import InvalidResponseError, RecordRejectedError

from ..support.fake_provider import FakeProvider, Reply
from ..support.wires import OpenAIWire, Request, completion, sse
from .conftest import KEY, Provider
from .test_answers import every, only

STREAMED = {"include_usage": True}

#: What each provider tells with the fault `terms`, what 12 tokens of input and 7 of output cost, what has no price.
TOLD = {
    "openai": ({"service_tier": "priority"}, "0.00017", None),
    "anthropic": (
        {"service_tier": "standard", "speed": "fast", "inference_geo": "us"},
        "0.00047",
        "inference_geo=us",
    ),
    "google": ({"traffic_type": "ON_DEMAND_PRIORITY"}, "0.0000211", "traffic_type=ON_DEMAND_PRIORITY"),
    "ollama": ({"service_tier": "priority"}, None, None),
    "groq": (None, "0.00001261", None),
    "vllm": ({"service_tier": "priority"}, None, None),
}


@pytest.fixture
async def bridge(server: FakeProvider, which: Provider) -> AsyncIterator[LLMBridge]:
    async with LLMBridge("memory://", origin="app", max_retries=0) as opened:
        opened.register_provider(which.name, api_key=KEY, base_url=server.origin + which.suffix)
        yield opened


def ask(which: Provider, **changes: Any) -> LLMRequest:
    model = f"{which.name}:{which.model}"
    return LLMRequest(**{"model": model, "messages": [Message(role="user", content="hi")], **changes})


async def row(bridge: LLMBridge) -> CallRecord:
    assert bridge.db is not None
    while not (calls := (await bridge.db.find_calls()).calls):  # what was left is recorded a little later
        await asyncio.sleep(0.01)
    (call,) = calls
    return call


@every()
@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])
async def test_a_call_is_priced_on_the_terms_that_its_answer_tells(
    bridge: LLMBridge, server: FakeProvider, which: Provider, streamed: bool
) -> None:
    server.fault = "terms"
    if streamed:
        async with aclosing(bridge.stream(ask(which))) as chunks:
            assert [chunk async for chunk in chunks]
    else:
        await bridge.chat(ask(which))
    call = await row(bridge)
    terms, cost, unpriced = TOLD[which.name]
    assert call.price_context == terms
    assert call.estimated_cost == (None if cost is None else Decimal(cost))
    if cost is not None:
        assert call.price_version is not None
        assert call.price_version.endswith("not priced") == (unpriced is not None)
        assert unpriced is None or f", context {unpriced} not priced" in call.price_version


@only("anthropic")
async def test_a_stream_that_breaks_off_keeps_the_terms(
    bridge: LLMBridge, server: FakeProvider, which: Provider
) -> None:
    server.fault = "terms"
    async with aclosing(bridge.stream(ask(which))) as chunks:
        assert (await anext(chunks)).content
    call = await row(bridge)
    assert (call.status, call.usage_source, call.price_context) == ("cancelled", "partial", TOLD["anthropic"][0])
    assert call.estimated_cost == Decimal("0.00017")  # 12 at 10, and the one that was counted at 50


@only("openai")
async def test_an_answer_that_is_refused_keeps_the_terms(
    bridge: LLMBridge, server: FakeProvider, which: Provider
) -> None:
    made = completion({"model": which.model, "messages": []}, text="fine")
    [choice] = made["choices"]
    choice["message"]["role"] = 7
    server.reply = Reply(body={**made, "usage": OpenAIWire.usages[""], "service_tier": "priority"})
    with pytest.raises(InvalidResponseError):
        await bridge.chat(ask(which))
    call = await row(bridge)
    assert (call.price_context, call.estimated_cost) == ({"service_tier": "priority"}, Decimal("0.00017"))


@only("openai")
async def test_terms_that_no_answer_tells_come_from_the_caller_and_the_configuration(
    bridge: LLMBridge, server: FakeProvider, which: Provider
) -> None:
    bridge.register_provider(
        "openai",
        api_key=KEY,
        base_url=server.url,
        price_context={"processing": "batch", "route": "eu", "service_tier": "flex"},
    )
    server.fault = "terms"
    await bridge.chat(ask(which, price_context={"route": "us", "service_tier": "flex"}))
    call = await row(bridge)
    assert call.price_context == {"processing": "batch", "route": "us", "service_tier": "priority"}
    assert "price_context" not in server.requests[0].body


@only("openai")
async def test_the_tier_that_was_asked_for_is_not_the_one_that_is_billed(
    bridge: LLMBridge, server: FakeProvider, which: Provider
) -> None:
    await bridge.chat(ask(which, extra={"service_tier": "priority"}))
    assert server.requests[0].body["service_tier"] == "priority"
    call = await row(bridge)
    assert (call.price_context, call.estimated_cost) == (None, Decimal("0.0001"))


@only("openai")
@pytest.mark.parametrize("tier", [7, "", None, {"name": "priority"}, "x" * 10_000, "half a pair \ud800"])
async def test_terms_of_any_kind_cost_neither_the_answer_nor_the_row(
    bridge: LLMBridge, server: FakeProvider, which: Provider, tier: Any
) -> None:
    made = completion({"model": which.model, "messages": []}, text="fine")
    server.reply = Reply(body={**made, "service_tier": tier})
    await bridge.chat(ask(which))
    call = await row(bridge)
    assert call.estimated_cost == Decimal("0.0001")


@only("openai")
@pytest.mark.parametrize("tier", [7, "", None, {"name": "priority"}, "x" * 10_000, "half a pair \ud800"])
async def test_terms_of_any_kind_cost_no_stream(
    bridge: LLMBridge, server: FakeProvider, which: Provider, tier: Any
) -> None:
    asked = Request("/v1/chat/completions", {}, {"model": which.model, "messages": [], "stream_options": STREAMED})
    rows = [json.loads(event.decode().removeprefix("data: ")) for event in OpenAIWire().events(asked)[:-1]]
    server.events = [*sse(*({**chunk, "service_tier": tier} for chunk in rows)), b"data: [DONE]\n\n"]
    async with aclosing(bridge.stream(ask(which))) as chunks:
        assert [chunk async for chunk in chunks][-1].response is not None
    assert (await row(bridge)).estimated_cost == Decimal("0.0001")


@only("openai")
async def test_terms_that_cannot_be_recorded_are_refused_before_the_call(
    bridge: LLMBridge, server: FakeProvider, which: Provider
) -> None:
    with pytest.raises(RecordRejectedError, match="price_context takes"):
        await bridge.chat(ask(which, price_context={"route": "x" * 5_000}))
    assert not server.requests
