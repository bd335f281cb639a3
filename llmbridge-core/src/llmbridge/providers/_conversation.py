"""A request's messages and tools in one form, whichever of the accepted ones the caller wrote."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ..errors import InvalidRequestError
from ..schemas import LLMRequest, Message


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call that the assistant made earlier; `arguments` is JSON text."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool on offer. `function` is its description in OpenAI's form, with everything that the caller gave."""

    name: str
    function: dict[str, Any]

    @property
    def description(self) -> str | None:
        """What the tool does, for the model."""
        return self.function.get("description")

    @property
    def parameters(self) -> dict[str, Any]:
        """The JSON schema of the arguments, as the caller wrote it."""
        return self.function.get("parameters") or {"type": "object", "properties": {}}


def texts(message: Message) -> list[str]:
    """The text parts of a message, in order.

    :raises InvalidRequestError: it has a part that is not text
    """
    if message.content is None:
        return []
    if isinstance(message.content, str):
        return [message.content]
    if not isinstance(message.content, list):
        raise InvalidRequestError(f"the content of a {message.role} message is text or a list of parts")
    return [_text_part(part, message.role) for part in message.content]


def _text_part(part: Any, role: str) -> str:
    if isinstance(part, str):
        return part
    if isinstance(part, dict) and part.get("type", "text") == "text" and isinstance(part.get("text"), str):
        text: str = part["text"]
        return text
    kind = part.get("type") if isinstance(part, dict) else type(part).__name__
    raise InvalidRequestError(f"a {role} message has a part of type {kind!r}; only text can be sent")


def tool_calls(message: Message) -> list[ToolCall]:
    """The calls of an assistant message, from OpenAI's form or the flat `{"id", "name", "arguments"}`."""
    return [_tool_call(call) for call in message.tool_calls or ()]


def _tool_call(call: dict[str, Any]) -> ToolCall:
    function = call["function"] if isinstance(call.get("function"), dict) else call
    name, arguments = function.get("name"), function.get("arguments")
    if not isinstance(name, str) or not name or not isinstance(call.get("id"), str):
        raise InvalidRequestError("a tool call of an assistant message needs an id and a name")
    if not isinstance(arguments, str):
        arguments = _json_text({} if arguments is None else arguments)
    return ToolCall(call["id"], name, arguments or "{}")


def _json_text(value: Any) -> str:
    try:
        return json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError) as error:
        raise InvalidRequestError("the arguments of a tool call are not JSON") from error


def tools(request: LLMRequest) -> list[Tool]:
    """The tools on offer, from OpenAI's form or the flat `{"name", "description", "parameters"}`."""
    return [_tool(tool) for tool in request.tools or ()]


def _tool(tool: dict[str, Any]) -> Tool:
    kind = tool.get("type", "function")
    if kind != "function":
        raise InvalidRequestError(f"a tool of type {kind!r} cannot be sent; only functions can")
    function = tool["function"] if isinstance(tool.get("function"), dict) else _without_type(tool)
    name = function.get("name")
    if not isinstance(name, str) or not name:
        raise InvalidRequestError("a tool needs a name")
    return Tool(name, function)


def _without_type(tool: dict[str, Any]) -> dict[str, Any]:
    return {field: value for field, value in tool.items() if field != "type"}


def tool_choice(request: LLMRequest, offered: list[Tool]) -> str | dict[str, Any] | None:
    """How tools may be chosen, in OpenAI's form; None when the caller did not say.

    :raises InvalidRequestError: it is no choice, or asks for a tool that is not on offer
    """
    choice = request.tool_choice
    if choice is None or choice in ("auto", "none"):
        return choice if offered else None
    names = [tool.name for tool in offered]
    if choice == "required":
        if not names:
            raise InvalidRequestError("tool_choice is 'required' and the request offers no tools")
        return "required"
    function = choice.get("function", choice) if isinstance(choice, dict) else {}
    name = function.get("name") if isinstance(function, dict) else None
    if not isinstance(name, str):
        raise InvalidRequestError("tool_choice is 'auto', 'none', 'required' or names one function")
    if name not in names:
        raise InvalidRequestError(f"tool_choice names the tool {name!r}, which the request does not offer")
    return {"type": "function", "function": {"name": name}}


def response_format(request: LLMRequest) -> dict[str, Any] | None:
    """The form of the answer that was asked for, in OpenAI's form; None is free text."""
    if request.response_format is not None:
        return request.response_format
    return {"type": "json_object"} if request.json_response else None


def strings(value: Any) -> Iterator[str]:
    """Every text inside a value made of dicts and lists."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from strings(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from strings(inner)


def private_texts(request: LLMRequest) -> Iterator[str]:
    """Every text of the request that no log and no exception may repeat."""
    for message in request.messages:
        yield from strings(message.content)
        yield from strings(message.tool_calls)
    yield from strings(request.extra)
