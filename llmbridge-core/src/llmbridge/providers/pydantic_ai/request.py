"""Reads messages, tools and response format from the accepted formats of a request."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Literal

from ...errors import InvalidRequestError
from ...schemas import LLMRequest, Message
from .media import Media, media


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A tool call in an earlier assistant message; `arguments` is JSON text."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Tool:
    """An offered tool. `function` is its definition in OpenAI's format, with everything that the caller gave."""

    name: str
    function: dict[str, Any]

    @property
    def description(self) -> str | None:
        """Return the description for the model."""
        return self.function.get("description")

    @property
    def parameters(self) -> dict[str, Any]:
        """Return the JSON schema of the arguments, as the caller wrote it."""
        return self.function.get("parameters") or {"type": "object", "properties": {}}


def messages(request: LLMRequest) -> list[Message]:
    """Return the messages to send.

    :raises InvalidRequestError: there are none, or one of them is not a Message
    """
    found: Any = request.messages
    if not isinstance(found, list) or not found:
        raise InvalidRequestError("the request has no messages")
    if not all(isinstance(message, Message) for message in found):
        raise InvalidRequestError("each message of a request must be a Message")
    return found


def parts(message: Message) -> list[str | Media]:
    """Return the parts of a message in order: text, and images and documents if it is a user message.

    :raises InvalidRequestError: it has a part that cannot be sent
    """
    if message.content is None:
        return []
    if isinstance(message.content, str):
        return [message.content]
    if not isinstance(message.content, list):
        raise InvalidRequestError(f"the content of a {message.role} message must be text or a list of parts")
    return [_part(part, message.role) for part in message.content]


def _part(part: Any, role: str) -> str | Media:
    if isinstance(part, str):
        return part
    if isinstance(part, dict):
        if part.get("type", "text") in ("text", "input_text") and isinstance(part.get("text"), str):
            text: str = part["text"]
            return text
        found = media(part)
        if found is not None and role == "user":
            return found
    raise InvalidRequestError(
        f"a {role} message has a part that cannot be sent; only user messages may have images and PDF"
    )


def texts(message: Message) -> list[str]:
    """Return the parts of a message that may only have text, in order.

    :raises InvalidRequestError: it has a part that is not text
    """
    return [part for part in parts(message) if isinstance(part, str)]


def tool_calls(message: Message) -> list[ToolCall]:
    """Return the tool calls of an assistant message, from OpenAI's format or the flat `{"id", "name", "arguments"}`."""
    return [_tool_call(call) for call in _dicts(message.tool_calls, "the tool calls of an assistant message")]


def _dicts(found: Any, what: str) -> list[dict[str, Any]]:
    if found is None:
        return []
    if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
        raise InvalidRequestError(f"{what} must be a list of dicts")
    return found


def _tool_call(call: dict[str, Any]) -> ToolCall:
    function = call.get("function", call)
    if not isinstance(function, dict):
        raise InvalidRequestError("the function of a tool call must be a dict with name and arguments")
    name, arguments = function.get("name"), function.get("arguments")
    if not isinstance(name, str) or not name or not isinstance(call.get("id"), str):
        raise InvalidRequestError("a tool call of an assistant message needs an id and a name")
    if not isinstance(arguments, str):
        arguments = _json_text({} if arguments is None else arguments)
    return ToolCall(call["id"], name, arguments or "{}")


def _json_text(value: Any) -> str:
    try:
        return json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidRequestError("the arguments of a tool call are not JSON") from error


def tools(request: LLMRequest) -> list[Tool]:
    """Return the offered tools, from OpenAI's format or the flat `{"name", "description", "parameters"}`."""
    return [_tool(tool) for tool in _dicts(request.tools, "tools")]


def _tool(tool: dict[str, Any]) -> Tool:
    if tool.get("type", "function") != "function":
        raise InvalidRequestError("a tool whose type is not function cannot be sent")
    function = tool["function"] if "function" in tool else _without_type(tool)
    if not isinstance(function, dict):
        raise InvalidRequestError("the function of a tool must be a dict with name, description and parameters")
    name = function.get("name")
    if not isinstance(name, str) or not name:
        raise InvalidRequestError("a tool needs a name")
    if not isinstance(function.get("description"), str | None):
        raise InvalidRequestError("the description of a tool must be text")
    if not isinstance(function.get("parameters"), dict | None):
        raise InvalidRequestError("the parameters of a tool must be a JSON schema as a dict")
    return Tool(name, function)


def _without_type(tool: dict[str, Any]) -> dict[str, Any]:
    return {field: value for field, value in tool.items() if field != "type"}


def tool_choice(request: LLMRequest, offered: list[Tool]) -> str | dict[str, Any] | None:
    """Return the tool choice in OpenAI's format; None if the caller set none.

    :raises InvalidRequestError: it is not a valid choice, or names a tool that is not offered
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
        raise InvalidRequestError("tool_choice must be 'auto', 'none', 'required' or name one function")
    if name not in names:
        raise InvalidRequestError("tool_choice names a tool that the request does not offer")
    return {"type": "function", "function": {"name": name}}


@dataclass(frozen=True, slots=True)
class ResponseSchema:
    """The JSON schema of the response. `strict` is None if the caller did not set it."""

    name: str
    schema: dict[str, Any]
    description: str | None = None
    strict: bool | None = None


def response_format(request: LLMRequest) -> Literal["text", "json"] | ResponseSchema | dict[str, Any]:
    """Return the response format that was asked for; a dict is one that only OpenAI's protocol may know.

    :raises InvalidRequestError: it is not a valid format
    """
    form = request.response_format
    if form is None:
        return "json" if request.wants_json else "text"
    match form:
        case {"type": "text"}:
            return "text"
        case {"type": "json_object" | "json"}:
            return "json"
        case {"type": "json_schema", "json_schema": {"schema": dict(schema), **more}}:
            name, description, strict = more.get("name"), more.get("description"), more.get("strict")
            return ResponseSchema(
                name if isinstance(name, str) else "answer",
                schema,
                description if isinstance(description, str) else None,
                strict if isinstance(strict, bool) else None,
            )
        case {"type": "json_schema"}:
            raise InvalidRequestError("a response_format of type json_schema needs json_schema with its schema")
        case dict():
            return form
    raise InvalidRequestError("a response_format must be a dict here: send a model as its JSON schema")


def extra_body(request: LLMRequest) -> dict[str, Any]:
    """Return the fields that the caller adds to the request body.

    :raises InvalidRequestError: they are not JSON, or contain `stream` or `model`
    """
    added: Any = request.extra or {}
    if not isinstance(added, dict):
        raise InvalidRequestError("extra must be a dict: it is added to the request body")
    if "stream" in added:
        raise InvalidRequestError("extra cannot set stream; call chat() or stream()")
    if "model" in added:
        raise InvalidRequestError("extra cannot set model; name it in LLMRequest.model")
    try:
        json.dumps([added, request.response_format if isinstance(request.response_format, dict) else None])
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidRequestError("response_format, tool_choice and extra must be JSON") from error
    return added
