"""If a provider repeats the request in its error, no exception and no log repeats it, for any provider."""

from __future__ import annotations

import logging
import traceback
from typing import Any

import pytest

from llmbridge.errors import LLMBridgeError
from llmbridge.providers import BaseLLMProvider
from llmbridge.schemas import LLMRequest, Message

from ..support.fake_provider import FakeProvider, Reply
from .conftest import KEY, PROVIDERS, Provider

PROMPT = "the canary of the lake"
REQUEST = LLMRequest(
    model="m",
    messages=[Message(role="system", content="a canary system"), Message(role="user", content=PROMPT)],
    tools=[{"name": "look_up", "description": "finds the canary"}],
    stop=["canary"],
)


def quoting(status: int) -> Reply:
    said: dict[str, Any] = {
        "message": f"no {PROMPT} with {KEY}",
        "code": "canary",
        "type": "canary",
        "status": "canary",
    }
    return Reply(status, {"type": "error", "error": {**said, "details": [{"reason": "CANARY", "canary": KEY}]}})


REPLIES = {
    **{str(status): quoting(status) for status in (400, 401, 403, 404, 413, 429, 500, 529)},
    "text": Reply(400, PROMPT.encode(), content_type="text/plain"),
    "html": Reply(200, f"<p>{PROMPT}{KEY}</p>".encode(), content_type="text/html"),
    "broken": Reply(200, f'{{"content": "{PROMPT} {KEY}'.encode()),
    "other": Reply(200, {"content": PROMPT, "choices": KEY, "candidates": PROMPT, "usage": KEY}),
}


def everything_said(error: BaseException) -> str:
    """All texts of an exception and of those behind it."""
    said, seen = [*traceback.format_exception(error)], [error]
    for link in seen:
        said += [str(link), repr(link), repr(link.args), repr(vars(link))]
        seen += [other for other in (link.__cause__, link.__context__) if other is not None]
    return "\n".join(said)


@pytest.mark.parametrize("which", PROVIDERS, ids=lambda one: one.name)
async def test_what_a_provider_quotes_is_neither_raised_nor_logged(
    provider: BaseLLMProvider, server: FakeProvider, which: Provider, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    said = repr(provider)
    for reply in REPLIES.values():
        server.reply = reply
        with pytest.raises(LLMBridgeError) as caught:
            await provider.complete(REQUEST, which.model, timeout=20.0)
        said += everything_said(caught.value)
        with pytest.raises(LLMBridgeError) as caught:
            await anext(aiter(provider.stream(REQUEST, which.model, timeout=20.0)))
        said += everything_said(caught.value)
    server.reply = None
    await provider.complete(REQUEST, which.model, timeout=20.0)
    said += caplog.text + "".join(repr(vars(record)) for record in caplog.records)
    assert KEY not in said
    assert "canary" not in said.lower().replace(KEY, "")
