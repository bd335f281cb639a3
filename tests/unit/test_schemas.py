"""The public data types show no prompt when a log or a traceback prints them."""

from __future__ import annotations

from llmbridge.schemas import LLMRequest, Message


def test_the_repr_of_a_request_shows_no_prompt() -> None:
    message = Message(role="user", content="my secret question", tool_calls=[{"arguments": "my secret argument"}])
    request = LLMRequest(messages=[message], model="echo:demo", extra={"instructions": "my secret instructions"})
    for shown in (repr(message), str(message), repr(request), str(request)):
        assert "secret" not in shown
    assert "role='user'" in repr(request)
    assert "model='echo:demo'" in repr(request)
