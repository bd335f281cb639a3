"""The requests of `openai:`, as the server receives them."""

from __future__ import annotations

from typing import Any

import pytest

from llmbridge.errors import AuthenticationError, InvalidRequestError
from llmbridge.providers import BaseLLMProvider
from llmbridge.providers.pydantic_ai.plugin import OpenAIProvider
from llmbridge.schemas import LLMRequest, Message

from ..support.fake_provider import FakeProvider

HI = Message(role="user", content="hi")
SCHEMA = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "Place",
    "type": "object",
    "properties": {"city": {"type": "string", "default": "Lima"}},
    "required": ["city"],
}
WEATHER = {"name": "get_weather", "description": "The weather", "parameters": SCHEMA}


@pytest.fixture
def sent(openai: BaseLLMProvider, server: FakeProvider) -> Any:
    """Send a request and return the body that arrived."""

    async def send(*messages: Message, model: str = "gpt-4o-mini", **fields: Any) -> dict[str, Any]:
        await openai.complete(LLMRequest(model="m", messages=list(messages) or [HI], **fields), model, timeout=20.0)
        return server.requests[-1].body

    return send


async def test_sends_no_more_than_it_was_given(sent: Any, server: FakeProvider) -> None:
    assert await sent(metadata={"team": "search"}, cache={"ttl": 5}) == {
        "model": "gpt-4o-mini",
        "messages": [{"role": "user", "content": "hi"}],
        "stream": False,
    }
    assert server.requests[0].path == "/v1/chat/completions"


async def test_sends_every_parameter_also_when_it_is_zero(sent: Any) -> None:
    body = await sent(temperature=0, max_tokens=5, stop=["END", "STOP"], seed=0)
    assert {name: body[name] for name in ("temperature", "max_tokens", "stop", "seed")} == {
        "temperature": 0,
        "max_tokens": 5,
        "stop": ["END", "STOP"],
        "seed": 0,
    }


async def test_a_reasoning_model_gets_its_own_name_for_max_tokens_and_the_temperature_as_given(sent: Any) -> None:
    body = await sent(model="o3-mini", max_tokens=5, temperature=0)
    assert (body["max_completion_tokens"], body["temperature"]) == (5, 0)
    assert "max_tokens" not in body


async def test_extra_goes_into_the_body_unchanged(sent: Any) -> None:
    body = await sent(extra={"top_p": 0.5, "provider_option": {"nested": [1, None]}})
    assert (body["top_p"], body["provider_option"]) == (0.5, {"nested": [1, None]})


async def test_keeps_system_messages_apart_and_in_their_places(sent: Any) -> None:
    body = await sent(
        Message(role="system", content="one"),
        Message(role="system", content=[{"type": "text", "text": "two"}]),
        HI,
        Message(role="assistant", content="hello"),
        Message(role="system", content="three"),
        Message(role="user", content="bye"),
    )
    assert [(message["role"], message["content"]) for message in body["messages"]] == [
        ("system", "one"),
        ("system", "two"),
        ("user", "hi"),
        ("assistant", "hello"),
        ("system", "three"),
        ("user", "bye"),
    ]


async def test_sends_tool_calls_and_their_results_from_both_forms(sent: Any) -> None:
    body = await sent(
        HI,
        Message(
            role="assistant",
            tool_calls=[
                {"id": "a", "type": "function", "function": {"name": "get_weather", "arguments": '{"city":"Lima"}'}},
                {"id": "b", "name": "get_time", "arguments": {"city": "Lima"}},
            ],
        ),
        Message(role="tool", tool_call_id="a", content="sunny"),
        Message(role="tool", tool_call_id="b", content='{"hour": 12}'),
        tools=[WEATHER],
    )
    assert body["messages"][1:] == [
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {"id": "a", "type": "function", "function": {"name": "get_weather", "arguments": '{"city":"Lima"}'}},
                {"id": "b", "type": "function", "function": {"name": "get_time", "arguments": '{"city":"Lima"}'}},
            ],
        },
        {"role": "tool", "tool_call_id": "a", "content": "sunny"},
        {"role": "tool", "tool_call_id": "b", "content": '{"hour": 12}'},
    ]


async def test_sends_tools_from_both_forms_with_their_schemas_untouched(sent: Any) -> None:
    body = await sent(tools=[{"type": "function", "function": {**WEATHER, "strict": False}}, {**WEATHER, "name": "b"}])
    assert body["tools"] == [
        {"type": "function", "function": {**WEATHER, "strict": False}},
        {"type": "function", "function": {**WEATHER, "name": "b"}},
    ]


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("auto", "auto"),
        ("none", "none"),
        ("required", "required"),
        ({"type": "function", "function": {"name": "b"}}, {"type": "function", "function": {"name": "b"}}),
        ({"type": "function", "name": "b"}, {"type": "function", "function": {"name": "b"}}),
    ],
)
async def test_sends_the_choice_of_tools(sent: Any, choice: Any, expected: Any) -> None:
    body = await sent(tools=[WEATHER, {**WEATHER, "name": "b"}], tool_choice=choice)
    assert body["tool_choice"] == expected


async def test_a_choice_between_no_tools_is_not_sent(sent: Any) -> None:
    assert "tool_choice" not in await sent(tool_choice="auto")


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"json_response": True}, {"type": "json_object"}),
        ({"response_format": {"type": "json_object"}}, {"type": "json_object"}),
        ({"response_format": {"type": "text"}, "json_response": True}, {"type": "text"}),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "place", "schema": SCHEMA}}},
            {"type": "json_schema", "json_schema": {"name": "place", "schema": SCHEMA}},
        ),
    ],
)
async def test_asks_for_json(sent: Any, fields: dict[str, Any], expected: dict[str, Any]) -> None:
    assert (await sent(**fields))["response_format"] == expected


@pytest.mark.parametrize(
    "request_",
    [
        LLMRequest(
            model="m", messages=[Message(role="user", content=[{"type": "image_url", "image_url": {"url": "x.png"}}])]
        ),
        LLMRequest(model="m", messages=[Message(role="user", content=[{"type": "file", "file": {}}])]),
        LLMRequest(model="m", messages=[Message(role="user")]),
        LLMRequest(model="m", messages=[Message(role="user", content=42)]),
        LLMRequest(model="m", messages=[Message(role="tool", content="sunny")]),
        LLMRequest(model="m", messages=[HI, Message(role="assistant")]),
        LLMRequest(model="m", messages=[Message(role="assistant", tool_calls=[{"id": "a"}])]),
        LLMRequest(model="m", messages=[HI], tool_choice="required"),
        LLMRequest(model="m", messages=[HI], tools=[WEATHER], tool_choice="sometimes"),
        LLMRequest(
            model="m", messages=[HI], tools=[WEATHER], tool_choice={"type": "function", "function": {"name": "other"}}
        ),
        LLMRequest(model="m", messages=[HI], tools=[{"type": "web_search"}]),
        LLMRequest(model="m", messages=[HI], tools=[{"description": "nameless"}]),
        LLMRequest(model="m", messages=[]),
        LLMRequest(model="m", messages=[HI]).model_copy(update={"messages": [{"role": "user", "content": "hi"}]}),
        LLMRequest(model="m", messages=[HI.model_copy(update={"role": "narrator"})]),
        LLMRequest(model="m", messages=[Message(role="system")]),
        LLMRequest(model="m", messages=[Message(role="user", content=[])]),
        LLMRequest(model="m", messages=[Message(role="user", content=[42])]),
        LLMRequest(model="m", messages=[Message(role="assistant", tool_calls=[{"id": "a", "function": "x"}])]),
        LLMRequest(model="m", messages=[Message(role="assistant").model_copy(update={"tool_calls": ["x"]})]),
        LLMRequest(model="m", messages=[HI], tools=[{"function": "x"}]),
        LLMRequest(model="m", messages=[HI], tools=[{"function": "x", "name": "y"}]),
        LLMRequest(model="m", messages=[HI], tools=[{"function": None, "name": "y"}]),
        LLMRequest(model="m", messages=[HI], tools=[{"name": 42}]),
        LLMRequest(model="m", messages=[HI], tools=[{"name": "x", "description": 42}]),
        LLMRequest(model="m", messages=[HI], tools=[{"name": "x", "parameters": "y"}]),
        LLMRequest(model="m", messages=[HI]).model_copy(update={"tools": ["x"]}),
        LLMRequest(model="m", messages=[HI]).model_copy(update={"tools": {"name": "x"}}),
        LLMRequest(model="m", messages=[HI]).model_copy(update={"extra": ["x"]}),
        LLMRequest(model="m", messages=[HI], extra={"stream": True}),
        LLMRequest(model="m", messages=[HI], extra={"thing": object()}),
        LLMRequest(model="m", messages=[Message(role="user", content="half a pair \ud800")]),
    ],
)
async def test_what_cannot_be_sent_is_refused_before_anything_goes_out(
    openai: BaseLLMProvider, server: FakeProvider, request_: LLMRequest
) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        await openai.complete(request_, "gpt-4o", timeout=20.0)
    assert (caught.value.provider, caught.value.model, server.requests) == ("openai", "gpt-4o", [])


async def test_what_is_wrong_with_a_request_is_said_without_quoting_it(openai: BaseLLMProvider) -> None:
    for wrong in (
        LLMRequest(model="m", messages=[Message(role="user", content=[{"type": "canary", "canary": "canary"}])]),
        LLMRequest(model="m", messages=[HI], tools=[{"type": "canary"}]),
        LLMRequest(model="m", messages=[HI], tools=[WEATHER], tool_choice={"name": "canary"}),
    ):
        with pytest.raises(InvalidRequestError) as caught:
            await openai.complete(wrong, "gpt-4o", timeout=20.0)
        assert "canary" not in str(caught.value)


async def test_without_a_key_nothing_is_sent_and_the_variable_is_named() -> None:
    provider = OpenAIProvider()
    with pytest.raises(AuthenticationError, match="OPENAI_API_KEY"):
        await provider.complete(LLMRequest(model="m", messages=[HI]), "gpt-4o", timeout=1.0)


async def test_a_key_that_no_header_can_hold_is_refused_without_being_shown() -> None:
    provider = OpenAIProvider(api_key="sk-first\nsk-second")
    with pytest.raises(AuthenticationError) as caught:
        await provider.complete(LLMRequest(model="m", messages=[HI]), "gpt-4o", timeout=1.0)
    assert "sk-" not in str(caught.value)


async def test_the_key_comes_from_the_environment(server: FakeProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-from-environment")
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)
    provider = OpenAIProvider()
    await provider.complete(LLMRequest(model="m", messages=[HI]), "gpt-4o", timeout=20.0)
    await provider.close()
    assert server.requests[0].headers["authorization"] == "Bearer sk-from-environment"


async def test_what_the_environment_has_for_openai_goes_to_no_other_server(
    server: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("API_KEY", "ADMIN_KEY", "ORG_ID", "PROJECT_ID"):
        monkeypatch.setenv(f"OPENAI_{name}", "canary")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "Authorization: Bearer canary\nX-Team: canary")
    provider = OpenAIProvider(base_url=server.url)
    await provider.complete(LLMRequest(model="m", messages=[HI]), "any-model", timeout=20.0)
    await provider.close()
    assert server.requests[0].headers["authorization"] == "Bearer no-key"
    assert "canary" not in repr(server.requests[0])


async def test_the_environments_own_server_gets_what_the_environment_has(
    server: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-from-environment")
    monkeypatch.setenv("OPENAI_ORG_ID", "org-from-environment")
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)
    provider = OpenAIProvider()
    await provider.complete(LLMRequest(model="m", messages=[HI]), "gpt-4o", timeout=20.0)
    await provider.close()
    headers = server.requests[0].headers
    assert (headers["authorization"], headers["openai-organization"]) == (
        "Bearer sk-from-environment",
        "org-from-environment",
    )


async def test_a_server_of_ones_own_needs_no_key(server: FakeProvider) -> None:
    provider = OpenAIProvider(base_url=server.url, organization="org-1")
    await provider.complete(LLMRequest(model="m", messages=[HI]), "any-model", timeout=20.0)
    await provider.close()
    headers = server.requests[0].headers
    assert (headers["authorization"], headers["openai-organization"]) == ("Bearer no-key", "org-1")


@pytest.mark.parametrize(
    "url", ["localhost:8000/v1", "ftp://localhost/v1", "http://", "http://[::1/v1", "http://localhost:99999/v1"]
)
async def test_a_base_url_that_is_none_is_refused(url: str) -> None:
    provider = OpenAIProvider(api_key="sk-x", base_url=url)
    with pytest.raises(InvalidRequestError, match="base_url"):
        await provider.complete(LLMRequest(model="m", messages=[HI]), "gpt-4o", timeout=1.0)
