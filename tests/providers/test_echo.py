"""The offline provider."""

from __future__ import annotations

import json
from typing import Any

from llmbridge.providers import Completion
from llmbridge.providers.echo import llmbridge_provider
from llmbridge.schemas import LLMRequest, Message, TokenUsage


async def echo(*messages: Message, **fields: Any) -> Completion:
    provider = llmbridge_provider().create("echo", {})
    return await provider.complete(LLMRequest(model="m", messages=list(messages), **fields), "anything", timeout=1.0)


async def test_answers_with_the_last_thing_the_user_said() -> None:
    answer = await echo(
        Message(role="system", content="be brief"),
        Message(role="user", content="first"),
        Message(role="assistant", content="echo: first"),
        Message(role="user", content="and now this"),
    )
    assert (answer.content, answer.model, answer.finish_reason) == ("echo: and now this", "anything", "stop")


async def test_counts_words_and_calls_the_usage_synthetic() -> None:
    answer = await echo(Message(role="system", content="be brief"), Message(role="user", content="how are  you"))
    assert answer.usage == TokenUsage(prompt_tokens=5, completion_tokens=4, source="synthetic")


async def test_gives_the_same_answer_every_time() -> None:
    assert await echo(Message(role="user", content="hi")) == await echo(Message(role="user", content="hi"))


async def test_reads_the_text_of_content_parts() -> None:
    parts = [
        {"type": "text", "text": "look at"},
        {"type": "image_url", "image_url": {}},
        {"type": "text", "text": "this"},
    ]
    assert (await echo(Message(role="user", content=parts))).content == "echo: look at this"


async def test_answers_without_any_user_message() -> None:
    assert (await echo(Message(role="system", content="be brief"))).content == "echo: "


async def test_answers_in_json_when_asked_to() -> None:
    user = Message(role="user", content="hi")
    for fields in ({"json_response": True}, {"response_format": {"type": "json_object"}}):
        assert json.loads((await echo(user, **fields)).content) == {"echo": "hi"}


async def test_a_response_format_of_text_comes_before_json_response() -> None:
    asked = await echo(Message(role="user", content="hi"), response_format={"type": "text"}, json_response=True)
    assert asked.content == "echo: hi"


def test_a_response_format_decides_whether_json_is_wanted() -> None:
    def wants_json(**fields: Any) -> bool:
        return LLMRequest(model="m", messages=[], **fields).wants_json

    assert wants_json(json_response=True)
    assert wants_json(response_format={"type": "json_schema"}, json_response=False)
    assert not wants_json()
    assert not wants_json(response_format={"type": "text"}, json_response=True)


def test_is_called_echo_until_it_is_registered_under_another_name() -> None:
    assert llmbridge_provider().create("echo", {}).name == "echo"
