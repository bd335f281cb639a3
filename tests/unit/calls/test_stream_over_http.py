"""A browser that disconnects during a stream, behind FastAPI and over a real socket."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal

import pytest
import uvicorn
from fastapi import FastAPI
from fastapi.responses import StreamingResponse

from llmbridge import LLMBridge, LLMRequest, Message
from llmbridge.providers.base import BaseLLMProvider, Completion, Delta
from llmbridge.schemas import CallRecord, TokenUsage

SO_FAR = TokenUsage(prompt_tokens=1000, completion_tokens=10)


class Vendor(BaseLLMProvider):
    """A vendor that says something and then takes for ever, or floods."""

    def __init__(self, *, floods: bool) -> None:
        super().__init__()
        self.floods = floods
        self.ended = asyncio.Event()

    async def complete(self, request: LLMRequest, model: str, *, timeout: float) -> Completion:
        raise AssertionError("the bridge did not stream")

    async def stream(self, request: LLMRequest, model: str, *, timeout: float) -> AsyncIterator[Delta]:
        try:
            yield Delta("Hello ", SO_FAR)
            while self.floods:
                yield Delta("and " * 1000)
                await asyncio.sleep(0)
            await asyncio.Event().wait()
        finally:
            self.ended.set()


@asynccontextmanager
async def serving(app: FastAPI) -> AsyncIterator[int]:
    """The port on loopback at which the application is served."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        server = uvicorn.Server(uvicorn.Config(app, lifespan="off", log_config=None))
        running = asyncio.create_task(server.serve([listening]))
        yield listening.getsockname()[1]
        server.should_exit = True
        await running


async def the_call(bridge: LLMBridge) -> CallRecord:
    while not (calls := await bridge.list_recent_calls()):
        await asyncio.sleep(0.01)
    (call,) = calls
    return call


@pytest.mark.parametrize("floods", [False, True], ids=["while the vendor thinks", "while the text flows"])
async def test_a_browser_that_disconnects_ends_the_call_and_its_record_is_stored(floods: bool) -> None:
    app = FastAPI()
    vendor = Vendor(floods=floods)
    async with LLMBridge("memory://", origin="shop") as bridge:
        bridge.register_provider("acme", vendor, priced_as="openai")

        @app.get("/ask")
        async def ask() -> StreamingResponse:
            request = LLMRequest(model="acme:gpt-4o-mini", messages=[Message(role="user", content="Hi")])

            async def pieces() -> AsyncIterator[str]:
                async for chunk in bridge.stream(request, id_at_origin="user-1"):
                    yield chunk.content

            return StreamingResponse(pieces(), media_type="text/plain")

        async with serving(app) as port:
            browser, leaving = await asyncio.open_connection("127.0.0.1", port)
            leaving.write(b"GET /ask HTTP/1.1\r\nHost: app\r\n\r\n")
            await browser.readuntil(b"Hello ")
            leaving.close()
            await leaving.wait_closed()
            call = await the_call(bridge)
            await vendor.ended.wait()

        assert (call.status, call.id_at_origin, call.stream) == ("cancelled", "user-1", True)
        assert (call.usage_source, call.total_tokens, call.estimated_cost) == ("partial", 1010, Decimal("0.000156"))
        assert call.time_to_first_token_ms is not None
        assert len(await bridge.list_recent_calls()) == 1
