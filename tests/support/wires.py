"""Bodies and events of three protocols of providers, valid and invalid ones.

The response repeats the last user text, so that tests can say what they expect. A request with tools and without a tool
result calls the first tool; one with a JSON format gets `{"echo": "..."}`. Ollama uses OpenAI's protocol.
"""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar


@dataclass(frozen=True)
class Reply:
    """An answer, literally. A `body` that is not bytes goes out as JSON."""

    status: int = 200
    body: Any = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    content_type: str = "application/json"


@dataclass(frozen=True)
class Request:
    """What arrived. `headers` have names in lower case. `forced` is a fault that the model's name does not tell."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]
    forced: str = ""

    @property
    def model(self) -> str:
        """The model that was asked for."""
        named = re.search(r"/models/([^/:]+):", self.path)
        return named[1] if named else str(self.body.get("model", ""))

    @property
    def fault(self) -> str:
        """The fault that is asked for, or nothing."""
        return self.forced or self.model.partition("--")[2]

    @property
    def wants_stream(self) -> bool:
        """Whether the answer is to come in pieces."""
        return bool(self.body.get("stream")) or ":streamGenerateContent" in self.path


#: fault -> status, and the error's code in each of the three formats
STATUS = {
    "rate_limit": 429,
    "quota": 429,
    "auth": 401,
    "forbidden": 403,
    "not_found": 404,
    "bad_request": 400,
    "context_length": 400,
    "content_filter": 400,
    "too_large": 413,
    "server_error": 500,
    "unavailable": 503,
    "overloaded": 529,
}


class Wire(ABC):
    """One wire format. `usages` are what it reports by fault, None nothing at all."""

    path: ClassVar[re.Pattern[str]]
    usages: ClassVar[Mapping[str, dict[str, Any] | None]]
    models: ClassVar[dict[str, Any]]

    def usage(self, request: Request) -> dict[str, Any] | None:
        return self.usages.get(request.fault, self.usages[""])

    @abstractmethod
    def answer(self, request: Request) -> dict[str, Any]:
        """A good answer."""

    @abstractmethod
    def events(self, request: Request) -> list[bytes]:
        """The same in pieces."""

    @abstractmethod
    def refusal(self, fault: str, message: str) -> dict[str, Any]:
        """An error in the provider's form."""

    @abstractmethod
    def stream_error(self) -> bytes:
        """An error in the middle of a stream."""


def sse(*bodies: Any, named: bool = False) -> list[bytes]:
    """Server-sent events."""
    head = "event: {}\ndata: {}\n\n" if named else "data: {1}\n\n"
    return [head.format(body.get("type", ""), json.dumps(body)).encode() for body in bodies]


def pieces(text: str) -> list[str]:
    return re.findall(r"\S+\s*", text) or [""]


def _parts(content: Any) -> Iterator[dict[str, Any]]:
    if isinstance(content, str):
        yield {"text": content}
    else:
        yield from content or ()


def echo(turns: list[dict[str, Any]], wants_json: bool) -> str:
    """What the last user said, and what else came with it."""
    said = next(([*_parts(turn.get("content", turn.get("parts")))] for turn in reversed(turns) if _is_user(turn)), [])
    text = " ".join(part["text"] for part in said if "text" in part)
    if wants_json:
        return json.dumps({"echo": text})
    kinds = [part.get("type", "data") for part in said if "text" not in part]
    return f"echo: {text}" + (f" [{', '.join(kinds)}]" if kinds else "")


def _is_user(turn: dict[str, Any]) -> bool:
    return turn.get("role") == "user"


class OpenAIWire(Wire):
    """Chat completions."""

    path = re.compile(r"(/openai)?/v1/chat/completions")
    usages: ClassVar[Mapping[str, dict[str, Any] | None]] = {
        "": {
            "prompt_tokens": 12,
            "completion_tokens": 7,
            "total_tokens": 19,
            "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
        },
        "rich_usage": {
            "prompt_tokens": 100,
            "completion_tokens": 20,
            "total_tokens": 120,
            "prompt_tokens_details": {"cached_tokens": 40, "cache_write_tokens": 25},
            "completion_tokens_details": {"reasoning_tokens": 5},
        },
        "no_usage": None,
        "silent": None,
    }
    models: ClassVar[dict[str, Any]] = {
        "object": "list",
        "data": [{"id": name, "object": "model"} for name in ("gpt-new", "gpt-4o-mini")],
    }
    codes: ClassVar[Mapping[str, Any]] = {
        "rate_limit": ("rate_limit_exceeded", "requests"),
        "quota": ("insufficient_quota", "insufficient_quota"),
        "auth": ("invalid_api_key", "invalid_request_error"),
        "forbidden": ("forbidden", "invalid_request_error"),
        "not_found": ("model_not_found", "invalid_request_error"),
        "bad_request": ("invalid_value", "invalid_request_error"),
        "context_length": ("context_length_exceeded", "invalid_request_error"),
        "content_filter": ("content_policy_violation", "invalid_request_error"),
        "too_large": ("request_too_large", "invalid_request_error"),
        "server_error": ("server_error", "server_error"),
        "unavailable": ("unavailable", "server_error"),
        "overloaded": ("overloaded", "server_error"),
    }

    def answer(self, request: Request) -> dict[str, Any]:
        finish = "length" if request.fault == "length" else "stop"
        made = completion(request.body, text="" if request.fault == "silent" else None, finish_reason=finish)
        if request.fault == "terms":
            made["service_tier"] = "priority"
        usage = self.usage(request)
        return {**made, "usage": usage} if usage is not None else {k: v for k, v in made.items() if k != "usage"}

    def events(self, request: Request) -> list[bytes]:
        whole = self.answer(request)
        [choice] = whole.pop("choices")
        usage = whole.pop("usage", None)
        head = {**whole, "object": "chat.completion.chunk"}
        message = choice["message"]
        deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
        if message.get("tool_calls"):
            deltas += [{"tool_calls": [{"index": 0, **message["tool_calls"][0]}]}]
        else:
            deltas += [{"content": piece} for piece in pieces(message["content"])]
        rows = [{**head, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
        rows.append({**head, "choices": [{"index": 0, "delta": {}, "finish_reason": choice["finish_reason"]}]})
        if usage is not None and request.body.get("stream_options", {}).get("include_usage"):
            rows.append({**head, "choices": [], "usage": usage})
        elif usage is not None and request.path.startswith("/openai/"):  # Groq asks for nothing and has its own place
            rows[-1]["x_groq"] = {"id": "req_fake", "usage": usage}
        return [*sse(*rows), b"data: [DONE]\n\n"]

    def refusal(self, fault: str, message: str) -> dict[str, Any]:
        code, kind = self.codes[fault]
        return {"error": {"message": message, "type": kind, "param": None, "code": code}}

    def stream_error(self) -> bytes:
        [event] = sse({"error": {"message": "The canary had an error", "type": "server_error", "code": None}})
        return event


def completion(body: dict[str, Any], *, text: str | None = None, finish_reason: str = "stop") -> dict[str, Any]:
    """A good answer to a request's body, as OpenAI has it."""
    wants_json = body.get("response_format", {}).get("type") in ("json_object", "json_schema")
    said = echo(body["messages"], wants_json) if text is None else text
    message: dict[str, Any] = {"role": "assistant", "content": said, "refusal": None}
    tools = [tool["function"]["name"] for tool in body.get("tools", ())]
    if tools and not any(earlier["role"] == "tool" for earlier in body["messages"]):
        call = {"id": "call_1", "type": "function", "function": {"name": tools[0], "arguments": '{"city": "Lima"}'}}
        message.update(content=None, tool_calls=[call])
        finish_reason = "tool_calls"
    return {
        "id": "chatcmpl-fake",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": body["model"],
        "choices": [{"index": 0, "message": message, "finish_reason": finish_reason, "logprobs": None}],
        "usage": OpenAIWire.usages[""],
    }


class AnthropicWire(Wire):
    """Messages."""

    path = re.compile(r"/v1/messages")
    usages: ClassVar[Mapping[str, dict[str, Any] | None]] = {
        "": {"input_tokens": 12, "output_tokens": 7, "service_tier": "standard"},
        "rich_usage": {
            "input_tokens": 35,
            "output_tokens": 20,
            "cache_read_input_tokens": 40,
            "cache_creation_input_tokens": 25,
            "cache_creation": {"ephemeral_5m_input_tokens": 15, "ephemeral_1h_input_tokens": 10},
            "output_tokens_details": {"thinking_tokens": 5},
        },
        "terms": {
            "input_tokens": 12,
            "output_tokens": 7,
            "service_tier": "standard",
            "speed": "fast",
            "inference_geo": "us",
        },
        "no_usage": None,
        "silent": None,
    }
    models: ClassVar[dict[str, Any]] = {
        "data": [
            {"type": "model", "id": name, "display_name": name, "created_at": "2025-01-01T00:00:00Z"}
            for name in ("claude-new", "claude-sonnet-4-5")
        ],
        "has_more": False,
        "first_id": "claude-new",
        "last_id": "claude-sonnet-4-5",
    }
    codes: ClassVar[Mapping[str, Any]] = {
        "rate_limit": "rate_limit_error",
        "quota": "invalid_request_error",
        "auth": "authentication_error",
        "forbidden": "permission_error",
        "not_found": "not_found_error",
        "bad_request": "invalid_request_error",
        "context_length": "invalid_request_error",
        "content_filter": "invalid_request_error",
        "too_large": "request_too_large",
        "server_error": "api_error",
        "unavailable": "api_error",
        "overloaded": "overloaded_error",
    }

    def answer(self, request: Request) -> dict[str, Any]:
        body = request.body
        text = echo(body["messages"], "output_config" in body)
        block: dict[str, Any] = {"type": "text", "text": "" if request.fault == "silent" else text}
        stop = "max_tokens" if request.fault == "length" else "end_turn"
        results = [part for turn in body["messages"] for part in _parts(turn["content"])]
        if body.get("tools") and not any(part.get("type") == "tool_result" for part in results):
            name = body["tools"][0]["name"]
            block, stop = {"type": "tool_use", "id": "toolu_1", "name": name, "input": {"city": "Lima"}}, "tool_use"
        made = {
            "id": "msg_fake",
            "type": "message",
            "role": "assistant",
            "model": body["model"],
            "content": [block],
            "stop_reason": stop,
            "stop_sequence": None,
        }
        usage = self.usage(request)
        return made if usage is None else {**made, "usage": usage}

    def events(self, request: Request) -> list[bytes]:
        whole = self.answer(request)
        [block] = whole["content"]
        usage = whole.get("usage")
        start = {**whole, "content": [], "stop_reason": None}
        if usage is not None:
            start["usage"] = {**usage, "output_tokens": 1}
        rows: list[dict[str, Any]] = [{"type": "message_start", "message": start}]
        if block["type"] == "tool_use":
            rows.append({"type": "content_block_start", "index": 0, "content_block": {**block, "input": {}}})
            deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in ('{"city": ', '"Lima"}')]
        else:
            rows.append({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}})
            deltas = [{"type": "text_delta", "text": piece} for piece in pieces(block["text"])]
        rows += [{"type": "content_block_delta", "index": 0, "delta": delta} for delta in deltas]
        rows.append({"type": "content_block_stop", "index": 0})
        last = {"type": "message_delta", "delta": {"stop_reason": whole["stop_reason"], "stop_sequence": None}}
        if usage is not None:
            last["usage"] = {"output_tokens": usage["output_tokens"]}
        return sse(*rows, last, {"type": "message_stop"}, named=True)

    def refusal(self, fault: str, message: str) -> dict[str, Any]:
        return {"type": "error", "error": {"type": self.codes[fault], "message": message}, "request_id": "req_fake"}

    def stream_error(self) -> bytes:
        error = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded with the canary"}}
        [event] = sse(error, named=True)
        return event


class GoogleWire(Wire):
    """generateContent."""

    path = re.compile(r"/v1beta/models/[^/]+:(streamG|g)enerateContent")
    usages: ClassVar[Mapping[str, dict[str, Any] | None]] = {
        "": {"promptTokenCount": 12, "candidatesTokenCount": 7, "totalTokenCount": 19},
        "rich_usage": {
            "promptTokenCount": 90,
            "toolUsePromptTokenCount": 10,
            "cachedContentTokenCount": 40,
            "candidatesTokenCount": 15,
            "thoughtsTokenCount": 5,
            "totalTokenCount": 120,
        },
        "terms": {
            "promptTokenCount": 12,
            "candidatesTokenCount": 7,
            "totalTokenCount": 19,
            "trafficType": "ON_DEMAND_PRIORITY",
        },
        "no_usage": None,
        "silent": None,
    }
    models: ClassVar[dict[str, Any]] = {
        "models": [
            {"name": f"models/{name}", "supportedGenerationMethods": [method]}
            for name, method in (
                ("gemini-new", "generateContent"),
                ("gemini-2.5-flash", "generateContent"),
                ("text-embedding-004", "embedContent"),
            )
        ]
    }
    codes: ClassVar[Mapping[str, Any]] = {
        "rate_limit": "RESOURCE_EXHAUSTED",
        "quota": "RESOURCE_EXHAUSTED",
        "auth": "UNAUTHENTICATED",
        "forbidden": "PERMISSION_DENIED",
        "not_found": "NOT_FOUND",
        "bad_request": "INVALID_ARGUMENT",
        "context_length": "INVALID_ARGUMENT",
        "content_filter": "INVALID_ARGUMENT",
        "too_large": "INVALID_ARGUMENT",
        "server_error": "INTERNAL",
        "unavailable": "UNAVAILABLE",
        "overloaded": "UNAVAILABLE",
    }

    def answer(self, request: Request) -> dict[str, Any]:
        body = request.body
        wants_json = body.get("generationConfig", {}).get("responseMimeType") == "application/json"
        part: dict[str, Any] = {"text": "" if request.fault == "silent" else echo(body["contents"], wants_json)}
        results = [part for turn in body["contents"] for part in turn["parts"]]
        tools = [tool for offered in body.get("tools", ()) for tool in offered["functionDeclarations"]]
        if tools and not any("functionResponse" in part for part in results):
            part = {"functionCall": {"name": tools[0]["name"], "args": {"city": "Lima"}}}
        finish = "MAX_TOKENS" if request.fault == "length" else "STOP"
        return self._chunk(request, [part], finish)

    def _chunk(self, request: Request, parts: list[Any], finish: str | None) -> dict[str, Any]:
        candidate: dict[str, Any] = {"content": {"role": "model", "parts": parts}, "index": 0}
        if finish is not None:
            candidate["finishReason"] = finish
        made = {"candidates": [candidate], "modelVersion": request.model, "responseId": "fake"}
        usage = self.usage(request)
        return made if usage is None else {**made, "usageMetadata": usage}

    def events(self, request: Request) -> list[bytes]:
        [candidate] = self.answer(request)["candidates"]
        [part] = candidate["content"]["parts"]
        parts = [{"text": piece} for piece in pieces(part["text"])] if "text" in part else [part]
        rows = [self._chunk(request, [piece], None) for piece in parts]
        return sse(*rows, self._chunk(request, [{"text": ""}], candidate["finishReason"]))

    def refusal(self, fault: str, message: str) -> dict[str, Any]:
        return {"error": {"code": STATUS[fault], "message": message, "status": self.codes[fault]}}

    def stream_error(self) -> bytes:
        [event] = sse({"error": {"code": 503, "message": "The canary is overloaded.", "status": "UNAVAILABLE"}})
        return event


WIRES: tuple[Wire, ...] = (AnthropicWire(), GoogleWire(), OpenAIWire())

MESSAGES = {
    "rate_limit": "Rate limit reached for requests",
    "quota": "Your credit balance is too low to use the API. You exceeded your current quota.",
    "auth": "Incorrect API key provided",
    "forbidden": "You are not allowed to use this model",
    "not_found": "The model does not exist.",
    "bad_request": "Invalid value for 'temperature'",
    "context_length": "prompt is too long: it exceeds the maximum number of tokens allowed (128000).",
    "content_filter": "Your request was rejected as a result of our safety system.",
    "too_large": "Request exceeds the maximum size",
    "server_error": "Internal server error",
    "unavailable": "The server is overloaded",
    "overloaded": "Overloaded",
}
