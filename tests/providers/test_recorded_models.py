"""The model that a response names stands in the record beside the one that was sent, and decides the price."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from decimal import Decimal
from typing import Any

import pytest

from llmbridge import CallRecord, LLMBridge, LLMRequest, Message
from llmbridge.errors import InvalidResponseError

from ..support.fake_provider import FakeProvider, Reply
from ..support.wires import completion
from .conftest import KEY, Provider
from .test_answers import every, only


@pytest.fixture
async def bridge(server: FakeProvider, which: Provider) -> AsyncIterator[LLMBridge]:
    async with LLMBridge("memory://", origin="app", max_retries=0) as opened:
        opened.register_provider(which.name, api_key=KEY, base_url=server.origin + which.suffix)
        yield opened


def ask(model: str) -> LLMRequest:
    return LLMRequest(model=model, messages=[Message(role="user", content="hi")])


async def row(bridge: LLMBridge) -> CallRecord:
    assert bridge.db is not None
    while not (calls := (await bridge.db.find_calls()).calls):  # what was left is recorded a little later
        await asyncio.sleep(0.01)
    (call,) = calls
    return call


@every()
@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])
async def test_three_names_of_a_model_are_recorded(bridge: LLMBridge, which: Provider, streamed: bool) -> None:
    asked = f"{which.name}:{which.model}--length"  # the fake provider names the model that it was asked for
    if streamed:
        async with aclosing(bridge.stream(ask(asked))) as chunks:
            assert [chunk async for chunk in chunks]
    else:
        await bridge.chat(ask(asked))
    call = await row(bridge)
    assert (call.requested_model, call.model_name) == (asked, f"{which.model}--length")
    assert call.response_model == f"{which.model}--length"


def named(model: str, **changes: Any) -> dict[str, Any]:
    """A body of 12 tokens of input and 7 of output that names a model."""
    return {**completion({"model": "x", "messages": []}, text="fine"), "model": model, **changes}


@only("openai")
async def test_the_model_that_answered_decides_the_price(
    bridge: LLMBridge, server: FakeProvider, which: Provider
) -> None:
    server.reply = Reply(body=named("gpt-4o-2024-05-13"))
    response = await bridge.chat(ask("openai:gpt-4o"))
    call = await row(bridge)
    assert (call.model_name, call.response_model) == ("gpt-4o", "gpt-4o-2024-05-13")
    assert response.cost == call.estimated_cost == Decimal("0.000165")  # 12 at 5, 7 at 15
    assert (call.price_version or "").endswith(", entry gpt-4o-2024-05-13")
    assert bridge.db is not None
    (sums,) = await bridge.db.usage(group_by=("model_name", "response_model"), response_model="gpt-4o-2024-05-13")
    assert sums.key == {"model_name": "gpt-4o", "response_model": "gpt-4o-2024-05-13"}


@only("openai")
async def test_a_deployment_is_priced_by_the_model_that_answered(
    bridge: LLMBridge, server: FakeProvider, which: Provider
) -> None:
    usage = {"prompt_tokens": 1_000, "completion_tokens": 100, "total_tokens": 1_100}
    server.reply = Reply(body=named("gpt-4o-mini-2024-07-18", usage=usage))
    bridge.register_provider("azure", api_key=KEY, base_url=f"{server.origin}/openai/v1")
    await bridge.chat(ask("azure:gpt-4"))
    call = await row(bridge)
    assert (call.model_name, call.response_model) == ("gpt-4", "gpt-4o-mini-2024-07-18")
    assert call.estimated_cost == Decimal("0.00021")


@only("anthropic", "google")
async def test_a_stream_that_breaks_off_keeps_the_name(
    bridge: LLMBridge, server: FakeProvider, which: Provider
) -> None:
    async with aclosing(bridge.stream(ask(f"{which.name}:{which.model}"))) as chunks:
        assert (await anext(chunks)).content
    call = await row(bridge)
    assert (call.status, call.usage_source, call.response_model) == ("cancelled", "partial", which.model)


@only("openai")
async def test_an_answer_that_is_refused_keeps_the_name(
    bridge: LLMBridge, server: FakeProvider, which: Provider
) -> None:
    made = named("gpt-4o-2024-05-13")
    made["choices"][0]["message"]["role"] = 7
    server.reply = Reply(body=made)
    with pytest.raises(InvalidResponseError):
        await bridge.chat(ask("openai:gpt-4o"))
    call = await row(bridge)
    assert (call.response_model, call.estimated_cost) == ("gpt-4o-2024-05-13", Decimal("0.000165"))
