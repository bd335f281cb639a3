"""Transient errors are retried, fallback models are called, and every attempt is a row."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from decimal import Decimal
from functools import partial
from itertools import pairwise
from typing import Any

import pytest

from llmbridge import LLMBridge, LLMRequest, Message
from llmbridge.errors import (
    AuthenticationError,
    ContentFilterError,
    ContextLengthError,
    InvalidRequestError,
    InvalidResponseError,
    ModelNotFoundError,
    ProviderNotFoundError,
    ProviderTimeoutError,
    ProviderUnavailableError,
    RateLimitError,
    RecordRejectedError,
)
from llmbridge.providers.base import BaseLLMProvider, Completion, Delta
from llmbridge.schemas import CallRecord, TokenUsage

USAGE = TokenUsage(prompt_tokens=1000, completion_tokens=100)
SOON = 0.001


class Vendor(BaseLLMProvider):
    """A vendor that plays its outcomes in turn, the last one for ever. None is a call that hangs."""

    def __init__(self, *outcomes: Exception | str | None) -> None:
        super().__init__()
        self.outcomes = list(outcomes)
        self.models: list[str] = []
        self.asked = asyncio.Event()
        self.timeouts: list[float] = []

    async def complete(self, request: LLMRequest, model: str, *, timeout: float) -> Completion:
        self.models.append(model)
        self.timeouts.append(timeout)
        self.asked.set()
        outcome = self.outcomes.pop(0) if len(self.outcomes) > 1 else self.outcomes[0]
        if outcome is None:
            await asyncio.Event().wait()
        if isinstance(outcome, Exception):
            raise outcome
        return Completion(content=str(outcome), model=model, usage=USAGE)

    async def stream(self, request: LLMRequest, model: str, *, timeout: float) -> AsyncIterator[Delta]:
        completion = await self.complete(request, model, timeout=timeout)
        yield Delta("Hel")
        if completion.content == "broken":
            raise ProviderUnavailableError("the line went dead")
        yield Delta("lo", completion.usage, completion)


@pytest.fixture
async def bridge() -> AsyncIterator[LLMBridge]:
    async with LLMBridge("memory://", origin="app") as opened:
        yield opened


def serve(bridge: LLMBridge, *outcomes: Exception | str | None, name: str = "acme") -> Vendor:
    vendor = Vendor(*outcomes)
    bridge.register_provider(name, vendor, priced_as="openai")
    return vendor


def ask(model: str | list[str] = "acme:gpt-4o-mini", **changes: Any) -> LLMRequest:
    return LLMRequest(**{"model": model, "messages": [Message(role="user", content="Hi")], **changes})


def limited(wait: float | None = SOON) -> RateLimitError:
    return RateLimitError("slow down", retry_after=wait, status_code=429)


async def calls(bridge: LLMBridge) -> list[CallRecord]:
    return sorted(await bridge.list_recent_calls(), key=lambda call: call.attempt)


async def test_every_attempt_is_a_row_and_only_the_answered_one_is_priced(bridge: LLMBridge) -> None:
    serve(bridge, limited(), limited(), "Hello")
    response = await bridge.chat(ask(metadata={"team": "search"}), id_at_origin="user-1")
    first, second, third = rows = await calls(bridge)
    assert [row.attempt for row in rows] == [1, 2, 3]
    assert [row.status for row in rows] == ["rate_limited", "rate_limited", "success"]
    assert [row.estimated_cost for row in rows] == [None, None, Decimal("0.00021")]
    assert [row.cost_reason for row in rows] == ["not_billed", "not_billed", None]
    assert {row.group_id for row in rows} == {first.id}
    assert len({row.id for row in rows}) == 3
    assert response.call_id == third.id
    assert {(row.id_at_origin, row.requested_model) for row in rows} == {("user-1", "acme:gpt-4o-mini")}
    assert second.metadata == {"team": "search"}
    assert all(earlier.called_at <= later.called_at for earlier, later in pairwise(rows))
    (total,) = await bridge.usage()
    assert (total.calls, total.requests, total.unpriced_calls) == (3, 1, 0)


async def test_the_last_error_is_raised_when_the_retries_are_used_up(bridge: LLMBridge) -> None:
    errors = [limited(), limited(), limited()]
    vendor = serve(bridge, *errors)
    with pytest.raises(RateLimitError) as raised:
        await bridge.chat(ask())
    assert raised.value is errors[-1]
    assert len(vendor.models) == 3


@pytest.mark.parametrize("most", [0, 1, 3])
async def test_the_number_of_retries_is_the_bridge_s(most: int) -> None:
    async with LLMBridge(max_retries=most) as bridge:
        vendor = serve(bridge, limited())
        with pytest.raises(RateLimitError):
            await bridge.chat(ask())
        assert len(vendor.models) == most + 1


def test_there_are_no_fewer_than_no_retries() -> None:
    with pytest.raises(ValueError, match="max_retries"):
        LLMBridge(max_retries=-1)


PASSING = [
    ProviderUnavailableError("broken", status_code=500),
    ProviderUnavailableError("busy", status_code=529),
    ProviderUnavailableError("cannot be reached"),
    ProviderTimeoutError("too slow"),
    InvalidRequestError("a conflict", status_code=409),
]
LASTING = [
    RateLimitError("no credit", status_code=402),
    RateLimitError("no credit", status_code=400),
    ProviderUnavailableError("redirected", status_code=302),
    AuthenticationError("no key", status_code=401),
    ContextLengthError("too long"),
    ContentFilterError("not this"),
    InvalidRequestError("no such thing", status_code=400),
    InvalidResponseError("garbage"),
    ModelNotFoundError("no such model"),
    ZeroDivisionError("a bug"),
]


def label(error: Exception) -> str:
    return f"{type(error).__name__}-{getattr(error, 'status_code', None)}"


@pytest.mark.parametrize("error", PASSING, ids=label)
async def test_what_passes_is_tried_again(bridge: LLMBridge, error: Exception, no_pause: None) -> None:
    vendor = serve(bridge, error, "Hello")
    assert (await bridge.chat(ask())).content == "Hello"
    assert len(vendor.models) == 2


@pytest.mark.parametrize("error", LASTING, ids=label)
async def test_what_does_not_pass_is_not_tried_again(bridge: LLMBridge, error: Exception) -> None:
    vendor = serve(bridge, error, "Hello")
    with pytest.raises(type(error)):
        await bridge.chat(ask())
    assert len(vendor.models) == 1
    assert len(await calls(bridge)) == 1


@pytest.fixture
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmbridge._calls.retry._FIRST_PAUSE", SOON)


async def test_a_timeout_of_ours_is_tried_again_and_each_attempt_has_the_whole_of_it(
    bridge: LLMBridge, no_pause: None
) -> None:
    vendor = serve(bridge, None, "Hello")
    await bridge.chat(ask(timeout=0.1))
    assert [row.status for row in await calls(bridge)] == ["timeout", "success"]
    assert vendor.timeouts == [0.1, 0.1]


async def test_a_wait_that_would_outlast_the_total_is_not_begun() -> None:
    async with LLMBridge(total_timeout=60, timeout=5) as bridge:
        vendor = serve(bridge, limited(wait=61), "Hello")
        with pytest.raises(RateLimitError):
            await bridge.chat(ask())
        assert len(vendor.models) == 1


async def test_the_last_attempt_gets_what_is_left_of_the_total() -> None:
    async with LLMBridge(total_timeout=0.5, timeout=0.4) as bridge:
        vendor = serve(bridge, None, name="slow")
        quick = serve(bridge, "Hello")
        assert (await bridge.chat(ask(["slow:m", "acme:m"]))).content == "Hello"
        assert vendor.timeouts == [0.4]
        assert quick.timeouts[0] < 0.2


async def test_no_other_model_is_asked_when_the_total_is_over() -> None:
    async with LLMBridge(total_timeout=0.1, timeout=0.1) as bridge:
        serve(bridge, None, name="slow")
        other = serve(bridge, "Hello")
        with pytest.raises(ProviderTimeoutError, match="slow"):
            await bridge.chat(ask(["slow:m", "acme:m"]))
        assert other.models == []


async def test_a_request_s_own_timeout_is_not_cut_by_the_total() -> None:
    async with LLMBridge(total_timeout=1) as bridge:
        vendor = serve(bridge, "Hello")
        await bridge.chat(ask(timeout=600))
        assert vendor.timeouts == [pytest.approx(600)]


@pytest.mark.parametrize(
    "error",
    [partial(RateLimitError, "slow down"), partial(ProviderUnavailableError, "overloaded", status_code=529)],
    ids=["429", "529"],
)
async def test_the_provider_s_wait_is_kept(
    bridge: LLMBridge, monkeypatch: pytest.MonkeyPatch, error: Callable[..., Exception]
) -> None:
    pauses: list[float] = []
    sleep = asyncio.sleep

    async def note(seconds: float) -> None:
        pauses.append(seconds)
        await sleep(0)

    serve(bridge, error(retry_after=7.5), error(), "Hello")
    monkeypatch.setattr("llmbridge._calls.retry.asyncio.sleep", note)
    await bridge.chat(ask())
    asked, own = pauses
    assert asked == 7.5
    assert 0.75 <= own <= 1.0


async def test_a_caller_who_leaves_in_a_pause_leaves_the_attempts_that_were_made(bridge: LLMBridge) -> None:
    vendor = serve(bridge, limited(wait=60))
    asking = asyncio.create_task(bridge.chat(ask()))
    await vendor.asked.wait()
    while not await calls(bridge):
        await asyncio.sleep(0)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    (call,) = await calls(bridge)
    assert (call.status, call.attempt) == ("rate_limited", 1)


async def test_the_next_model_is_asked_when_the_retries_of_one_are_used_up(bridge: LLMBridge) -> None:
    first, second = serve(bridge, limited()), serve(bridge, limited(), "Hello", name="backup")
    response = await bridge.chat(ask(["acme:gpt-4o", "backup:gpt-4o-mini"]))
    assert (response.content, response.provider) == ("Hello", "backup")
    assert (len(first.models), len(second.models)) == (3, 2)
    rows = await calls(bridge)
    assert [(row.attempt, row.provider, row.model_name, row.requested_model, row.status) for row in rows] == [
        (1, "acme", "gpt-4o", "acme:gpt-4o", "rate_limited"),
        (2, "acme", "gpt-4o", "acme:gpt-4o", "rate_limited"),
        (3, "acme", "gpt-4o", "acme:gpt-4o", "rate_limited"),
        (4, "backup", "gpt-4o-mini", "backup:gpt-4o-mini", "rate_limited"),
        (5, "backup", "gpt-4o-mini", "backup:gpt-4o-mini", "success"),
    ]
    assert len({row.group_id for row in rows}) == 1
    (total,) = await bridge.usage()
    assert (total.calls, total.requests) == (5, 1)


@pytest.mark.parametrize(
    "error",
    [error for error in LASTING if type(error) not in (InvalidRequestError, ZeroDivisionError)],
    ids=label,
)
async def test_the_next_model_is_asked_at_once_where_it_may_do_better(bridge: LLMBridge, error: Exception) -> None:
    first, _ = serve(bridge, error), serve(bridge, "Hello", name="backup")
    assert (await bridge.chat(ask(["acme:m", "backup:m"]))).content == "Hello"
    assert len(first.models) == 1


@pytest.mark.parametrize("error", [InvalidRequestError("no such thing"), ZeroDivisionError("a bug")], ids=label)
async def test_a_wrong_request_is_told_and_not_sent_elsewhere(bridge: LLMBridge, error: Exception) -> None:
    _, second = serve(bridge, error), serve(bridge, "Hello", name="backup")
    with pytest.raises(type(error)):
        await bridge.chat(ask(["acme:m", "backup:m"]))
    assert second.models == []


async def test_the_last_model_s_error_is_raised_alone(bridge: LLMBridge) -> None:
    serve(bridge, AuthenticationError("no key"))
    serve(bridge, ContentFilterError("not this"), name="backup")
    with pytest.raises(ContentFilterError) as raised:
        await bridge.chat(ask(["acme:m", "backup:m"]))
    assert raised.value.__context__ is None


@pytest.mark.parametrize(
    ("models", "error"),
    [
        ([], ModelNotFoundError),
        (["acme:m", "nobody:m"], ProviderNotFoundError),
        (["acme:m", "nobody-knows-this"], ModelNotFoundError),
        (["acme:m", "acme:" + "m" * 256], RecordRejectedError),
    ],
)
async def test_all_models_are_checked_before_the_first_is_asked(
    bridge: LLMBridge, models: list[str], error: type[Exception]
) -> None:
    vendor = serve(bridge, "Hello")
    with pytest.raises(error):
        await bridge.chat(ask(models))
    assert vendor.models == []


async def test_a_stream_is_tried_again_until_its_first_text(bridge: LLMBridge) -> None:
    serve(bridge, limited(), limited(), limited())
    serve(bridge, limited(), "Hello", name="backup")
    said = [chunk.content async for chunk in bridge.stream(ask(["acme:m", "backup:m"]))]
    assert said == ["Hel", "lo", ""]
    rows = await calls(bridge)
    assert [(row.attempt, row.status, row.stream) for row in rows] == [
        (1, "rate_limited", True),
        (2, "rate_limited", True),
        (3, "rate_limited", True),
        (4, "rate_limited", True),
        (5, "success", True),
    ]


async def test_a_stream_is_not_tried_again_after_its_first_text(bridge: LLMBridge) -> None:
    vendor, other = serve(bridge, "broken"), serve(bridge, "Hello", name="backup")
    said = []
    with pytest.raises(ProviderUnavailableError):  # noqa: PT012
        async for chunk in bridge.stream(ask(["acme:m", "backup:m"])):
            said.append(chunk.content)  # noqa: PERF401
    assert said == ["Hel"]
    assert (len(vendor.models), len(other.models)) == (1, 0)
    (row,) = await calls(bridge)
    assert (row.status, row.cost_reason) == ("error", "unmeasured_usage")
