"""The one module that touches pydantic-ai and the SDKs below it. Imported when a vendor is first called."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import httpx2
import openai
from openai.types.chat import ChatCompletion, ChatCompletionToolParam
from pydantic_ai import exceptions
from pydantic_ai.direct import model_request
from pydantic_ai.messages import (
    ModelMessage,
    ModelRequest,
    ModelResponse,
    ModelResponsePart,
    SystemPromptPart,
    TextPart,
    ToolCallPart,
    ToolReturnPart,
    UserPromptPart,
)
from pydantic_ai.models import ModelRequestParameters
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIChatModelSettings
from pydantic_ai.profiles.openai import OpenAIModelProfile
from pydantic_ai.providers.openai import OpenAIProvider
from pydantic_ai.settings import ModelSettings
from pydantic_ai.tools import ToolDefinition

from ..errors import InvalidRequestError, InvalidResponseError
from ..schemas import LLMRequest, TokenUsage
from . import _conversation as conversation
from ._failures import Failure
from .base import Completion

_FINISH_REASONS = {
    "stop": "stop",
    "length": "length",
    "tool_call": "tool_calls",
    "content_filter": "content_filter",
}

#: A count that nobody can mean; two smaller ones have a sum that fits 64 bits.
_TOO_MANY = 2**62

#: Models that refuse `max_tokens`; all others understand it, on every server that speaks the protocol.
_REASONING_MODELS = ("o1", "o3", "o4", "gpt-5", "gpt-6")


class _ChatModel(OpenAIChatModel):
    """Chat completions with tools as the caller wrote them and usage as the vendor reported it.

    The library fills in zeros for what a vendor did not report, and refuses an answer whose usage is incomplete.
    """

    def _map_tool_definition(self, f: ToolDefinition, model_settings: ModelSettings) -> ChatCompletionToolParam:
        function: Any = (f.metadata or {})["function"]
        return {"type": "function", "function": function}

    def _validate_completion(self, response: ChatCompletion) -> Any:
        return super()._validate_completion(
            response.model_copy(update={"usage": None, "reported_usage": _plain(response.usage)})
        )

    def _process_provider_details(self, response: ChatCompletion) -> dict[str, Any] | None:
        details = super()._process_provider_details(response) or {}
        return {**details, "usage": (response.model_extra or {}).get("reported_usage")}


def _plain(usage: Any) -> Any:
    return usage.model_dump(warnings=False) if hasattr(usage, "model_dump") else usage


class ChatCompletions:
    """Chat completions of one server that speaks OpenAI's protocol, over one pool of connections."""

    def __init__(
        self, *, api_key: str, has_key: bool, base_url: str | None, organization: str | None, from_environment: bool
    ) -> None:
        """`has_key` False: `api_key` is a placeholder. `from_environment` False keeps back what the environment holds
        for OpenAI, such as its project and headers."""
        self.has_key = has_key
        self._client = openai.AsyncOpenAI(
            api_key=api_key,
            base_url=base_url,
            organization=organization,
            max_retries=0,
            # A redirect would take the prompt to a server that nobody chose.
            http_client=openai.DefaultAsyncHttpxClient(follow_redirects=False),
        )
        if not from_environment:
            # The library reads them itself and knows no argument for "none".
            self._client.organization, self._client.project = organization, None
            self._client._custom_headers = {}
        self._provider = OpenAIProvider(openai_client=self._client)
        self._is_openai = self._client.base_url.host == "api.openai.com"

    @property
    def address(self) -> str:
        """Host and port, for people."""
        return self._client.base_url.netloc.decode()

    @staticmethod
    def failure(error: Exception) -> Failure:
        """What an exception of `complete` says of the call."""
        return _failure(error)

    async def complete(self, request: LLMRequest, model: str, *, timeout: float) -> Completion:
        """One request, once. Raises our own errors before it is sent, and the library's own afterwards."""
        tools = conversation.tools(request)
        answer = await model_request(
            self._model(model),
            _messages(request),
            model_settings=_settings(request, tools, timeout),
            model_request_parameters=ModelRequestParameters(function_tools=[_tool(tool) for tool in tools]),
            instrument=False,
        )
        return _completion(answer, model)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    def _model(self, name: str) -> OpenAIChatModel:
        return _ChatModel(
            name,
            provider=self._provider,
            profile=OpenAIModelProfile(
                json_schema_transformer=None,
                # With it the library drops a temperature that it thinks the model does not take.
                openai_supports_reasoning=False,
                openai_chat_supports_max_completion_tokens=self._is_openai or name.startswith(_REASONING_MODELS),
            ),
        )


def _messages(request: LLMRequest) -> list[ModelMessage]:
    tool_names: dict[str, str] = {}
    messages: list[ModelMessage] = []
    for message in conversation.messages(request):
        texts = conversation.texts(message)
        if message.role != "assistant" and not texts:
            raise InvalidRequestError(f"a {message.role} message has no content")
        match message.role:
            case "system":
                messages.append(ModelRequest([SystemPromptPart(text) for text in texts]))
            case "user":
                content = message.content if isinstance(message.content, str) else texts
                messages.append(ModelRequest([UserPromptPart(content)]))
            case "assistant":
                calls = conversation.tool_calls(message)
                tool_names.update({call.id: call.name for call in calls})
                parts: list[ModelResponsePart] = [TextPart(text) for text in texts]
                parts += [ToolCallPart(call.name, call.arguments, tool_call_id=call.id) for call in calls]
                if not parts:
                    raise InvalidRequestError("an assistant message has neither content nor tool calls")
                messages.append(ModelResponse(parts))
            case "tool":
                if message.tool_call_id is None:
                    raise InvalidRequestError("a tool message needs the tool_call_id that it answers")
                name = tool_names.get(message.tool_call_id, "tool")
                messages.append(ModelRequest([ToolReturnPart(name, "\n".join(texts), message.tool_call_id)]))
            case _:
                raise InvalidRequestError("the role of a message is system, user, assistant or tool")
    return messages


def _tool(tool: conversation.Tool) -> ToolDefinition:
    return ToolDefinition(
        name=tool.name,
        parameters_json_schema=tool.parameters,
        description=tool.description,
        metadata={"function": tool.function},
    )


def _settings(request: LLMRequest, tools: list[conversation.Tool], timeout: float) -> OpenAIChatModelSettings:
    settings = OpenAIChatModelSettings(timeout=timeout)
    if request.temperature is not None:
        settings["temperature"] = request.temperature
    if request.max_tokens is not None:
        settings["max_tokens"] = request.max_tokens
    if request.seed is not None:
        settings["seed"] = request.seed
    if request.stop is not None:
        settings["stop_sequences"] = [request.stop] if isinstance(request.stop, str) else request.stop
    if body := _body(request, tools):
        settings["extra_body"] = body
    return settings


def _body(request: LLMRequest, tools: list[conversation.Tool]) -> dict[str, Any]:
    """What is in OpenAI's form already, and what the caller adds: it goes into the request body as it is."""
    extra = request.extra or {}
    if not isinstance(extra, dict):
        raise InvalidRequestError("extra is a dict that goes into the request body")
    if extra.get("stream"):
        raise InvalidRequestError("extra asks for a stream, and this call returns one whole answer")
    forms = {
        "response_format": conversation.response_format(request),
        "tool_choice": conversation.tool_choice(request, tools),
    }
    body = {**{name: form for name, form in forms.items() if form is not None}, **extra}
    try:
        json.dumps(body)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidRequestError("response_format, tool_choice and extra must be JSON") from error
    return body


def _completion(answer: ModelResponse, model: str) -> Completion:
    details = answer.provider_details or {}
    refusal = details.get("refusal")
    content = (
        refusal
        if isinstance(refusal, str)
        else "".join(part.content for part in answer.parts if isinstance(part, TextPart))
    )
    calls = [_tool_call(part) for part in answer.parts if isinstance(part, ToolCallPart)]
    usage = _usage(details.get("usage"))
    if not content and not calls and usage is None:
        raise InvalidResponseError(f"{model} answered without text, tool call or usage", status_code=200)
    return Completion(
        content=content,
        model=answer.model_name or model,
        tool_calls=calls or None,
        finish_reason=_FINISH_REASONS.get(answer.finish_reason or ""),
        usage=usage,
        response_id=answer.provider_response_id,
    )


def _tool_call(part: ToolCallPart) -> dict[str, Any]:
    arguments = part.args if isinstance(part.args, str) else part.args_as_json_str()
    return {
        "id": part.tool_call_id,
        "type": "function",
        "function": {"name": part.tool_name, "arguments": arguments or "{}"},
    }


def _usage(reported: Any) -> TokenUsage | None:
    """OpenAI's counts: input includes what was cached, output includes reasoning, the details are subsets."""
    if not isinstance(reported, Mapping):
        return None
    inputs, outputs = reported.get("prompt_tokens_details"), reported.get("completion_tokens_details")
    usage = TokenUsage(
        prompt_tokens=_count(reported, "prompt_tokens"),
        completion_tokens=_count(reported, "completion_tokens"),
        cache_read_tokens=_count(inputs, "cached_tokens"),
        cache_write_tokens=_count(inputs, "cache_write_tokens"),
        reasoning_tokens=_count(outputs, "reasoning_tokens"),
    )
    return None if usage == TokenUsage() else usage


def _count(counts: Any, name: str) -> int | None:
    value = counts.get(name) if isinstance(counts, Mapping) else None
    is_count = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _TOO_MANY
    return value if is_count else None


def _failure(error: Exception) -> Failure:
    match error:
        case (
            TimeoutError()
            | exceptions.ModelTimeoutError()
            | exceptions.ModelRequestTimeout()
            | httpx2.TimeoutException()
        ):
            return Failure("timeout")
        case exceptions.ModelHTTPError():
            return _refused(error.status_code, error.body, error.headers or {})
        case openai.APIStatusError():
            return _refused(error.status_code, error.body, error.response.headers)
        case exceptions.ModelConnectionError() | openai.APIConnectionError():
            return _unreachable(error.__cause__)
        case httpx2.TransportError() | OSError():
            return Failure("unreachable")
        case exceptions.UserError() | UnicodeEncodeError() | httpx2.InvalidURL():
            return Failure("request")
        case exceptions.ModelAPIError() if isinstance(error.__cause__, openai.APIStatusError):
            return _failure(error.__cause__)
        case exceptions.ModelAPIError() | exceptions.UnexpectedModelBehavior():
            return Failure("response", status=200)
    return Failure("response")


def _unreachable(cause: BaseException | None) -> Failure:
    match cause:
        case httpx2.DecodingError() | httpx2.TooManyRedirects():
            return Failure("response")
        case httpx2.UnsupportedProtocol() | httpx2.LocalProtocolError() | httpx2.InvalidURL():
            return Failure("request")
        case openai.APIConnectionError():
            return _unreachable(cause.__cause__)
    return Failure("unreachable")


def _refused(status: int, body: object, headers: Mapping[str, str]) -> Failure:
    facts: Mapping[str, Any] = body if isinstance(body, Mapping) else {}
    inner = facts.get("innererror")
    codes = [facts.get("code"), inner.get("code") if isinstance(inner, Mapping) else None, facts.get("type")]
    message = body if isinstance(body, str) else facts.get("message") or facts.get("detail")
    return Failure(
        "http",
        status=status,
        codes=tuple(code for code in codes if isinstance(code, str)),
        parameter=param if isinstance(param := facts.get("param"), str) else None,
        message=message if isinstance(message, str) else None,
        headers={name.lower(): value for name, value in headers.items()},
    )
