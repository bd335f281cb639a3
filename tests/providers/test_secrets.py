"""Keys, prompts and responses are in no log, no exception and no file, however a call ends."""

from __future__ import annotations

import asyncio
import io
import logging
import os
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from llmbridge import LLMBridge, LLMRequest, Message
from llmbridge.errors import StorageUnavailableError
from llmbridge.providers.base import BaseLLMProvider, Completion, Delta
from llmbridge.schemas import TokenUsage

from ..support.fake_provider import FakeProvider, Reply, completion

KEY = "sk-canary-4711-do-not-show"
CANARY = "canary"
ANSWER = "the canary answer"

#: What a provider makes of a request: answers, and refusals that repeat all that was sent.
REPLIES: dict[str, Callable[[], Reply]] = {
    "answer": lambda: Reply(200, completion({"model": "m", "messages": []}, text=ANSWER)),
    "no JSON": lambda: Reply(200, f"<html>{ANSWER} {KEY}".encode()),
    "cut JSON": lambda: Reply(200, b'{"id": "canary", "choices": [{"message": {"content": "the canary ans'),
    "wrong shape": lambda: Reply(200, {"choices": [{"message": ANSWER}]}),
    **{
        f"{status} that quotes": lambda status=status: Reply(  # type: ignore[misc]
            status,
            {
                "error": {
                    "message": f"cannot take 'the canary prompt' with {KEY}",
                    "code": "canary",
                    "type": "canary",
                    "param": "canary",
                }
            },
            {"retry-after": "0.001"},
        )
        for status in (400, 401, 403, 404, 413, 422, 429, 500, 529)
    },
}


class Person(BaseModel):
    name: int


def ask(model: str | list[str] = "acme:gpt-4o-mini", **changes: Any) -> LLMRequest:
    said = [
        Message(role="system", content="the canary system prompt"),
        Message(role="user", content="the canary prompt"),
        Message(
            role="assistant",
            tool_calls=[{"id": "1", "function": {"name": "look_up", "arguments": '{"x": "canary"}'}}],
        ),
        Message(role="tool", tool_call_id="1", content="the canary result"),
    ]
    tools = [{"name": "look_up", "description": "finds the canary", "parameters": {"title": "canary"}}]
    return LLMRequest(**{"model": model, "messages": said, "tools": tools, "stop": ["canary"], **changes})


class Told:
    """Everything that could tell a secret: logs, exceptions, and files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.logged = io.StringIO()
        self.raised: list[BaseException] = []

    async def watch(self, call: Awaitable[Any]) -> None:
        """Await, and keep what it raises."""
        try:
            await call
        except (Exception, asyncio.CancelledError) as error:
            self.raised.append(error)

    def places(self) -> Iterator[tuple[str, str]]:
        """Each place, and what it says."""
        yield "the log", self.logged.getvalue()
        for error in self.raised:
            yield "a traceback", "".join(traceback.format_exception(error))
            yield "an exception", f"{error} {error!r} {vars(error)}"
        for path in self.folder.rglob("*"):
            if path.is_file():
                yield str(path), path.read_bytes().decode("latin-1")


@pytest.fixture
def told(tmp_path: Path) -> Iterator[Told]:
    found = Told(tmp_path)
    handler = logging.StreamHandler(found.logged)
    loggers = [logging.getLogger(), *map(logging.getLogger, list(logging.root.manager.loggerDict))]
    before = [(logger, logger.level) for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.DEBUG)
    logging.root.addHandler(handler)
    yield found
    logging.root.removeHandler(handler)
    for logger, level in before:
        logger.setLevel(level)


@pytest.fixture
async def bridge(told: Told, server: FakeProvider) -> AsyncIterator[LLMBridge]:
    url, spool = f"sqlite:///{told.folder}/calls.db", told.folder / "spool"
    async with LLMBridge(url, origin="app", spool_dir=spool, record_timeout=30) as opened:
        opened.register_provider("acme", kind="openai", api_key=KEY, base_url=server.url, priced_as="openai")
        yield opened


def silent(told: Told) -> None:
    """Assert that no place says a secret."""
    places = list(told.places())
    leaks = [(name, said[max(0, at - 80) : at + 80]) for name, said in places if (at := said.lower().find(CANARY)) >= 0]
    assert leaks == []


@pytest.mark.parametrize("reply", list(REPLIES))
async def test_however_a_provider_ends_a_call_nothing_is_told(
    bridge: LLMBridge, server: FakeProvider, told: Told, reply: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmbridge._calls.retry._FIRST_PAUSE", 0.001)
    server.reply = REPLIES[reply]()
    await told.watch(bridge.chat(ask()))
    await told.watch(bridge.chat(ask(["acme:gpt-4o", "acme:gpt-4o-mini"])))
    await told.watch(bridge.chat(ask(response_format=Person)))
    await told.watch(read(bridge))
    assert len(await bridge.list_recent_calls()) >= 4
    await bridge.close()
    silent(told)


async def read(bridge: LLMBridge, pieces: int | None = None, **changes: Any) -> None:
    async with aclosing(bridge.stream(ask(**changes))) as stream:
        async for _ in stream:
            if pieces == 1:
                return


async def test_a_timeout_and_a_cancellation_tell_nothing(bridge: LLMBridge, server: FakeProvider, told: Told) -> None:
    await told.watch(bridge.chat(ask("acme:gpt-4o-mini--hang", timeout=0.05)))
    server.arrived.clear()
    asking = asyncio.create_task(bridge.chat(ask("acme:gpt-4o-mini--hang")))
    await asyncio.to_thread(server.arrived.wait)
    asking.cancel()
    await told.watch(asking)
    await bridge.close()
    silent(told)


class Streaming(BaseLLMProvider):
    """A provider that streams, and breaks off as it is told."""

    def __init__(self, breaks: Exception | None) -> None:
        super().__init__(KEY)
        self.breaks = breaks

    async def complete(self, request: LLMRequest, model: str, *, timeout: float) -> Completion:
        raise AssertionError("the bridge did not stream")

    async def stream(self, request: LLMRequest, model: str, *, timeout: float) -> AsyncIterator[Delta]:
        yield Delta(ANSWER, TokenUsage(prompt_tokens=3))
        if self.breaks is not None:
            raise self.breaks
        yield Delta(ANSWER, completion=Completion(ANSWER, model))


@pytest.mark.parametrize("pieces", [None, 1], ids=["to the end", "and left"])
async def test_a_stream_tells_nothing(bridge: LLMBridge, told: Told, pieces: int | None) -> None:
    bridge.register_provider("acme", Streaming(None))
    await told.watch(read(bridge, pieces))
    while not await bridge.list_recent_calls():
        await asyncio.sleep(0)
    await bridge.close()
    silent(told)


async def test_no_text_of_a_foreign_exception_is_recorded(bridge: LLMBridge, told: Told) -> None:
    bridge.register_provider("acme", Streaming(ValueError(f"the canary prompt with {KEY}")))
    with pytest.raises(ValueError, match=CANARY):
        await read(bridge)
    (call,) = await bridge.list_recent_calls()
    assert (call.error_type, call.error_message) == ("ValueError", None)
    await bridge.close()
    silent(told)


async def test_a_call_that_waits_in_the_spool_tells_nothing(
    told: Told, server: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = told.folder / "spool"
    elsewhere = told.folder / "away"
    server.reply = REPLIES["answer"]()
    async with LLMBridge(f"sqlite:///{elsewhere}/calls.db", spool_dir=spool, record_timeout=0.3) as bridge:
        bridge.register_provider("acme", kind="openai", api_key=KEY, base_url=server.url)
        assert bridge.db is not None
        assert bridge.db.backend is not None

        async def refuse(calls: Any) -> Any:
            raise StorageUnavailableError("away")

        monkeypatch.setattr(bridge.db.backend, "record_calls", refuse)
        response = await bridge.chat(ask())
        assert (response.content, response.record_status) == (ANSWER, "spooled")
    assert any(path.stat().st_size for path in spool.rglob("*") if path.is_file())
    silent(told)


async def test_the_search_finds_what_is_there(told: Told) -> None:
    logging.getLogger("anything").debug("the Canary prompt")
    with pytest.raises(AssertionError, match="Canary prompt"):
        silent(told)
    told.logged.truncate(0)
    (told.folder / "file").write_bytes(os.urandom(8) + b"the canary answer")
    with pytest.raises(AssertionError, match="canary answer"):
        silent(told)
