"""Streams: chunks are passed on at once, and the call is recorded once, however the stream ends."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from decimal import Decimal
from typing import Any

import pytest

from llmbridge import LLMBridge, LLMChunk, LLMRequest, Message
from llmbridge.errors import (
    InvalidResponseError,
    ModelNotFoundError,
    ProviderTimeoutError,
    ProviderUnavailableError,
    RecordRejectedError,
)
from llmbridge.providers.base import BaseLLMProvider, Completion, Delta
from llmbridge.schemas import CallRecord, TokenUsage

INPUT = TokenUsage(prompt_tokens=1000)
SO_FAR = TokenUsage(prompt_tokens=1000, completion_tokens=10)
WHOLE = TokenUsage(prompt_tokens=1000, completion_tokens=100)
DONE = Completion("Hello", "gpt-4o-mini-2024-07-18", usage=WHOLE, finish_reason="stop", response_id="r-1")

#: A step of a vendor's: something to yield, to raise, or to wait for.
Step = Delta | Exception | asyncio.Event | Any


class Vendor(BaseLLMProvider):
    """A vendor that streams the steps it is given."""

    def __init__(self, *steps: Step) -> None:
        super().__init__()
        self.steps = steps
        self.begun = asyncio.Event()
        self.ended = asyncio.Event()

    async def complete(self, request: LLMRequest, model: str, *, timeout: float) -> Completion:
        raise AssertionError("the bridge did not stream")

    async def stream(self, request: LLMRequest, model: str, *, timeout: float) -> AsyncIterator[Delta]:
        self.begun.set()
        try:
            for step in self.steps:
                if isinstance(step, asyncio.Event):
                    await step.wait()
                elif isinstance(step, Exception):
                    raise step
                else:
                    yield step
        finally:
            self.ended.set()


@pytest.fixture
async def bridge() -> AsyncIterator[LLMBridge]:
    async with LLMBridge("memory://", origin="app", max_retries=0) as opened:
        yield opened


def serve(bridge: LLMBridge, *steps: Step) -> Vendor:
    vendor = Vendor(*steps)
    bridge.register_provider("acme", vendor, priced_as="openai")
    return vendor


def ask(**changes: Any) -> LLMRequest:
    return LLMRequest(**{"model": "acme:gpt-4o-mini", "messages": [Message(role="user", content="Hi")], **changes})


async def only_call(bridge: LLMBridge) -> CallRecord:
    while not (calls := await bridge.list_recent_calls()):
        await asyncio.sleep(0)
    (call,) = calls
    return call


async def recorded_once(bridge: LLMBridge) -> None:
    """Assert that nothing else was given to the store, which would take a second record of an attempt for a copy."""
    await bridge.close()
    counted = bridge.metrics()
    assert (counted["calls_committed"], counted["calls_duplicate"]) == (1, 0)


async def read(bridge: LLMBridge, **changes: Any) -> list[LLMChunk]:
    return [chunk async for chunk in bridge.stream(ask(**changes), id_at_origin="user-1")]


async def test_the_text_comes_as_it_is_made_and_the_cost_at_its_end(bridge: LLMBridge) -> None:
    serve(bridge, Delta(usage=INPUT), Delta("Hel"), Delta("lo", SO_FAR), Delta("", WHOLE, DONE))
    *pieces, last = await read(bridge, metadata={"team": "search"})
    assert [(piece.content, piece.response) for piece in pieces] == [("Hel", None), ("lo", None)]
    response = last.response
    assert response is not None
    assert (last.content, response.content, response.cost) == ("", "Hello", Decimal("0.00021"))
    assert response.usage == {
        "prompt_tokens": 1000,
        "completion_tokens": 100,
        "total_tokens": 1100,
        "cost": Decimal("0.00021"),
    }
    call = await only_call(bridge)
    assert (call.id, response.record_status) == (response.call_id, "committed")
    assert (call.stream, call.status, call.usage_source, call.cost_source) == (True, "success", "provider", "prices")
    assert (call.id_at_origin, call.finish_reason, call.response_id) == ("user-1", "stop", "r-1")
    assert call.metadata == {"team": "search"}
    assert call.response_time_ms is not None
    assert call.time_to_first_token_ms is not None
    assert call.time_to_first_token_ms <= call.response_time_ms


async def test_a_piece_is_not_held_back(bridge: LLMBridge) -> None:
    more = asyncio.Event()
    serve(bridge, Delta("Hel"), more, Delta("lo", WHOLE, DONE))
    stream = bridge.stream(ask())
    assert (await anext(stream)).content == "Hel"
    more.set()
    assert [chunk.content async for chunk in stream] == ["lo", ""]


async def test_a_provider_that_cannot_stream_answers_in_one_piece(bridge: LLMBridge) -> None:
    said = [chunk async for chunk in bridge.stream(ask(model="echo:demo"))]
    assert [chunk.content for chunk in said] == ["echo: Hi", ""]
    assert said[-1].response is not None
    assert (await only_call(bridge)).cost_reason == "synthetic"


async def test_calls_of_tools_come_with_the_response(bridge: LLMBridge) -> None:
    called = [{"id": "1", "type": "function", "function": {"name": "look_up", "arguments": "{}"}}]
    serve(bridge, Delta("", WHOLE, Completion("", "m", tool_calls=called, usage=WHOLE)))
    (last,) = await read(bridge)
    assert last.response is not None
    assert last.response.tool_calls == called
    assert (await only_call(bridge)).time_to_first_token_ms is None


async def leave_by_break(bridge: LLMBridge) -> None:
    async for _ in bridge.stream(ask()):
        break


async def leave_by_closing(bridge: LLMBridge) -> None:
    async with aclosing(bridge.stream(ask())) as stream:
        await anext(stream)


async def leave_by_forgetting(bridge: LLMBridge) -> None:
    stream = bridge.stream(ask())
    await anext(stream)
    del stream
    gc.collect()


async def leave_by_error(bridge: LLMBridge) -> None:
    with pytest.raises(ZeroDivisionError):  # noqa: PT012
        async for _ in bridge.stream(ask()):
            raise ZeroDivisionError


async def leave_by_cancellation(bridge: LLMBridge) -> None:
    waiting = asyncio.Event()

    async def consume() -> None:
        async for _ in bridge.stream(ask()):
            waiting.set()

    consuming = asyncio.create_task(consume())
    await waiting.wait()
    await asyncio.sleep(0)
    consuming.cancel()
    with pytest.raises(asyncio.CancelledError):
        await consuming


@pytest.mark.parametrize(
    "leave", [leave_by_break, leave_by_closing, leave_by_forgetting, leave_by_error, leave_by_cancellation]
)
@pytest.mark.parametrize(
    ("counted", "source", "cost", "reason"),
    [
        (None, "none", None, "unmeasured_usage"),
        (INPUT, "partial", None, "unmeasured_usage"),
        (SO_FAR, "partial", Decimal("0.000156"), None),
    ],
    ids=["nothing", "input", "both"],
)
async def test_a_consumer_who_leaves_early_leaves_what_was_counted_until_then(
    bridge: LLMBridge,
    leave: Callable[[LLMBridge], Any],
    counted: TokenUsage | None,
    source: str,
    cost: Decimal | None,
    reason: str | None,
) -> None:
    vendor = serve(bridge, Delta("Hel", counted), asyncio.Event())
    await leave(bridge)
    call = await only_call(bridge)
    assert (call.status, call.error_type, call.usage_source) == ("cancelled", None, source)
    assert (call.estimated_cost, call.cost_reason) == (cost, reason)
    assert call.prompt_tokens == (counted.prompt_tokens if counted else None)
    assert call.completion_tokens == (counted.completion_tokens if counted else None)
    assert call.time_to_first_token_ms is not None
    await vendor.ended.wait()
    await recorded_once(bridge)


async def test_a_consumer_who_leaves_at_the_last_piece_has_had_the_answer(bridge: LLMBridge) -> None:
    serve(bridge, Delta("Hello", WHOLE, DONE))
    await leave_by_closing(bridge)
    call = await only_call(bridge)
    assert (call.status, call.usage_source, call.estimated_cost) == ("success", "provider", Decimal("0.00021"))
    await recorded_once(bridge)


async def test_a_consumer_who_is_cancelled_before_the_first_text_leaves_a_call(bridge: LLMBridge) -> None:
    vendor = serve(bridge, Delta(usage=INPUT), asyncio.Event())
    reading = asyncio.create_task(read(bridge))
    await vendor.begun.wait()
    await asyncio.sleep(0)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    call = await only_call(bridge)
    assert (call.status, call.prompt_tokens, call.usage_source) == ("cancelled", 1000, "partial")
    assert call.time_to_first_token_ms is None
    assert vendor.ended.is_set()


@pytest.mark.parametrize(
    ("breaks", "raised", "status"),
    [
        (ProviderUnavailableError("the line went dead"), ProviderUnavailableError, "error"),
        (ProviderUnavailableError("overloaded", status_code=529), ProviderUnavailableError, "error"),
        (ProviderTimeoutError("too slow"), ProviderTimeoutError, "timeout"),
        (ZeroDivisionError("may quote the prompt"), ZeroDivisionError, "error"),
        ({"content": "x"}, InvalidResponseError, "error"),
    ],
    ids=["connection", "vendor", "timeout", "foreign", "no delta"],
)
async def test_what_breaks_half_way_is_counted_as_far_as_it_is_known(
    bridge: LLMBridge, breaks: Step, raised: type[Exception], status: str
) -> None:
    serve(bridge, Delta("Hel", SO_FAR), Delta("lo"), breaks)
    with pytest.raises(raised):
        await read(bridge)
    call = await only_call(bridge)
    assert (call.status, call.error_type, call.usage_source) == (status, raised.__name__, "partial")
    assert (call.total_tokens, call.estimated_cost) == (1010, Decimal("0.000156"))
    assert "quote the prompt" not in repr(call)


@pytest.mark.parametrize("counted", [None, INPUT, TokenUsage(cache_read_tokens=3)], ids=["nothing", "input", "cache"])
async def test_a_cut_stream_without_usage_may_have_been_billed(bridge: LLMBridge, counted: TokenUsage | None) -> None:
    serve(bridge, Delta("Hel", counted), ProviderUnavailableError("overloaded", status_code=529))
    with pytest.raises(ProviderUnavailableError):
        await read(bridge)
    call = await only_call(bridge)
    assert (call.estimated_cost, call.cost_reason) == (None, "unmeasured_usage")


async def test_a_stream_without_an_end_is_an_invalid_response(bridge: LLMBridge) -> None:
    serve(bridge, Delta("Hel"))
    with pytest.raises(InvalidResponseError, match="without a completion"):
        await read(bridge)
    assert (await only_call(bridge)).error_type == "InvalidResponseError"


@pytest.mark.parametrize("first", [(), (Delta("Hel"),)], ids=["before the first text", "between two"])
async def test_the_timeout_is_for_each_step(bridge: LLMBridge, first: tuple[Delta, ...]) -> None:
    vendor = serve(bridge, *first, asyncio.Event())
    with pytest.raises(ProviderTimeoutError, match=r"0\.05 s"):
        await read(bridge, timeout=0.05)
    assert (await only_call(bridge)).status == "timeout"
    assert vendor.ended.is_set()


async def test_nothing_is_sent_before_the_first_step(bridge: LLMBridge) -> None:
    vendor = serve(bridge, Delta("Hello", WHOLE, DONE))
    stream = bridge.stream(ask())
    await asyncio.sleep(0)
    assert not vendor.begun.is_set()
    await stream.aclose()
    assert await bridge.list_recent_calls() == []


async def test_what_cannot_be_sent_is_told_at_once(bridge: LLMBridge) -> None:
    serve(bridge, Delta("Hello", WHOLE, DONE))
    with pytest.raises(RecordRejectedError):
        bridge.stream(ask(metadata={"x": "y" * 9000}))
    with pytest.raises(ModelNotFoundError):
        bridge.stream(ask(model="nobody-knows-this"))
    with pytest.raises(TypeError, match="LLMRequest"):
        bridge.stream("Hi")  # type: ignore[arg-type]


async def test_without_a_database_a_stream_is_priced_all_the_same() -> None:
    async with LLMBridge() as bridge:
        serve(bridge, Delta("Hello", WHOLE, DONE))
        response = (await read(bridge))[-1].response
        assert response is not None
        assert (response.cost, response.record_status) == (Decimal("0.00021"), None)


async def test_a_provider_that_cannot_be_closed_harms_nobody(
    bridge: LLMBridge, caplog: pytest.LogCaptureFixture
) -> None:
    class Stubborn(Vendor):
        async def stream(self, request: LLMRequest, model: str, *, timeout: float) -> AsyncIterator[Delta]:
            try:
                yield Delta("Hel")
            finally:
                raise OSError("secret")

    bridge.register_provider("acme", Stubborn())
    with caplog.at_level("DEBUG"):
        await leave_by_closing(bridge)
    assert (await only_call(bridge)).status == "cancelled"
    assert "OSError" in caplog.text
    assert "secret" not in caplog.text


async def test_closing_the_bridge_waits_for_a_stream() -> None:
    more = asyncio.Event()
    bridge = LLMBridge("memory://closing-waits-for-streams", max_retries=0)
    serve(bridge, Delta("Hel"), more, Delta("lo", WHOLE, DONE))
    stream = bridge.stream(ask())
    await anext(stream)
    closing = asyncio.create_task(bridge.close())
    await asyncio.sleep(0)
    assert not closing.done()
    more.set()
    *_, last = [chunk async for chunk in stream]
    await closing
    assert last.response is not None
    assert last.response.record_status == "committed"
