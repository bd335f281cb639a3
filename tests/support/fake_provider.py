"""A fake provider on a socket of the loopback interface: it speaks the protocols of `wires`, with faults on demand.

The model's name (`gpt-4o--rate_limit`) or `FakeProvider.fault` selects a fault; `FakeProvider.reply` is a literal
response.
"""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from .wires import MESSAGES, STATUS, WIRES, Reply, Request, Wire, completion

__all__ = ["FakeProvider", "Reply", "Request", "completion", "running"]

#: How long a connection without a word is kept, in seconds: only a broken test waits for it.
WAIT_SECONDS = 30.0


class FakeProvider(ThreadingHTTPServer):
    """The server. `requests` is what arrived, `arrived` is set by each; `abandoned` when a client left a hanging call;
    `resume` lets the calls of the faults `slow` and, in a stream, `reset_mid` go on. `events` is literally what to
    stream."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.requests: list[Request] = []
        self.reply: Reply | None = None
        self.events: list[bytes] | None = None
        self.fault = ""
        self.arrived = threading.Event()
        self.abandoned = threading.Event()
        self.resume = threading.Event()

    @property
    def url(self) -> str:
        """What a client takes as its base URL, where the version of the API is part of it."""
        return f"{self.origin}/v1"

    @property
    def origin(self) -> str:
        """The server alone."""
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout = WAIT_SECONDS
    server: FakeProvider

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Tests look at `FakeProvider.requests`."""

    def do_GET(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = Request(self.path, headers, {})
        self.server.requests.append(request)
        anthropic, google, openai = WIRES
        wire = anthropic if "anthropic-version" in headers else google if "/v1beta/" in self.path else openai
        self._send(self.server.reply or Reply(200, wire.models), cut=False)

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = Request(self.path, headers, json.loads(raw), self.server.fault)
        self.server.requests.append(request)
        self.server.arrived.set()
        wire = next((wire for wire in WIRES if wire.path.match(self.path)), None)
        if request.fault == "hang":
            self._hang()
        elif request.fault == "reset":
            self._reset()
        elif wire is not None and self.server.reply is None and _is_good(request) and request.wants_stream:
            self._stream(wire, request)
        else:
            if request.fault == "slow":
                self.server.resume.wait(WAIT_SECONDS)
            self._send(self.server.reply or _answer(wire, request), cut=request.fault == "reset_mid")

    def _stream(self, wire: Wire, request: Request) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        events = self.server.events or wire.events(request)
        middle = max(2, len(events) // 2)
        try:
            for event in events[:middle]:
                self._chunk(event)
            match request.fault:
                case "reset_mid":
                    # What was sent first is read first; the reset is what the client finds then.
                    self.server.resume.wait(WAIT_SECONDS)
                    return self._reset()
                case "stream_hang":
                    return self._hang()
                case "stream_cut":
                    events = []
                case "stream_error":
                    events = [b"", b"", wire.stream_error()]
                    middle = 2
                case "stream_garbage":
                    events = [b"", b"", b'event: content_block_delta\ndata: {"canary": \n\n']
                    middle = 2
            for event in events[middle:]:
                self._chunk(event)
            self.wfile.write(b"0\r\n\r\n")
        except ConnectionError:
            self.server.abandoned.set()
        return None

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))

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


def _is_good(request: Request) -> bool:
    """Whether the answer begins well."""
    return request.fault not in STATUS and request.fault not in (
        "html502",
        "html200",
        "malformed",
        "empty",
        "wrong_shape",
    )


def _answer(wire: Wire | None, request: Request) -> Reply:
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
    if wire is None:
        return Reply(404, {"detail": "Not Found"})
    if request.fault == "no_choices":
        return Reply(200, {**wire.answer(request), "choices": []})
    if request.fault in STATUS:
        status = 400 if request.fault == "quota" and wire is WIRES[0] else STATUS[request.fault]
        headers = {"Retry-After": "3"} if status in (429, 503, 529) and request.fault != "quota" else {}
        return Reply(status, wire.refusal(request.fault, MESSAGES[request.fault]), headers)
    return Reply(200, wire.answer(request))


@contextlib.contextmanager
def running() -> Iterator[FakeProvider]:
    """Serve from a thread for the length of the with-block."""
    server = FakeProvider()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.resume.set()
        server.shutdown()
        server.server_close()
        thread.join()
