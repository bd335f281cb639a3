"""Converts a request to the messages, tools and settings of pydantic-ai."""

from __future__ import annotations

from typing import Any

from pydantic_ai.messages import (
    BinaryContent,
    DocumentUrl,
    ImageUrl,
    ModelMessage,
    ModelRequest,
    ModelRequestPart,
    ModelResponse,
    ModelResponsePart,
    SystemPromptPart,
    TextPart,
    ToolCallPart,
    ToolReturnPart,
    UserContent,
    UserPromptPart,
)
from pydantic_ai.settings import ModelSettings
from pydantic_ai.tools import ToolDefinition

from ....errors import InvalidRequestError
from ....schemas import LLMRequest, Message
from .. import request as conversation
from ..media import Media


def messages(request: LLMRequest) -> list[ModelMessage]:
    """Return the messages of the request. Messages without an assistant message between them are one request, so that
    the results of several tools are sent together.

    :raises InvalidRequestError: a message is incomplete, or has a part that cannot be sent
    """
    tool_names: dict[str, str] = {}
    found: list[ModelMessage] = []
    for message in conversation.messages(request):
        if message.role == "assistant":
            calls = conversation.tool_calls(message)
            tool_names.update({call.id: call.name for call in calls})
            found.append(_assistant(message, calls))
            continue
        if not found or not isinstance(found[-1], ModelRequest):
            found.append(ModelRequest([]))
        found[-1] = ModelRequest([*found[-1].parts, *_request_parts(message, tool_names)])
    return found


def _assistant(message: Message, calls: list[conversation.ToolCall]) -> ModelResponse:
    said: list[ModelResponsePart] = [TextPart(text) for text in conversation.texts(message)]
    said += [ToolCallPart(call.name, call.arguments, tool_call_id=call.id) for call in calls]
    if not said:
        raise InvalidRequestError("an assistant message has neither content nor tool calls")
    return ModelResponse(said)


def _request_parts(message: Message, tool_names: dict[str, str]) -> list[ModelRequestPart]:
    said = conversation.parts(message)
    if not said:
        raise InvalidRequestError(f"a {message.role} message has no content")
    match message.role:
        case "system":
            return [SystemPromptPart(text) for text in conversation.texts(message)]
        case "user":
            content = message.content if isinstance(message.content, str) else [_content(part) for part in said]
            return [UserPromptPart(content)]
        case "tool":
            if message.tool_call_id is None:
                raise InvalidRequestError("a tool message needs the tool_call_id of the call that it answers")
            name = tool_names.get(message.tool_call_id, "tool")
            return [ToolReturnPart(name, "\n".join(conversation.texts(message)), message.tool_call_id)]
        case _:
            raise InvalidRequestError("the role of a message is system, user, assistant or tool")


def _content(part: str | Media) -> UserContent:
    if isinstance(part, str):
        return part
    detail = {"detail": part.detail} if part.detail is not None else None
    if part.data is not None:
        return BinaryContent(part.data, media_type=part.media_type, vendor_metadata=detail)
    if part.is_image:
        return ImageUrl(part.url or "", vendor_metadata=detail)
    return DocumentUrl(part.url or "", media_type=part.media_type)


def media(request: LLMRequest) -> list[Media]:
    """Return the images and documents of all messages."""
    return [
        part
        for message in conversation.messages(request)
        for part in conversation.parts(message)
        if isinstance(part, Media)
    ]


def tool(offered: conversation.Tool) -> ToolDefinition:
    """Return the definition of an offered tool."""
    strict = offered.function.get("strict")
    return ToolDefinition(
        name=offered.name,
        parameters_json_schema=offered.parameters,
        description=offered.description,
        strict=strict if isinstance(strict, bool) else None,
        metadata={"function": offered.function},
    )


def settings(request: LLMRequest, timeout: float) -> ModelSettings:
    """Return the parameters that the caller set and most providers accept. None is not sent; 0 is sent as 0."""
    chosen = ModelSettings(timeout=timeout)
    if request.temperature is not None:
        chosen["temperature"] = request.temperature
    if request.top_p is not None:
        chosen["top_p"] = request.top_p
    if request.presence_penalty is not None:
        chosen["presence_penalty"] = request.presence_penalty
    if request.frequency_penalty is not None:
        chosen["frequency_penalty"] = request.frequency_penalty
    if request.max_tokens is not None:
        chosen["max_tokens"] = request.max_tokens
    if request.seed is not None:
        chosen["seed"] = request.seed
    if request.stop is not None:
        chosen["stop_sequences"] = [request.stop] if isinstance(request.stop, str) else request.stop
    return chosen


def tool_choice(request: LLMRequest, tools: list[conversation.Tool]) -> Any:
    """Return the tool choice in pydantic-ai's format; None if the caller set none."""
    choice = conversation.tool_choice(request, tools)
    return [choice["function"]["name"]] if isinstance(choice, dict) else choice
