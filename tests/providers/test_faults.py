"""Each kind of failure of a provider raises one kind of exception, also in a stream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest

from llmbridge.errors import (
    AuthenticationError,
    ContentFilterError,
    ContextLengthError,
    InvalidRequestError,
    InvalidResponseError,
    LLMBridgeError,
    ModelNotFoundError,
    ProviderError,
    ProviderTimeoutError,
    ProviderUnavailableError,
    RateLimitError,
)
from llmbridge.providers import BaseLLMProvider, Delta
from llmbridge.schemas import LLMRequest, Message

from ..support.clock import pass_time_until_done
from ..support.fake_provider import FakeProvider
from .conftest import OWN, PROVIDERS, Provider

HI = LLMRequest(model="m", messages=[Message(role="user", content="tell me of the lake")])

#: fault -> what is raised, and the status of the answer where there was one.
REFUSALS: dict[str, tuple[type[LLMBridgeError], int | None]] = {
    "rate_limit": (RateLimitError, 429),
    "quota": (RateLimitError, 429),
    "auth": (AuthenticationError, 401),
    "forbidden": (AuthenticationError, 403),
    "not_found": (ModelNotFoundError, None),
    "bad_request": (InvalidRequestError, 400),
    "context_length": (ContextLengthError, 400),
    "content_filter": (ContentFilterError, 400),
    "too_large": (InvalidRequestError, 413),
    "server_error": (ProviderUnavailableError, 500),
    "html502": (ProviderUnavailableError, 502),
    "unavailable": (ProviderUnavailableError, 503),
    "overloaded": (ProviderUnavailableError, 529),
    "reset": (ProviderUnavailableError, None),
}
NO_ANSWERS = ("malformed", "empty", "html200", "wrong_shape", "silent")


#: Seconds in which anything happens that is to happen. What a test has to wait for it to be over, the clock shortens.
LONG = 60.0


async def drain(deltas: AsyncIterator[Delta], into: list[Delta], server: FakeProvider) -> None:
    async for delta in deltas:
        into.append(delta)
        server.resume.set()


def text(deltas: list[Delta]) -> str:
    return "".join(delta.content for delta in deltas)


async def ask(provider: BaseLLMProvider, model: str, *, streamed: bool, timeout: float = LONG) -> None:
    if not streamed:
        await provider.complete(HI, model, timeout=timeout)
        return
    async for _ in provider.stream(HI, model, timeout=timeout):
        pass


def every(providers: tuple[Provider, ...]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("which", providers, ids=lambda one: one.name)


@every(PROVIDERS)
@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("fault", REFUSALS)
async def test_a_refusal_is_the_one_exception_for_it_after_a_single_request(
    provider: BaseLLMProvider, server: FakeProvider, which: Provider, fault: str, streamed: bool
) -> None:
    kind, status = REFUSALS[fault]
    model = f"{which.model}--{fault}"
    with pytest.raises(LLMBridgeError) as caught:
        await ask(provider, model, streamed=streamed)
    assert type(caught.value) is kind
    assert len(server.requests) == 1
    if isinstance(caught.value, ProviderError):
        assert (caught.value.provider, caught.value.model) == (which.name, model)
        assert caught.value.status_code in (status, 400 if fault == "quota" else status)
        waits = status in (429, 503, 529) and fault != "quota"
        assert caught.value.retry_after == (3.0 if waits else None)


@every(PROVIDERS)
@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("fault", NO_ANSWERS)
async def test_what_is_no_answer_never_looks_like_one(
    provider: BaseLLMProvider, which: Provider, fault: str, streamed: bool
) -> None:
    with pytest.raises(ProviderError) as caught:
        await ask(provider, f"{which.model}--{fault}", streamed=streamed)
    assert type(caught.value) in (
        (InvalidResponseError, ProviderUnavailableError) if streamed else (InvalidResponseError,)
    )


@every(OWN)
async def test_a_body_that_breaks_off_is_unavailable(provider: BaseLLMProvider, which: Provider) -> None:
    with pytest.raises(ProviderUnavailableError) as caught:
        await provider.complete(HI, f"{which.model}--reset_mid", timeout=LONG)
    assert caught.value.status_code is None


@every(tuple(one for one in OWN if one.name == "anthropic"))
async def test_a_whole_answer_that_the_library_streams_breaks_off_too(
    provider: BaseLLMProvider, server: FakeProvider, which: Provider
) -> None:
    long = HI.model_copy(update={"extra": {"thinking": {"type": "enabled", "budget_tokens": 30_000}}})
    assert (await provider.complete(long, which.model, timeout=LONG)).content == "echo: tell me of the lake"
    assert server.requests[0].wants_stream
    with pytest.raises(ProviderUnavailableError, match="broke off"):
        await provider.complete(long, f"{which.model}--stream_cut", timeout=LONG)


@every(PROVIDERS)
@pytest.mark.parametrize("fault", ["reset_mid", "stream_cut", "stream_error", "stream_garbage", "stream_hang"])
async def test_a_stream_that_breaks_gives_what_came_and_then_raises(
    provider: BaseLLMProvider, server: FakeProvider, which: Provider, fault: str
) -> None:
    came: list[Delta] = []
    await provider.prepare()
    draining = asyncio.create_task(drain(provider.stream(HI, f"{which.model}--{fault}", timeout=LONG), came, server))
    if fault == "stream_hang":
        while not text(came).startswith("echo:"):
            await asyncio.sleep(0.01)
        await pass_time_until_done(draining, LONG)
    with pytest.raises(ProviderError) as caught:
        await draining
    assert text(came).startswith("echo:")
    assert all(delta.completion is None for delta in came)
    expected = {"stream_hang": ProviderTimeoutError, "stream_garbage": InvalidResponseError}
    assert type(caught.value) is expected.get(fault, ProviderUnavailableError)
    assert caught.value.status_code is None


@every(PROVIDERS)
async def test_a_call_without_an_answer_ends_after_its_timeout(
    provider: BaseLLMProvider, server: FakeProvider, which: Provider
) -> None:
    hanging = f"{which.model}--hang"
    for call in (provider.complete(HI, hanging, timeout=LONG), _first(provider, hanging)):
        calling = asyncio.create_task(call)
        assert await asyncio.to_thread(server.arrived.wait, LONG)
        await pass_time_until_done(calling, LONG)
        with pytest.raises(ProviderTimeoutError):
            await calling
        assert await asyncio.to_thread(server.abandoned.wait, LONG)
        server.arrived.clear()
        server.abandoned.clear()


async def _first(provider: BaseLLMProvider, model: str) -> None:
    await anext(aiter(provider.stream(HI, model, timeout=LONG)))


@every(PROVIDERS)
async def test_a_consumer_who_stops_early_leaves_the_connection(
    provider: BaseLLMProvider, server: FakeProvider, which: Provider
) -> None:
    async with aclosing(provider.stream(HI, f"{which.model}--stream_hang", timeout=LONG)) as deltas:  # type: ignore[type-var]
        async for delta in deltas:
            assert delta.content
            break
    assert await asyncio.to_thread(server.abandoned.wait, LONG)


@every(PROVIDERS)
async def test_a_cancelled_consumer_leaves_the_connection(
    provider: BaseLLMProvider, server: FakeProvider, which: Provider
) -> None:
    begun = asyncio.Event()

    async def consume() -> None:
        async for _ in provider.stream(HI, f"{which.model}--stream_hang", timeout=LONG):
            begun.set()

    consuming = asyncio.create_task(consume())
    await begun.wait()
    consuming.cancel()
    with pytest.raises(asyncio.CancelledError):
        await consuming
    assert await asyncio.to_thread(server.abandoned.wait, LONG)
