"""A stand-in for a vendor: OpenAI's chat completions over a real socket on loopback, with faults on demand.

The answer echoes the last user text, so that tests can say what they expect. A request with tools and no tool result
yet calls the first tool; one that asks for JSON gets `{"echo": "..."}`. A fault is chosen by the model's name
(`gpt-4o--rate_limit`), or `FakeVendor.reply` says literally what to answer.
"""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

#: fault -> status, the vendor's code, its type, its message
REFUSALS = {
    "rate_limit": (429, "rate_limit_exceeded", "requests", "Rate limit reached for requests"),
    "quota": (429, "insufficient_quota", "insufficient_quota", "You exceeded your current quota."),
    "auth": (401, "invalid_api_key", "invalid_request_error", "Incorrect API key provided"),
    "forbidden": (403, "forbidden", "invalid_request_error", "You are not allowed to use this model"),
    "not_found": (404, "model_not_found", "invalid_request_error", "The model does not exist."),
    "bad_request": (400, "invalid_value", "invalid_request_error", "Invalid value for 'temperature'"),
    "context_length": (
        400,
        "context_length_exceeded",
        "invalid_request_error",
        "This model's maximum context length is 128000 tokens. However, your messages resulted in 200000 tokens.",
    ),
    "content_filter": (
        400,
        "content_policy_violation",
        "invalid_request_error",
        "Your request was rejected as a result of our safety system.",
    ),
    "too_large": (413, "request_too_large", "invalid_request_error", "Request exceeds the maximum size"),
    "server_error": (500, "server_error", "server_error", "Internal server error"),
    "unavailable": (503, "unavailable", "server_error", "The server is overloaded"),
    "overloaded": (529, "overloaded", "server_error", "Overloaded"),
}

#: How long a connection without a word is kept, in seconds: only a broken test waits for it.
PATIENCE = 30.0


@dataclass(frozen=True)
class Reply:
    """An answer, literally. A `body` that is not bytes goes out as JSON."""

    status: int = 200
    body: Any = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    content_type: str = "application/json"


@dataclass(frozen=True)
class Request:
    """What arrived. `headers` have names in lower case."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]

    @property
    def fault(self) -> str:
        """The fault that the model's name asks for, or nothing."""
        return str(self.body.get("model", "")).partition("--")[2]


USAGE = {
    "prompt_tokens": 12,
    "completion_tokens": 7,
    "total_tokens": 19,
    "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
}
RICH_USAGE = {
    "prompt_tokens": 100,
    "completion_tokens": 20,
    "total_tokens": 120,
    "prompt_tokens_details": {"cached_tokens": 40, "cache_write_tokens": 25},
    "completion_tokens_details": {"reasoning_tokens": 5},
}


class FakeVendor(ThreadingHTTPServer):
    """The server. `requests` is what arrived, `arrived` is set by each; `abandoned` when a client left a hanging call;
    `resume` lets the calls of the fault `slow` go on."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.requests: list[Request] = []
        self.reply: Reply | None = None
        self.arrived = threading.Event()
        self.abandoned = threading.Event()
        self.resume = threading.Event()

    @property
    def url(self) -> str:
        """What a client takes as its base URL."""
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout = PATIENCE
    server: FakeVendor

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Tests look at `FakeVendor.requests`."""

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = Request(self.path, headers, json.loads(raw))
        self.server.requests.append(request)
        self.server.arrived.set()
        if request.fault == "hang":
            self._hang()
        elif request.fault == "reset":
            self._reset()
        else:
            if request.fault == "slow":
                self.server.resume.wait(PATIENCE)
            self._send(self.server.reply or _answer(request), cut=request.fault == "reset_mid")

    def _send(self, reply: Reply, *, cut: bool) -> None:
        body = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
        self.send_response(reply.status)
        self.send_header("Content-Type", reply.content_type)
        self.send_header("Content-Length", str(len(body)))
        for name, value in reply.headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if cut else body)
        if cut:
            self._reset()

    def _hang(self) -> None:
        self.close_connection = True
        with contextlib.suppress(ConnectionError):
            self.connection.recv(1)
        self.server.abandoned.set()

    def _reset(self) -> None:
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()


def _answer(request: Request) -> Reply:
    match request.fault:
        case "html502":
            return Reply(502, b"<html><body><h1>502 Bad Gateway</h1></body></html>", content_type="text/html")
        case "html200":
            return Reply(200, b"<html><body>captive portal</body></html>", content_type="text/html")
        case "malformed":
            return Reply(200, b'{"id": "x", "choices": [{"message": {"content": "tru')
        case "empty":
            return Reply(200, b"")
        case "wrong_shape":
            return Reply(200, {"hello": "world"})
        case "no_choices":
            return Reply(200, {**completion(request.body), "choices": []})
        case "silent":
            return Reply(200, _without_usage(completion(request.body, text="")))
        case "no_usage":
            return Reply(200, _without_usage(completion(request.body)))
        case "rich_usage":
            return Reply(200, {**completion(request.body), "usage": RICH_USAGE})
        case "length":
            return Reply(200, completion(request.body, finish_reason="length"))
        case fault if fault in REFUSALS:
            return _refusal(fault)
    if request.path != "/v1/chat/completions":
        return Reply(404, {"detail": "Not Found"})
    return Reply(200, completion(request.body))


def _refusal(fault: str) -> Reply:
    status, code, kind, message = REFUSALS[fault]
    headers = {"Retry-After": "3"} if status in (429, 503, 529) and fault != "quota" else {}
    return Reply(status, {"error": {"message": message, "type": kind, "param": None, "code": code}}, headers)


def _without_usage(answer: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in answer.items() if name != "usage"}


def completion(body: dict[str, Any], *, text: str | None = None, finish_reason: str = "stop") -> dict[str, Any]:
    """A good answer to a request's body."""
    message: dict[str, Any] = {"role": "assistant", "content": _echo(body) if text is None else text, "refusal": None}
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
        "usage": USAGE,
    }


def _echo(body: dict[str, Any]) -> str:
    said = next((message["content"] for message in reversed(body["messages"]) if message["role"] == "user"), "")
    if isinstance(said, list):
        said = " ".join(part["text"] for part in said)
    wants_json = body.get("response_format", {}).get("type") in ("json_object", "json_schema")
    return json.dumps({"echo": said}) if wants_json else f"echo: {said}"


@contextlib.contextmanager
def running() -> Iterator[FakeVendor]:
    """Serve from a thread for the length of the with-block."""
    server = FakeVendor()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.resume.set()
        server.shutdown()
        server.server_close()
        thread.join()
