"""A request's messages and tools in one form, whichever of the accepted ones the caller wrote."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Literal

from ...errors import InvalidRequestError
from ...schemas import LLMRequest, Message
from .media import Media, media


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


def messages(request: LLMRequest) -> list[Message]:
    """The messages to send.

    :raises InvalidRequestError: there are none, or one of them is no message
    """
    found: Any = request.messages
    if not isinstance(found, list) or not found:
        raise InvalidRequestError("the request has no messages")
    if not all(isinstance(message, Message) for message in found):
        raise InvalidRequestError("every message of a request is a Message")
    return found


def parts(message: Message) -> list[str | Media]:
    """What a message says, in order: text, images and documents, the latter of users alone.

    :raises InvalidRequestError: it has a part that cannot be sent
    """
    if message.content is None:
        return []
    if isinstance(message.content, str):
        return [message.content]
    if not isinstance(message.content, list):
        raise InvalidRequestError(f"the content of a {message.role} message is text or a list of parts")
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
    raise InvalidRequestError(f"a {role} message has a part that cannot be sent; users send text, images and PDF")


def texts(message: Message) -> list[str]:
    """The text parts of a message that is no user's, in order.

    :raises InvalidRequestError: it has a part that is not text
    """
    return [part for part in parts(message) if isinstance(part, str)]


def tool_calls(message: Message) -> list[ToolCall]:
    """The calls of an assistant message, from OpenAI's form or the flat `{"id", "name", "arguments"}`."""
    return [_tool_call(call) for call in _dicts(message.tool_calls, "the tool calls of an assistant message")]


def _dicts(found: Any, what: str) -> list[dict[str, Any]]:
    if found is None:
        return []
    if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
        raise InvalidRequestError(f"{what} are a list of dicts")
    return found


def _tool_call(call: dict[str, Any]) -> ToolCall:
    function = call.get("function", call)
    if not isinstance(function, dict):
        raise InvalidRequestError("the function of a tool call is a dict with name and arguments")
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
    """The tools on offer, from OpenAI's form or the flat `{"name", "description", "parameters"}`."""
    return [_tool(tool) for tool in _dicts(request.tools, "tools")]


def _tool(tool: dict[str, Any]) -> Tool:
    if tool.get("type", "function") != "function":
        raise InvalidRequestError("a tool that is no function cannot be sent")
    function = tool["function"] if "function" in tool else _without_type(tool)
    if not isinstance(function, dict):
        raise InvalidRequestError("the function of a tool is a dict with name, description and parameters")
    name = function.get("name")
    if not isinstance(name, str) or not name:
        raise InvalidRequestError("a tool needs a name")
    if not isinstance(function.get("description"), str | None):
        raise InvalidRequestError("the description of a tool is text")
    if not isinstance(function.get("parameters"), dict | None):
        raise InvalidRequestError("the parameters of a tool are a JSON schema, a dict")
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
        raise InvalidRequestError("tool_choice names a tool that the request does not offer")
    return {"type": "function", "function": {"name": name}}


@dataclass(frozen=True, slots=True)
class AnswerSchema:
    """The JSON schema that the answer is to keep to. `strict` None: the caller did not say."""

    name: str
    schema: dict[str, Any]
    description: str | None = None
    strict: bool | None = None


def answer_form(request: LLMRequest) -> Literal["text", "json"] | AnswerSchema | dict[str, Any]:
    """The form of the answer that was asked for; a dict is one that only OpenAI's protocol may know.

    :raises InvalidRequestError: it is no form
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
            return AnswerSchema(
                name if isinstance(name, str) else "answer",
                schema,
                description if isinstance(description, str) else None,
                strict if isinstance(strict, bool) else None,
            )
        case {"type": "json_schema"}:
            raise InvalidRequestError("a response_format of type json_schema needs json_schema with its schema")
        case dict():
            return form
    raise InvalidRequestError("a model as response_format is sent by its JSON schema")


def additions(request: LLMRequest) -> dict[str, Any]:
    """What the caller adds to the request's body.

    :raises InvalidRequestError: it is no JSON, asks for a stream, or names another model than the one that is charged
    """
    added: Any = request.extra or {}
    if not isinstance(added, dict):
        raise InvalidRequestError("extra is a dict that goes into the request body")
    if "stream" in added:
        raise InvalidRequestError("extra cannot decide whether the answer is streamed; call chat() or stream()")
    if "model" in added:
        raise InvalidRequestError("extra cannot decide which model answers; name it in LLMRequest.model")
    try:
        json.dumps([added, request.response_format if isinstance(request.response_format, dict) else None])
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidRequestError("response_format, tool_choice and extra must be JSON") from error
    return added
