"""Conversion of the responses of `openai:`."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from llmbridge.providers import BaseLLMProvider, Completion
from llmbridge.schemas import LLMRequest, Message, TokenUsage

from ..support.fake_provider import FakeProvider, Reply, completion

HI = LLMRequest(model="m", messages=[Message(role="user", content="hi")])
TOOL = {"name": "get_weather", "parameters": {"type": "object", "properties": {}}}


async def test_an_answer_in_full(openai: BaseLLMProvider) -> None:
    assert await openai.complete(HI, "gpt-4o", timeout=20.0) == Completion(
        content="echo: hi",
        model="gpt-4o",
        finish_reason="stop",
        usage=TokenUsage(prompt_tokens=12, completion_tokens=7, cache_read_tokens=0, reasoning_tokens=0),
        response_id="chatcmpl-fake",
    )


async def test_a_cut_answer_says_so(openai: BaseLLMProvider) -> None:
    assert (await openai.complete(HI, "gpt-4o--length", timeout=20.0)).finish_reason == "length"


@pytest.mark.parametrize(
    ("reported", "expected"),
    [
        (None, None),
        ({}, None),
        ("12 tokens", None),
        ({"prompt_tokens": None, "completion_tokens": "7"}, None),
        ({"prompt_tokens": 12}, TokenUsage(prompt_tokens=12)),
        ({"prompt_tokens": 12, "completion_tokens": 7}, TokenUsage(prompt_tokens=12, completion_tokens=7)),
        ({"prompt_tokens": -12, "completion_tokens": 7}, TokenUsage(completion_tokens=7)),
        ({"prompt_tokens": 12.5, "completion_tokens": 7.0}, None),
        ({"prompt_tokens": True, "completion_tokens": 2**63}, None),
        ({"prompt_tokens": 2**62, "completion_tokens": 10**30}, None),
        (
            {"prompt_tokens": 12, "completion_tokens": 0, "prompt_tokens_details": None},
            TokenUsage(prompt_tokens=12, completion_tokens=0),
        ),
        (
            {"prompt_tokens": 12, "completion_tokens": 7, "completion_tokens_details": {"reasoning_tokens": -1}},
            TokenUsage(prompt_tokens=12, completion_tokens=7),
        ),
    ],
)
async def test_what_was_not_measured_is_none(
    openai: BaseLLMProvider, server: FakeProvider, reported: Any, expected: TokenUsage | None
) -> None:
    good = completion({"model": "gpt-4o", "messages": []}, text="fine")
    server.reply = Reply(body={**good, "usage": reported})
    answer = await openai.complete(HI, "gpt-4o", timeout=20.0)
    assert (answer.content, answer.usage) == ("fine", expected)


async def test_an_empty_answer_that_was_measured_is_an_answer(openai: BaseLLMProvider, server: FakeProvider) -> None:
    server.reply = Reply(body=completion({"model": "gpt-4o", "messages": []}, text="", finish_reason="content_filter"))
    answer = await openai.complete(HI, "gpt-4o", timeout=20.0)
    assert (answer.content, answer.finish_reason) == ("", "content_filter")


async def test_a_refusal_is_the_answer(openai: BaseLLMProvider, server: FakeProvider) -> None:
    good = completion({"model": "gpt-4o", "messages": []})
    good["choices"][0]["message"] = {"role": "assistant", "content": None, "refusal": "I cannot help with that."}
    server.reply = Reply(body=good)
    answer = await openai.complete(HI, "gpt-4o", timeout=20.0)
    assert (answer.content, answer.finish_reason) == ("I cannot help with that.", "content_filter")
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == 12


async def test_the_model_is_the_one_that_the_provider_reports(openai: BaseLLMProvider, server: FakeProvider) -> None:
    server.reply = Reply(body=completion({"model": "gpt-4o-2024-08-06", "messages": []}))
    assert (await openai.complete(HI, "gpt-4o", timeout=20.0)).model == "gpt-4o-2024-08-06"


async def test_a_slow_answer_arrives(openai: BaseLLMProvider, server: FakeProvider) -> None:
    call = asyncio.create_task(openai.complete(HI, "gpt-4o--slow", timeout=20.0))
    assert await asyncio.to_thread(server.arrived.wait, 20)
    assert not call.done()
    server.resume.set()
    assert (await call).content == "echo: hi"


async def test_many_calls_at_once_share_one_provider(openai: BaseLLMProvider, server: FakeProvider) -> None:
    answers = await asyncio.gather(*(openai.complete(HI, "gpt-4o", timeout=20.0) for _ in range(20)))
    assert {answer.content for answer in answers} == {"echo: hi"}
    assert len(server.requests) == 20


async def test_what_a_model_thinks_aloud_is_not_part_of_the_content(
    openai: BaseLLMProvider, server: FakeProvider
) -> None:
    server.reply = Reply(body=completion({"model": "r1", "messages": []}, text="<think>hm</think>fine"))
    assert (await openai.complete(HI, "r1", timeout=20.0)).content == "fine"
