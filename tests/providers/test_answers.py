"""Requests to every provider, and the conversion of its responses and streams."""

from __future__ import annotations

import base64
import json
from contextlib import aclosing
from typing import Any

import pytest
from pydantic import BaseModel

from llmbridge._calls.structured_output import sendable
from llmbridge.errors import AuthenticationError, InvalidRequestError
from llmbridge.plugins import create_provider
from llmbridge.providers import BaseLLMProvider, Completion, Delta
from llmbridge.schemas import LLMRequest, Message, TokenUsage

from ..support.fake_provider import FakeProvider, Reply
from ..support.wires import GoogleWire, Request, completion
from .conftest import KEY, OWN, PROVIDERS, Provider

HI = Message(role="user", content="hi there")
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR4nGNgYGBgAAAABQABpfZFQAAAAABJRU5ErkJggg=="
PDF = base64.b64encode(b"%PDF-1.4\n%%EOF").decode()
TOOL = {"name": "get_weather", "description": "The weather", "parameters": {"type": "object", "properties": {}}}


class Place(BaseModel):
    """Somewhere."""

    echo: str


def every(providers: tuple[Provider, ...] = PROVIDERS) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("which", providers, ids=lambda one: one.name)


def only(*names: str) -> pytest.MarkDecorator:
    return every(tuple(one for one in PROVIDERS if one.name in names))


def without(*names: str) -> pytest.MarkDecorator:
    return every(tuple(one for one in PROVIDERS if one.name not in names))


async def answers(provider: BaseLLMProvider, request: LLMRequest, model: str) -> tuple[Completion, list[Delta]]:
    """The same request asked whole and as a stream."""
    whole = await provider.complete(request, model, timeout=20.0)
    return whole, [delta async for delta in provider.stream(request, model, timeout=20.0)]


async def sent(provider: BaseLLMProvider, server: FakeProvider, model: str, **fields: Any) -> dict[str, Any]:
    """The body of a request."""
    await provider.complete(LLMRequest(**{"model": "m", "messages": [HI], **fields}), model, timeout=20.0)
    return server.requests[-1].body


@every()
async def test_a_stream_is_the_answer_piece_by_piece(provider: BaseLLMProvider, which: Provider) -> None:
    whole, deltas = await answers(provider, LLMRequest(model="m", messages=[HI]), which.model)
    assert (whole.content, whole.finish_reason) == ("echo: hi there", "stop")
    assert whole.response_id is not None
    assert whole.usage is not None
    assert (whole.usage.prompt_tokens, whole.usage.completion_tokens, whole.usage.source) == (12, 7, "provider")
    assert "".join(delta.content for delta in deltas) == whole.content
    assert len([delta for delta in deltas if delta.content]) >= 2
    assert [delta.completion for delta in deltas[:-1]] == [None] * (len(deltas) - 1)
    assert deltas[-1].completion == whole
    assert deltas[-1].usage == whole.usage


@only("anthropic", "google")
async def test_what_the_provider_said_of_the_usage_so_far_comes_with_the_first_piece(
    provider: BaseLLMProvider, which: Provider
) -> None:
    deltas = [delta async for delta in provider.stream(LLMRequest(model="m", messages=[HI]), which.model, timeout=20.0)]
    assert deltas[0].usage is not None
    assert (deltas[0].usage.prompt_tokens, deltas[0].usage.source) == (12, "partial")


@every()
async def test_tool_calls_come_in_openais_form(provider: BaseLLMProvider, which: Provider) -> None:
    whole, deltas = await answers(provider, LLMRequest(model="m", messages=[HI], tools=[TOOL]), which.model)
    assert whole.tool_calls is not None
    [call] = whole.tool_calls
    assert (call["type"], call["function"]["name"]) == ("function", "get_weather")
    assert json.loads(call["function"]["arguments"]) == {"city": "Lima"}
    assert isinstance(call["id"], str)
    assert call["id"]
    assert (whole.content, whole.finish_reason) == ("", "tool_calls")
    streamed = deltas[-1].completion
    assert streamed is not None
    assert streamed.tool_calls is not None
    assert json.loads(streamed.tool_calls[0]["function"]["arguments"]) == {"city": "Lima"}
    assert streamed.finish_reason == "tool_calls"


@only("openai", "groq", "vllm")
async def test_what_comes_without_text_is_a_step_too(provider: BaseLLMProvider, which: Provider) -> None:
    request = LLMRequest(model="m", messages=[HI], tools=[TOOL])
    async with aclosing(provider.stream(request, f"{which.model}--stream_hang", timeout=10.0)) as deltas:  # type: ignore[type-var]
        assert await anext(deltas) == Delta()


@every()
@pytest.mark.parametrize("flat", [True, False], ids=["flat", "openai"])
async def test_a_conversation_with_tools_goes_on(
    provider: BaseLLMProvider, server: FakeProvider, which: Provider, flat: bool
) -> None:
    call = {"name": "get_weather", "arguments": '{"city": "Lima"}'}
    made = {"id": "call_1", **call} if flat else {"id": "call_1", "type": "function", "function": call}
    messages = [
        Message(role="system", content="be short"),
        Message(role="system", content="be kind"),
        Message(role="user", content="and the weather?"),
        Message(role="assistant", content="one moment", tool_calls=[made]),
        Message(role="tool", tool_call_id="call_1", content="sunny"),
        Message(role="user", content="thanks"),
    ]
    tool = TOOL if flat else {"type": "function", "function": TOOL}
    body = await sent(provider, server, which.model, messages=messages, tools=[tool])
    text = json.dumps(body)
    told = [text.index(words) for words in ("be short", "be kind", "and the weather?", "one moment", "sunny", "thanks")]
    in_body = told[2:] if which.name in ("anthropic", "google") else told
    assert in_body == sorted(in_body)
    assert "Lima" in text


@every()
async def test_parameters_are_sent_as_they_are_and_metadata_never(
    provider: BaseLLMProvider, server: FakeProvider, which: Provider
) -> None:
    fields: dict[str, Any] = {"temperature": 0, "max_tokens": 33, "stop": "END", "metadata": {"team": "canary"}}
    body = await sent(provider, server, which.model, **fields)
    if which.name == "google":
        body = body["generationConfig"]
        assert (body["temperature"], body["maxOutputTokens"], body["stopSequences"]) == (0, 33, ["END"])
    else:
        named = "max_completion_tokens" if which.name in ("groq", "vllm") and "max_tokens" not in body else "max_tokens"
        assert (body["temperature"], body[named]) == (0, 33)
        assert body["stop_sequences" if which.name == "anthropic" else "stop"] == ["END"]
    assert "canary" not in json.dumps(server.requests[-1].body)


@every()
@pytest.mark.parametrize(
    ("field", "in_google"),
    [("top_p", "topP"), ("presence_penalty", "presencePenalty"), ("frequency_penalty", "frequencyPenalty")],
)
async def test_a_parameter_is_sent_or_refused(
    provider: BaseLLMProvider, server: FakeProvider, which: Provider, field: str, in_google: str
) -> None:
    asked = sent(provider, server, which.model, **{field: 0.5})
    if which.name == "anthropic" and field != "top_p":
        with pytest.raises(InvalidRequestError, match=f"does not take {field}"):
            await asked
        assert not server.requests
        return
    body = await asked
    assert (body["generationConfig"][in_google] if which.name == "google" else body[field]) == 0.5


@without("google")
async def test_what_the_caller_adds_is_in_the_body(
    provider: BaseLLMProvider, server: FakeProvider, which: Provider
) -> None:
    body = await sent(provider, server, which.model, extra={"new_parameter": {"deep": [1]}})
    assert body["new_parameter"] == {"deep": [1]}


@only("google")
async def test_what_the_caller_adds_is_in_googles_body(
    provider: BaseLLMProvider, server: FakeProvider, which: Provider
) -> None:
    for streamed in (False, True):
        request = LLMRequest(
            model="m", messages=[HI], temperature=0.5, extra={"generationConfig": {"topK": 3}, "newField": [1]}
        )
        if streamed:
            [_ async for _ in provider.stream(request, which.model, timeout=20.0)]
        else:
            await provider.complete(request, which.model, timeout=20.0)
        body = server.requests[-1].body
        assert body["newField"] == [1]
        assert (body["generationConfig"]["topK"], body["generationConfig"]["temperature"]) == (3, 0.5)


@every()
@pytest.mark.parametrize("choice", ["auto", "required", "none", "get_weather"])
async def test_the_choice_of_tools_is_sent(
    provider: BaseLLMProvider, server: FakeProvider, which: Provider, choice: str
) -> None:
    named = {"type": "function", "function": {"name": choice}} if choice == "get_weather" else choice
    other = {**TOOL, "name": "other"}
    body = await sent(provider, server, which.model, tools=[TOOL, other], tool_choice=named)
    match which.name:
        case "anthropic":
            wanted = {"auto": "auto", "required": "any", "none": "none", "get_weather": "tool"}[choice]
            assert body["tool_choice"]["type"] == wanted
        case "google":
            config = body["toolConfig"]["functionCallingConfig"]
            # VALIDATED is AUTO with arguments that keep to their schema.
            assert config["mode"] == {"auto": "VALIDATED", "none": "NONE"}.get(choice, "ANY")
            assert config.get("allowedFunctionNames") == (["get_weather"] if choice == "get_weather" else None)
        case _:
            assert body["tool_choice"] == named


@every()
async def test_images_and_documents_go_along(provider: BaseLLMProvider, server: FakeProvider, which: Provider) -> None:
    image = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}}
    bare = {"type": "image_url", "image_url": {"url": PNG}}
    claude = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}}
    message = Message(role="user", content=[{"type": "text", "text": "what is it?"}, image, bare, claude])
    body = await sent(provider, server, which.model, messages=[message])
    assert json.dumps(body).count(PNG) == 3


@only("openai", "anthropic", "google")
@pytest.mark.parametrize("form", ["file", "document", "input_file"])
async def test_a_pdf_goes_along(provider: BaseLLMProvider, server: FakeProvider, which: Provider, form: str) -> None:
    url = f"data:application/pdf;base64,{PDF}"
    part = {
        "file": {"type": "file", "file": {"file_data": url, "filename": "a.pdf"}},
        "document": {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": PDF}},
        "input_file": {"type": "input_file", "file_data": PDF},
    }[form]
    message = Message(role="user", content=[part, {"type": "text", "text": "sum it up"}])
    assert PDF in json.dumps(await sent(provider, server, which.model, messages=[message]))


@only("openai", "anthropic")
async def test_the_url_of_an_image_is_sent_and_not_fetched(
    provider: BaseLLMProvider, server: FakeProvider, which: Provider
) -> None:
    url = f"{server.origin}/image.png"
    message = Message(role="user", content=[{"type": "image_url", "image_url": {"url": url, "detail": "low"}}])
    assert url in json.dumps(await sent(provider, server, which.model, messages=[message]))
    assert len(server.requests) == 1


IMAGE_URL = {"type": "image_url", "image_url": {"url": "http://127.0.0.1:9/image.png"}}
PDF_URL = {"type": "document", "source": {"type": "url", "url": "http://127.0.0.1:9/a.pdf"}}
INLINE_PDF = {"type": "file", "file": {"file_data": PDF}}


@pytest.mark.parametrize(
    ("name", "fields", "said"),
    [
        ("anthropic", {"seed": 7}, "seed"),
        ("anthropic", {"json_response": True}, "only with a schema"),
        ("anthropic", {"response_format": {"type": "json_object"}}, "only with a schema"),
        ("google", {"messages": [Message(role="user", content=[IMAGE_URL])]}, "image by its URL"),
        ("google", {"messages": [Message(role="user", content=[PDF_URL])]}, "PDF by its URL"),
        ("google", {"response_format": {"type": "grammar"}}, "google answers in"),
        ("openai", {"messages": [Message(role="user", content=[PDF_URL])]}, "PDF by its URL"),
        ("ollama", {"messages": [Message(role="user", content=[IMAGE_URL])]}, "image by its URL"),
        ("ollama", {"messages": [Message(role="user", content=[INLINE_PDF])]}, "PDF"),
        ("groq", {"messages": [Message(role="user", content=[IMAGE_URL])]}, "URL"),
        ("openai", {"messages": [Message(role="system", content=[INLINE_PDF])]}, "system message"),
        *(
            (name, {"messages": [Message(role="user", content=[{"type": "image_url", "image_url": url}])]}, "image")
            for name in ("openai", "anthropic", "google", "ollama", "groq")
            for url in (
                "/etc/passwd",
                "file:///etc/passwd",
                "gs://bucket/x.png",
                "data:image/png;base64,%",
                "data:text/csv,a",
                "",
                {"url": 4},
            )
        ),
        *(
            (name, {"tools": [TOOL], "tool_choice": "other"}, "tool_choice")
            for name in ("openai", "anthropic", "google", "ollama", "groq")
        ),
        *((name, {"extra": {"stream": True}}, "stream") for name in ("openai", "anthropic", "google", "groq")),
        *((name, {"extra": {"model": "dearer"}}, "model") for name in ("openai", "anthropic", "google", "groq")),
        *((name, {"extra": {"x": {1, 2}}}, "JSON") for name in ("openai", "anthropic", "google", "groq")),
        *((name, {"messages": []}, "no messages") for name in ("openai", "anthropic", "google", "groq")),
    ],
)
async def test_what_a_provider_cannot_do_is_refused_before_anything_is_sent(
    server: FakeProvider, name: str, fields: dict[str, Any], said: str
) -> None:
    [which] = [known for known in PROVIDERS if known.name == name]
    provider = create_provider(name, api_key=KEY, base_url=server.origin + which.suffix)
    request = LLMRequest(**{"model": "m", "messages": [HI], **fields})
    with pytest.raises(InvalidRequestError, match=said) as caught:
        await provider.complete(request, which.model, timeout=20.0)
    with pytest.raises(InvalidRequestError, match=said):
        await anext(aiter(provider.stream(request, which.model, timeout=20.0)))
    await provider.close()
    assert (caught.value.provider, caught.value.model) == (name, which.model)
    assert server.requests == []


SCHEMA = {"type": "object", "properties": {"echo": {"type": "string"}}, "required": ["echo"]}


@only("openai", "anthropic", "google", "ollama", "vllm")
@pytest.mark.parametrize(
    "form",
    [Place, {"type": "json_schema", "json_schema": {"name": "place", "schema": SCHEMA}}],
    ids=["model", "schema"],
)
async def test_an_answer_by_a_schema(
    provider: BaseLLMProvider, server: FakeProvider, which: Provider, form: Any
) -> None:
    request = sendable(LLMRequest(model="m", messages=[HI], response_format=form))
    whole, deltas = await answers(provider, request, which.model)
    assert json.loads(whole.content) == {"echo": "hi there"}
    assert "".join(delta.content for delta in deltas) == whole.content
    assert '"echo": {' in json.dumps(server.requests[0].body)


@only("openai", "google", "ollama", "vllm")
async def test_an_answer_in_json(provider: BaseLLMProvider, which: Provider) -> None:
    whole = await provider.complete(LLMRequest(model="m", messages=[HI], json_response=True), which.model, timeout=20.0)
    assert json.loads(whole.content) == {"echo": "hi there"}


@every()
async def test_an_answer_without_usage_is_an_answer_with_none(provider: BaseLLMProvider, which: Provider) -> None:
    whole, deltas = await answers(provider, LLMRequest(model="m", messages=[HI]), f"{which.model}--no_usage")
    assert (whole.content, whole.usage) == ("echo: hi there", None)
    assert deltas[-1].completion == whole


#: What each provider's rich usage body means.
RICH = {
    "openai": TokenUsage(
        prompt_tokens=100, completion_tokens=20, cache_read_tokens=40, cache_write_tokens=25, reasoning_tokens=5
    ),
    "anthropic": TokenUsage(
        prompt_tokens=100,
        completion_tokens=20,
        cache_read_tokens=40,
        cache_write_tokens=25,
        cache_write_1h_tokens=10,
        reasoning_tokens=5,
    ),
    "google": TokenUsage(prompt_tokens=100, completion_tokens=20, cache_read_tokens=40, reasoning_tokens=5),
}
RICH["ollama"] = RICH["openai"]


@every(OWN)
async def test_the_parts_of_the_usage_are_subsets_of_the_whole(provider: BaseLLMProvider, which: Provider) -> None:
    whole, deltas = await answers(provider, LLMRequest(model="m", messages=[HI]), f"{which.model}--rich_usage")
    assert whole.usage == RICH[which.name]
    assert deltas[-1].usage == RICH[which.name]


@only("openai")
async def test_reasoning_that_is_counted_besides_the_output_is_part_of_it(
    provider: BaseLLMProvider, server: FakeProvider, which: Provider
) -> None:
    body = {"model": which.model, "messages": [{"role": "user", "content": "hi"}]}
    details = {"completion_tokens_details": {"reasoning_tokens": 300}}
    counts = {"prompt_tokens": 12, "completion_tokens": 7, "total_tokens": 319}
    server.reply = Reply(body={**completion(body), "usage": {**counts, **details}})
    found = (await provider.complete(LLMRequest(model="m", messages=[HI]), which.model, timeout=20.0)).usage
    assert found == TokenUsage(prompt_tokens=12, completion_tokens=307, reasoning_tokens=300)


@only("google")
@pytest.mark.parametrize(
    ("reported", "expected"),
    [
        ({}, None),
        ({"promptTokenCount": 5, "totalTokenCount": 5}, TokenUsage(prompt_tokens=5, completion_tokens=0)),
        ({"promptTokenCount": 5}, TokenUsage(prompt_tokens=5)),
        (
            {"promptTokenCount": 5, "thoughtsTokenCount": 3},
            TokenUsage(prompt_tokens=5, completion_tokens=3, reasoning_tokens=3),
        ),
        ({"promptTokenCount": -5, "candidatesTokenCount": 3}, TokenUsage(completion_tokens=3)),
    ],
)
async def test_what_google_did_not_measure_is_none(
    provider: BaseLLMProvider, server: FakeProvider, which: Provider, reported: Any, expected: TokenUsage | None
) -> None:
    asked = Request(f"/v1beta/models/{which.model}:generateContent", {}, {"contents": [{"role": "user", "parts": []}]})
    server.reply = Reply(body={**GoogleWire().answer(asked), "usageMetadata": reported})
    assert (await provider.complete(LLMRequest(model="m", messages=[HI]), which.model, timeout=20.0)).usage == expected


@only("openai", "anthropic", "google", "ollama")
async def test_models_are_those_that_the_provider_lists(provider: BaseLLMProvider, which: Provider) -> None:
    listed = {
        "anthropic": ["claude-new", "claude-sonnet-4-5"],
        "google": ["gemini-2.5-flash", "gemini-new"],
    }.get(which.name, ["gpt-4o-mini", "gpt-new"])
    assert await provider.list_models() == listed


@only("openai", "anthropic", "google", "ollama")
async def test_a_listing_fails_like_a_call(provider: BaseLLMProvider, server: FakeProvider, which: Provider) -> None:
    server.reply = Reply(401, {"error": {"message": "canary", "type": "authentication_error", "code": 401}})
    with pytest.raises(AuthenticationError) as caught:
        await provider.list_models()
    assert "canary" not in str(caught.value)


@only("groq")
async def test_a_provider_whose_listing_is_not_known_lists_none(provider: BaseLLMProvider, which: Provider) -> None:
    assert await provider.list_models() is None


@every()
async def test_a_closed_provider_opens_again(provider: BaseLLMProvider, which: Provider) -> None:
    for _ in range(2):
        assert (await provider.complete(LLMRequest(model="m", messages=[HI]), which.model, timeout=20.0)).content
        await provider.close()
        await provider.close()
