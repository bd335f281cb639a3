"""The public data types show no prompt when a log or a traceback prints them, and name what they refuse."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from llmbridge.schemas import LLMRequest, Message


def test_the_repr_of_a_request_shows_no_prompt() -> None:
    message = Message(role="user", content="my secret question", tool_calls=[{"arguments": "my secret argument"}])
    request = LLMRequest(messages=[message], model="echo:demo", extra={"instructions": "my secret instructions"})
    for shown in (repr(message), str(message), repr(request), str(request)):
        assert "secret" not in shown
    assert "role='user'" in repr(request)
    assert "model='echo:demo'" in repr(request)


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"model": None}, "model"),
        ({}, "Field required"),
        ({"model": "m", "temprature": 1}, r"no field 'temprature'; did you mean temperature\?.*goes into `extra`"),
        ({"model": "m", "top_k": 1}, r"no field 'top_k'.*goes into `extra`"),
    ],
)
def test_a_request_refuses_what_it_cannot_send(fields: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told) as caught:
        LLMRequest(**{"messages": [Message(role="user", content="a secret")], **fields})
    assert "a secret" not in str(caught.value)
