"""Failures of `openai:`: the exceptions and their attributes, and what they must not contain."""

from __future__ import annotations

import asyncio
import logging
import traceback
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from llmbridge.errors import (
    ContentFilterError,
    ContextLengthError,
    InvalidRequestError,
    InvalidResponseError,
    LLMBridgeError,
    ModelNotFoundError,
    ProviderTimeoutError,
    ProviderUnavailableError,
    RateLimitError,
)
from llmbridge.providers import BaseLLMProvider
from llmbridge.providers.pydantic_ai.plugin import OpenAIProvider
from llmbridge.schemas import LLMRequest, Message

from ..support.fake_provider import FakeProvider, Reply, running
from .conftest import KEY

PROMPT = "the launch code is CANARY-0815 and nobody may read it"
REQUEST = LLMRequest(
    model="m",
    messages=[
        Message(role="system", content="short"),
        Message(role="user", content=PROMPT),
        Message(
            role="assistant", tool_calls=[{"id": "a", "name": "look_up", "arguments": {"name": "CANARY-4242 Ltd"}}]
        ),
        Message(role="tool", tool_call_id="a", content="nothing"),
    ],
    tools=[{"name": "look_up", "description": "Finds CANARY-1212", "parameters": {"title": "canary_schema"}}],
    stop=["canary_stop"],
)

FAULTS = (
    "rate_limit",
    "quota",
    "auth",
    "forbidden",
    "not_found",
    "bad_request",
    "context_length",
    "content_filter",
    "too_large",
    "server_error",
    "html502",
    "unavailable",
    "overloaded",
    "html200",
    "malformed",
    "empty",
    "wrong_shape",
    "no_choices",
    "silent",
    "hang",
    "reset",
    "reset_mid",
)


async def failure_of(provider: BaseLLMProvider, model: str = "gpt-4o", timeout: float = 20.0) -> LLMBridgeError:
    with pytest.raises(LLMBridgeError) as caught:
        await provider.complete(REQUEST, model, timeout=timeout)
    return caught.value


@pytest.fixture
async def opened(openai: BaseLLMProvider, server: FakeProvider) -> BaseLLMProvider:
    """The provider after a first call, so that a short timeout is not spent on a connection."""
    await openai.complete(REQUEST, "gpt-4o", timeout=20.0)
    server.requests.clear()
    server.arrived.clear()
    return openai


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (Reply(402, {"error": {"message": "Insufficient balance"}}), RateLimitError),
        (Reply(404, {"detail": "Not Found"}), InvalidRequestError),
        (Reply(404, {"error": {"message": 'model "llama9" not found, try pulling it first'}}), ModelNotFoundError),
        (Reply(301, b"", {"Location": "/elsewhere"}), ProviderUnavailableError),
        (Reply(304, b""), ProviderUnavailableError),
        (Reply(408, {"error": {"message": "Request timed out"}}), ProviderTimeoutError),
        (Reply(422, {"detail": [{"msg": "field required"}]}), InvalidRequestError),
        (Reply(400, b"plain words", content_type="text/plain"), InvalidRequestError),
        (Reply(400, {"error": {"message": "no", "code": "content_filter"}}), ContentFilterError),
        (Reply(400, {"error": {"message": "the request exceeds the available context size"}}), ContextLengthError),
        (Reply(400, {"error": "the input length exceeds the context length"}), ContextLengthError),
        (Reply(500, b""), ProviderUnavailableError),
        (Reply(500, []), ProviderUnavailableError),
        (Reply(200, []), InvalidResponseError),
        (Reply(200, None), InvalidResponseError),
        (Reply(200, "text"), InvalidResponseError),
        (Reply(200, {"choices": [{}]}), InvalidResponseError),
        (Reply(200, {"choices": [{"message": {"content": 42}}]}), InvalidResponseError),
        (Reply(200, {"error": {"message": "rate limited inside a 200"}}), InvalidResponseError),
        (Reply(200, b"\x1f\x8b broken", {"Content-Encoding": "gzip"}), InvalidResponseError),
        (Reply(200, b"\xff\xfe\xfa"), InvalidResponseError),
    ],
)
async def test_other_servers_fail_in_other_ways(
    openai: BaseLLMProvider, server: FakeProvider, reply: Reply, kind: type[LLMBridgeError]
) -> None:
    server.reply = reply
    assert type(await failure_of(openai)) is kind
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "7"}, 7.0),
        ({"Retry-After": "1.5"}, 1.5),
        ({"Retry-After": "7", "retry-after-ms": "250"}, 0.25),
        ({"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0.0),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "-1"}, None),
        ({}, None),
    ],
)
async def test_the_wait_that_was_asked_for_is_kept(
    openai: BaseLLMProvider, server: FakeProvider, headers: dict[str, str], seconds: float | None
) -> None:
    server.reply = Reply(429, {"error": {"message": "slow down"}}, headers)
    error = await failure_of(openai)
    assert isinstance(error, RateLimitError)
    assert error.retry_after == seconds


async def test_a_wait_given_as_a_date_counts_from_now(openai: BaseLLMProvider, server: FakeProvider) -> None:
    later = format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)
    server.reply = Reply(429, {"error": {"message": "slow down"}}, {"Retry-After": later})
    error = await failure_of(openai)
    assert isinstance(error, RateLimitError)
    assert error.retry_after == pytest.approx(3600, abs=60)


async def test_nobody_listening_is_unavailable(unused_tcp_port: int) -> None:
    provider = OpenAIProvider(api_key=KEY, base_url=f"http://127.0.0.1:{unused_tcp_port}/v1")
    error = await failure_of(provider)
    await provider.close()
    assert type(error) is ProviderUnavailableError
    assert f"127.0.0.1:{unused_tcp_port}" in str(error)


async def test_a_timeout_leaves_the_connection(opened: BaseLLMProvider, server: FakeProvider) -> None:
    await failure_of(opened, "gpt-4o--hang", timeout=0.2)
    assert await asyncio.to_thread(server.abandoned.wait, 20)


async def test_a_cancelled_call_ends_at_once_and_leaves_the_connection(
    opened: BaseLLMProvider, server: FakeProvider
) -> None:
    call = asyncio.create_task(opened.complete(REQUEST, "gpt-4o--hang", timeout=600.0))
    assert await asyncio.to_thread(server.arrived.wait, 20)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert await asyncio.to_thread(server.abandoned.wait, 20)
    assert (await opened.complete(REQUEST, "gpt-4o", timeout=20.0)).content


def echoing(status: int, message: str) -> Reply:
    return Reply(status, {"error": {"message": message, "code": message, "type": message, "param": message}})


TELLTALES = {
    **dict.fromkeys(FAULTS),
    "key": echoing(401, f"Incorrect API key provided: {KEY}."),
    "masked key": echoing(401, "Incorrect API key provided: sk-canar***show."),
    "prompt": echoing(400, f"Invalid message: {PROMPT}"),
    "word of the prompt": echoing(400, "Invalid token CANARY-0815 in the message"),
    "single word": echoing(400, "canary"),
    "single word as a code": Reply(400, {"error": {"code": "canary_0815", "type": "launch_code", "param": "canary"}}),
    "word in lower case": echoing(400, "cannot read token 'canary-0815'"),
    "spaced prompt": echoing(400, "c a n a r y - CANARY&#45;0815"),
    "escaped prompt": echoing(400, "bad: \\u0043ANARY-0815 launch\\u0020code, launch+code"),
    "tool description": echoing(400, "Invalid description: 'Finds CANARY-1212'"),
    "schema": echoing(400, "Invalid schema canary_schema"),
    "stop": echoing(400, "Invalid stop: canary_stop"),
    "prompt on context length": echoing(400, "maximum context length is 5 tokens: CANARY"),
    "prompt on content filter": echoing(400, "rejected by our safety system: CANARY"),
    "key as a code": Reply(401, {"error": {"code": KEY, "type": KEY}}),
    "prompt in a redirect": Reply(307, PROMPT.encode(), {"Location": "http://127.0.0.1:9/"}),
    "tool argument": echoing(422, "bad arguments: 'CANARY-4242 Ltd'"),
    "prompt on 500": echoing(500, PROMPT),
    "prompt on 429": echoing(429, PROMPT),
    "prompt as text": Reply(400, PROMPT.encode(), content_type="text/plain"),
    "prompt as html": Reply(500, f"<p>{PROMPT}</p>".encode(), content_type="text/html"),
    "prompt as answer": Reply(200, PROMPT.encode(), content_type="text/plain"),
    "prompt in a wrong shape": Reply(200, {"choices": [{"message": PROMPT}], "key": KEY}),
    "prompt in broken json": Reply(200, f'{{"choices": "{PROMPT} {KEY}'.encode()),
}


def everything_said(error: BaseException) -> str:
    """All texts of an exception and of those behind it."""
    said, seen = [*traceback.format_exception(error)], [error]
    for link in seen:
        said += [str(link), repr(link), repr(link.args), repr(vars(link))]
        seen += [other for other in (link.__cause__, link.__context__) if other is not None]
    return "\n".join(said)


@pytest.mark.parametrize("telltale", TELLTALES)
async def test_neither_key_nor_prompt_is_in_an_exception_or_a_log(
    opened: BaseLLMProvider, server: FakeProvider, caplog: pytest.LogCaptureFixture, telltale: str
) -> None:
    caplog.set_level(logging.DEBUG)
    server.reply = TELLTALES[telltale]
    model = f"gpt-4o--{telltale}" if telltale in FAULTS else "gpt-4o"
    error = await failure_of(opened, model, timeout=0.3 if telltale == "hang" else 20.0)
    said = everything_said(error) + caplog.text + "".join(repr(vars(record)) for record in caplog.records)
    for secret in (KEY, "canar", "CANARY", "\\u0043", "c a n a r y", "launch code", "launch_code", "launch+code"):
        assert secret not in said
    if telltale != "silent":
        assert error.__cause__ is not None


@pytest.mark.parametrize(
    ("status", "error", "said"),
    [
        (
            400,
            {"code": "invalid_value", "type": "invalid_request_error", "param": "messages[0].content"},
            "openai refused the request for gpt-4o: 400 invalid_value (messages); check its parameters",
        ),
        (400, {"type": "invalid_request_error"}, "openai refused the request for gpt-4o: 400 invalid_request_error;"),
        (400, {"code": "made_up", "param": "made_up"}, "openai refused the request for gpt-4o: 400; check"),
        (
            400,
            {"code": "context_length_exceeded"},
            "400 context_length_exceeded; the messages and max_tokens are longer",
        ),
        (400, {"code": "ResponsibleAIPolicyViolation"}, "its safety system refused"),
        (401, {"code": "invalid_api_key"}, "401 invalid_api_key; is the API key right?"),
        (404, {"code": "model_not_found"}, "404 model_not_found; it has no such model"),
        (429, {"code": "insufficient_quota"}, "429 insufficient_quota; the account has no credit or quota left"),
        (500, {"type": "server_error"}, "openai failed on its side for gpt-4o: 500 server_error; try again later"),
    ],
)
async def test_says_the_status_the_known_code_and_what_to_do(
    openai: BaseLLMProvider, server: FakeProvider, status: int, error: dict[str, str], said: str
) -> None:
    server.reply = Reply(status, {"error": {"message": "some words of the provider", **error}})
    text = str(await failure_of(openai))
    assert said in text
    assert "some words" not in text


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_not_followed_and_its_target_not_named(
    openai: BaseLLMProvider, server: FakeProvider, status: int
) -> None:
    with running() as other:
        server.reply = Reply(status, b"", {"Location": f"{other.url}/chat/completions"})
        error = await failure_of(openai)
        assert (type(error), error.status_code, other.requests) == (ProviderUnavailableError, status, [])
        assert f"redirects ({status})" in str(error)
        assert "base_url" in str(error)
        assert str(other.server_address[1]) not in everything_said(error)


@pytest.mark.parametrize("fault", ["server_error", "auth", "html200", "hang", "reset"])
async def test_errors_name_the_provider_as_it_is_registered(opened: BaseLLMProvider, fault: str) -> None:
    opened.name = "acme"
    error = await failure_of(opened, f"gpt-4o--{fault}", timeout=0.3 if fault == "hang" else 20.0)
    assert error.provider == "acme"
    assert str(error).startswith("acme ")
    assert "openai" not in str(error)


async def test_a_server_that_wants_a_key_and_got_none_says_what_to_pass(server: FakeProvider) -> None:
    provider = OpenAIProvider(base_url=server.url)
    error = await failure_of(provider, "gpt-4o--auth")
    await provider.close()
    assert "no API key was sent: pass api_key=" in str(error)


async def test_a_good_call_logs_neither_key_nor_prompt(
    openai: BaseLLMProvider, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    await openai.complete(REQUEST, "gpt-4o", timeout=20.0)
    said: Any = caplog.text + "".join(repr(vars(record)) for record in caplog.records)
    assert KEY not in said
    assert "CANARY" not in said
