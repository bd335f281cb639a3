"""One call: routing, timing, and its record, however the call ends."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from decimal import Decimal
from typing import Any

import pytest
from pydantic import BaseModel, model_validator

from llmbridge import LLMBridge, LLMRequest, LLMResponse, Message
from llmbridge._recording.metrics import CloseReport
from llmbridge.errors import (
    AuthenticationError,
    InvalidRequestError,
    InvalidResponseError,
    InvalidStorageURLError,
    ModelNotFoundError,
    ProviderNotFoundError,
    ProviderTimeoutError,
    ProviderUnavailableError,
    RateLimitError,
    RecordRejectedError,
    StorageClosedError,
    StorageRefusedError,
    StorageUnavailableError,
    WrongLoopError,
)
from llmbridge.providers.base import BaseLLMProvider, Completion
from llmbridge.schemas import CallRecord, TokenUsage
from llmbridge.storage import MAX_BATCH, RecordResult
from llmbridge.storage.memory import MemoryBackend

PRICED = TokenUsage(prompt_tokens=1000, completion_tokens=100)


class Vendor(BaseLLMProvider):
    """A vendor in this process: answers, fails, or never answers."""

    def __init__(self, outcome: Completion | Exception | None) -> None:
        super().__init__()
        self.outcome = outcome
        self.asked = asyncio.Event()
        self.requests: list[LLMRequest] = []

    async def complete(self, request: LLMRequest, model: str, *, timeout: float) -> Completion:
        self.requests.append(request)
        self.asked.set()
        if self.outcome is None:
            await asyncio.Event().wait()
        if isinstance(self.outcome, Exception):
            raise self.outcome
        assert self.outcome is not None
        return self.outcome


def answer(**changes: Any) -> Completion:
    return Completion(**{"content": "Hello", "model": "gpt-4o-mini-2024-07-18", "usage": PRICED, **changes})


def ask(text: str = "Hi", **changes: Any) -> LLMRequest:
    return LLMRequest(**{"model": "acme:gpt-4o-mini", "messages": [Message(role="user", content=text)], **changes})


@pytest.fixture
async def bridge() -> AsyncIterator[LLMBridge]:
    async with LLMBridge("memory://", origin="app", timeout=5, max_retries=0) as opened:
        yield opened


def serve(bridge: LLMBridge, outcome: Completion | Exception | None) -> Vendor:
    vendor = Vendor(outcome)
    bridge.register_provider("acme", vendor, priced_as="openai")
    return vendor


async def only_call(bridge: LLMBridge) -> CallRecord:
    (call,) = await bridge.list_recent_calls()
    return call


async def test_a_successful_call_is_recorded_with_its_exact_cost(bridge: LLMBridge) -> None:
    serve(bridge, answer(finish_reason="stop", response_id="r-1"))
    response = await bridge.chat(ask(metadata={"team": "search"}, temperature=0, max_tokens=9), id_at_origin="user-1")
    by_hand = (1000 * Decimal("0.15") + 100 * Decimal("0.60")) / 1_000_000
    assert response.content == "Hello"
    assert response.cost == by_hand
    assert response.usage == {"prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1100, "cost": by_hand}
    assert response.record_status == "committed"
    call = await only_call(bridge)
    assert call.id == response.call_id
    assert (call.origin, call.id_at_origin, call.provider, call.model_name) == ("app", "user-1", "acme", "gpt-4o-mini")
    assert (call.status, call.estimated_cost, call.cost_source) == ("success", by_hand, "prices")
    assert (call.prompt_tokens, call.completion_tokens, call.total_tokens) == (1000, 100, 1100)
    assert (call.temperature, call.max_tokens, call.metadata) == (0, 9, {"team": "search"})
    assert (call.finish_reason, call.response_id, call.requested_model) == ("stop", "r-1", "acme:gpt-4o-mini")
    assert call.dollars_per_million_tokens_input_used == Decimal("0.15")
    assert (call.attempt, call.group_id) == (1, call.id)
    assert call.response_time_ms is not None


async def test_nothing_of_what_was_said_is_kept(bridge: LLMBridge) -> None:
    serve(bridge, answer(content="the secret answer", tool_calls=[{"function": {"arguments": "secret argument"}}]))
    await bridge.chat(
        ask(
            "the secret question",
            messages=[
                Message(role="system", content="the secret system prompt"),
                Message(role="user", content="the secret question"),
            ],
            tools=[{"type": "function", "function": {"name": "look_up", "description": "secret"}}],
        )
    )
    call = await only_call(bridge)
    assert "secret" not in repr(call)
    assert call.tools_used == ["look_up"]
    assert len(call.system_prompt_hash or "") == 64


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (RateLimitError("slow down", retry_after=1, status_code=429), "rate_limited", "not_billed"),
        (AuthenticationError("no key"), "error", "not_billed"),
        (InvalidRequestError("no such thing"), "error", "not_billed"),
        (ModelNotFoundError("no such model"), "error", "not_billed"),
        (ProviderUnavailableError("broken", status_code=500), "error", "not_billed"),
        (ProviderUnavailableError("connection lost"), "error", "unmeasured_usage"),
        (ProviderTimeoutError("too slow"), "timeout", "unmeasured_usage"),
        (InvalidResponseError("garbage"), "error", "unmeasured_usage"),
        (ZeroDivisionError("foreign text that may quote the prompt"), "error", "unmeasured_usage"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else str(value),
)
@pytest.mark.parametrize("user", ["user-1", None])
async def test_a_failed_call_is_recorded_and_raises_the_same_error(
    bridge: LLMBridge, error: Exception, status: str, reason: str, user: str | None
) -> None:
    serve(bridge, error)
    with pytest.raises(type(error)) as raised:
        await bridge.chat(ask(), id_at_origin=user)
    assert raised.value is error
    call = await only_call(bridge)
    assert (call.status, call.cost_reason, call.error_type) == (status, reason, type(error).__name__)
    assert (call.id_at_origin, call.estimated_cost, call.total_tokens) == (user, None, None)
    assert "quote the prompt" not in repr(call)


async def test_a_provider_that_never_answers_is_a_timeout(bridge: LLMBridge) -> None:
    serve(bridge, None)
    with pytest.raises(ProviderTimeoutError, match=r"0\.05 s"):
        await bridge.chat(ask(timeout=0.05))
    assert (await only_call(bridge)).status == "timeout"


async def test_a_cancelled_call_is_recorded(bridge: LLMBridge) -> None:
    vendor = serve(bridge, None)
    asking = asyncio.create_task(bridge.chat(ask(), id_at_origin="user-1"))
    await vendor.asked.wait()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    while not await bridge.list_recent_calls():
        await asyncio.sleep(0)
    call = await only_call(bridge)
    assert (call.status, call.cost_reason, call.id_at_origin) == ("cancelled", "unmeasured_usage", "user-1")


async def test_unreported_usage_is_unknown_and_never_zero(bridge: LLMBridge) -> None:
    serve(bridge, answer(usage=None))
    response = await bridge.chat(ask())
    assert (response.usage, response.cost, response.cost_reason) == (None, None, "unmeasured_usage")
    call = await only_call(bridge)
    assert (call.prompt_tokens, call.usage_source) == (None, "none")
    (row,) = await bridge.usage()
    assert (row.unpriced_calls, row.unmeasured_calls) == (1, 1)


async def test_a_cost_that_the_provider_reports_is_taken(bridge: LLMBridge) -> None:
    serve(bridge, answer(cost=0.25))
    assert (await bridge.chat(ask())).cost == Decimal("0.25")
    assert (await only_call(bridge)).cost_source == "provider"


async def test_an_unknown_model_is_unpriced_and_says_so(bridge: LLMBridge) -> None:
    serve(bridge, answer(model="nobody-knows-2024"))
    response = await bridge.chat(ask(model="acme:nobody-knows"))
    assert (response.cost, response.cost_reason) == (None, "unknown_model")
    assert response.usage is not None
    assert "cost" not in response.usage


@pytest.mark.parametrize(
    ("request_", "user", "error"),
    [
        (ask(), "u" * 256, RecordRejectedError),
        (ask(metadata={"x": "y" * 9000}), None, RecordRejectedError),
        (ask(metadata={"x": float("nan")}), None, RecordRejectedError),
        (ask(model="acme:" + "m" * 256), None, RecordRejectedError),
        (ask(model="nobody-knows-this"), None, ModelNotFoundError),
        (ask(model="acmee:gpt-4o"), None, ProviderNotFoundError),
        (ask(tools=[{}]), None, InvalidRequestError),
        (ask(tools=[{"function": "x"}]), None, InvalidRequestError),
        (ask(max_tokens=2**70), None, RecordRejectedError),
        (ask(temperature=float("nan")), None, RecordRejectedError),
    ],
)
async def test_a_request_that_cannot_be_recorded_or_routed_is_refused_before_the_call(
    bridge: LLMBridge, request_: LLMRequest, user: str | None, error: type[Exception]
) -> None:
    vendor = serve(bridge, answer())
    with pytest.raises(error):
        await bridge.chat(request_, id_at_origin=user)
    assert vendor.requests == []
    assert await bridge.list_recent_calls() == []


async def test_without_a_database_calls_are_answered_and_priced() -> None:
    bridge = LLMBridge()
    vendor = Vendor(answer())
    bridge.register_provider("acme", vendor, priced_as="openai")
    response = await bridge.chat(ask())
    assert response.cost == Decimal("0.00021")
    assert (response.record_status, response.call_id) == (None, None)
    assert bridge.db is None
    assert bridge.enable_db_logging is False
    assert await bridge.get_usage_stats("user-1") is None
    assert await bridge.list_recent_calls() == []
    assert await bridge.get_models_from_db() == []
    assert await bridge.get_model_from_db("openai", "gpt-4o") is None
    assert await bridge.usage() == []
    assert await bridge.health_check() == {"status": "disabled"}
    await bridge.close()


def test_logging_switched_off_opens_no_database() -> None:
    assert LLMBridge("memory://", enable_db_logging=False).db is None


def test_a_wrong_url_is_told_by_the_constructor() -> None:
    with pytest.raises(InvalidStorageURLError):
        LLMBridge("not a database")


def test_another_event_loop_is_told_so() -> None:
    bridge = LLMBridge("memory://")
    bridge.register_provider("acme", Vendor(answer()))
    asyncio.run(bridge.chat(ask()))
    with pytest.raises(WrongLoopError):
        asyncio.run(bridge.chat(ask()))


async def test_a_closed_bridge_can_be_used_by_another_loop() -> None:
    bridge = LLMBridge("memory://")

    async def use() -> None:
        bridge.register_provider("acme", Vendor(answer()))
        async with bridge:
            assert (await bridge.chat(ask())).record_status == "committed"

    await asyncio.to_thread(asyncio.run, use())
    await use()


async def test_statistics_are_of_one_user_or_of_the_whole_origin(bridge: LLMBridge) -> None:
    serve(bridge, answer())
    for user in ("user-1", "user-1", "user-2"):
        await bridge.chat(ask(), id_at_origin=user)
    stats = await bridge.get_usage_stats("user-1", days=30)
    assert stats is not None
    assert (stats.total_calls, stats["total_calls"], stats.total_tokens) == (2, 2, 2200)
    assert (stats.total_cost, stats.avg_cost_per_call) == (Decimal("0.00042"), Decimal("0.00021"))
    assert (stats.most_used_model, stats.success_rate) == ("gpt-4o-mini", 1)
    everyone = await bridge.get_usage_stats()
    assert everyone is not None
    assert everyone.total_calls == 3
    assert await bridge.get_usage_stats("nobody") is None
    with pytest.raises(KeyError):
        stats["nothing"]


async def test_usage_keeps_to_its_own_origin_unless_given_one(bridge: LLMBridge) -> None:
    assert bridge.db is not None
    await bridge.db.record_api_call(origin="other", provider="p", model_name="m", estimated_cost=0)
    (own,) = await bridge.usage()
    (other,) = await bridge.usage(origin="other")
    assert (own.calls, other.calls) == (0, 1)


class Faulty(MemoryBackend):
    """A store whose methods fail as the test says."""

    def __init__(self) -> None:
        super().__init__()
        self.on_connect: Callable[[], None] = lambda: None
        self.on_write: Callable[[], None] = lambda: None
        self.connects = 0

    async def connect(self) -> None:
        self.connects += 1
        await asyncio.sleep(0)
        self.on_connect()
        await super().connect()

    async def record_calls(self, calls: Sequence[CallRecord]) -> RecordResult:
        assert len(calls) <= MAX_BATCH
        self.on_write()
        return await super().record_calls(calls)


def bridge_over(backend: MemoryBackend, record_timeout: float = 0.2, **options: Any) -> LLMBridge:
    from llmbridge.db import LLMDatabase

    bridge = LLMBridge(**options)
    bridge._database = LLMDatabase(backend=backend, record_timeout=record_timeout, **options)
    bridge.register_provider("acme", Vendor(answer()))
    return bridge


def fail(error: Exception) -> Callable[[], None]:
    def raise_it() -> None:
        raise error

    return raise_it


async def test_ten_first_calls_at_once_start_the_store_once() -> None:
    store = Faulty()
    bridge = bridge_over(store, record_timeout=60)
    responses = await asyncio.gather(*(bridge.chat(ask()) for _ in range(10)))
    assert {response.record_status for response in responses} == {"committed"}
    assert store.connects == 1
    await bridge.close()


async def test_a_failed_start_is_tried_again_by_the_next_call(caplog: pytest.LogCaptureFixture) -> None:
    store = Faulty()
    store.on_connect = fail(StorageUnavailableError("away"))
    bridge = bridge_over(store, record_timeout=60)
    assert (await bridge.chat(ask())).record_status == "lost"
    store.on_connect = lambda: None
    assert (await bridge.chat(ask())).record_status == "committed"
    assert "away" in caplog.text
    await bridge.close()


@pytest.mark.parametrize(
    "error", [StorageUnavailableError("away"), StorageRefusedError("not ours"), ZeroDivisionError("a bug")]
)
async def test_a_database_failure_never_costs_the_caller_the_response(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    store = Faulty()
    store.on_write = fail(error)
    bridge = bridge_over(store)
    with caplog.at_level(logging.ERROR):
        response = await bridge.chat(ask())
    assert (response.content, response.record_status) == ("Hello", "lost")
    assert str(response.call_id) in caplog.text
    await bridge.close()


async def test_an_unreachable_store_does_not_stop_a_service_from_starting(caplog: pytest.LogCaptureFixture) -> None:
    store = Faulty()
    store.on_connect = fail(StorageUnavailableError("away"))
    async with bridge_over(store):
        assert "away" in caplog.text


@pytest.mark.parametrize("error", [StorageUnavailableError("away"), StorageRefusedError("not ours")])
async def test_a_service_with_on_storage_error_raise_does_not_start_without_its_database(error: Exception) -> None:
    store = Faulty()
    store.on_connect = fail(error)
    bridge = bridge_over(store, on_storage_error="raise")
    with pytest.raises(type(error)):
        await bridge.__aenter__()
    assert (await bridge.chat(ask())).record_status == "lost"


async def test_a_refused_store_stops_a_service_from_starting() -> None:
    store = Faulty()
    store.on_connect = fail(StorageRefusedError("not ours"))
    with pytest.raises(StorageRefusedError):
        await bridge_over(store).__aenter__()


async def test_a_request_for_a_cache_warns_once_and_is_answered(bridge: LLMBridge) -> None:
    serve(bridge, answer())
    with pytest.warns(UserWarning, match="cache"):
        await bridge.chat(ask(cache={"enabled": True}))
    await bridge.chat(ask(cache={"enabled": True}))


async def test_json_that_was_asked_for_is_parsed(bridge: LLMBridge) -> None:
    serve(bridge, answer(content='{"a": 1}'))
    assert (await bridge.chat(ask(json_response=True))).parsed == {"a": 1}
    assert (await bridge.chat(ask(response_format={"type": "json_object"}))).parsed == {"a": 1}
    assert (await bridge.chat(ask())).parsed is None


class Person(BaseModel):
    name: str
    age: int


async def test_an_answer_is_an_instance_of_the_model_that_was_asked_for(bridge: LLMBridge) -> None:
    vendor = serve(bridge, answer(content='{"name": "Ada", "age": 36}'))
    response = await bridge.chat(ask(response_format=Person))
    assert (response.parsed, response.parse_error) == (Person(name="Ada", age=36), None)
    assert vendor.requests[0].response_format == {
        "type": "json_schema",
        "json_schema": {"name": "Person", "schema": Person.model_json_schema()},
    }


async def test_a_model_that_leaves_nothing_open_is_asked_for_strictly(bridge: LLMBridge) -> None:
    class Closed(Person, extra="forbid"):
        friends: list[int]

    vendor = serve(bridge, answer())
    await bridge.chat(ask(response_format=Closed))
    form = vendor.requests[0].response_format
    assert isinstance(form, dict)
    assert form["json_schema"]["strict"] is True


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ('{"name": "Ada", "age": "secret"}', "the answer is not a valid Person: age (int_parsing)"),
        ("no JSON, secret", "the answer is not a valid Person: all (json_invalid)"),
    ],
)
async def test_an_answer_that_is_not_what_was_asked_for_is_paid_for_and_returned(
    bridge: LLMBridge, content: str, why: str
) -> None:
    serve(bridge, answer(content=content))
    response = await bridge.chat(ask(response_format=Person))
    assert (response.content, response.parsed, response.parse_error) == (content, None, why)
    assert response.cost == Decimal("0.00021")
    assert (await bridge.chat(ask(json_response=True, messages=ask().messages))).content == content


async def test_a_validator_that_breaks_loses_no_answer(bridge: LLMBridge) -> None:
    class Breaking(BaseModel):
        @model_validator(mode="before")
        @classmethod
        def stop(cls, value: Any) -> Any:
            raise KeyError("secret")

    serve(bridge, answer(content="{}"))
    response = await bridge.chat(ask(response_format=Breaking))
    assert (response.content, response.parse_error) == ("{}", "a validator raised KeyError")


async def test_a_model_without_a_schema_is_refused_before_the_provider_is_called(bridge: LLMBridge) -> None:
    class Strange(BaseModel):
        call: Callable[[], None]

    vendor = serve(bridge, answer())
    with pytest.raises(InvalidRequestError, match="Strange has no JSON schema"):
        await bridge.chat(ask(response_format=Strange))
    assert vendor.requests == []


async def test_a_cancelled_caller_does_not_wait_for_the_store() -> None:
    store, may_write = Faulty(), asyncio.Event()
    record_calls = store.record_calls

    async def write(calls: Sequence[CallRecord]) -> RecordResult:
        await may_write.wait()
        return await record_calls(calls)

    store.record_calls = write  # type: ignore[method-assign]
    bridge = bridge_over(store)
    vendor = Vendor(None)
    bridge.register_provider("acme", vendor)
    asking = asyncio.create_task(bridge.chat(ask()))
    await vendor.asked.wait()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert not store._open.calls
    may_write.set()
    while not store._open.calls:
        await asyncio.sleep(0)
    await bridge.close()


class SlowVendor(Vendor):
    """Answers when it may."""

    def __init__(self) -> None:
        super().__init__(answer())
        self.may_answer = asyncio.Event()

    async def complete(self, request: LLMRequest, model: str, *, timeout: float) -> Completion:
        self.asked.set()
        await self.may_answer.wait()
        return await super().complete(request, model, timeout=timeout)


async def in_flight(bridge: LLMBridge) -> tuple[SlowVendor, asyncio.Task[LLMResponse]]:
    """A call that waits for its vendor, who has it."""
    vendor = SlowVendor()
    bridge.register_provider("acme", vendor)
    asking = asyncio.create_task(bridge.chat(ask()))
    await vendor.asked.wait()
    return vendor, asking


async def test_closing_waits_for_calls_in_flight() -> None:
    bridge = LLMBridge("memory://closing-waits")
    vendor, asking = await in_flight(bridge)
    closing = asyncio.create_task(bridge.close())
    await asyncio.sleep(0)
    vendor.may_answer.set()
    assert (await asking).record_status == "committed"
    await closing
    with pytest.raises(StorageClosedError):
        await bridge.chat(ask())
    async with LLMBridge("memory://closing-waits") as again:
        assert len(await again.list_recent_calls()) == 1


async def test_a_closing_begins_no_call_and_goes_on_when_it_is_cut_off() -> None:
    bridge = await LLMBridge("memory://closing-goes-on").__aenter__()
    vendor, asking = await in_flight(bridge)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await bridge.close(timeout=60)
    opening = asyncio.create_task(bridge.__aenter__())
    with pytest.raises(StorageClosedError, match="being closed"):
        await bridge.chat(ask())
    vendor.may_answer.set()
    assert (await asking).record_status == "committed"
    assert await opening is bridge
    assert (await bridge.chat(ask())).record_status == "committed"
    await bridge.close()
    assert len(vendor.requests) == 2


async def test_a_provider_that_returns_something_else_is_an_invalid_response(bridge: LLMBridge) -> None:
    vendor = serve(bridge, answer())
    vendor.outcome = {"content": "Hello"}  # type: ignore[assignment]
    with pytest.raises(InvalidResponseError, match="dict"):
        await bridge.chat(ask())
    assert (await only_call(bridge)).error_type == "InvalidResponseError"


@pytest.mark.parametrize("count", [-1, 2**70])
async def test_impossible_token_counts_count_as_not_reported(bridge: LLMBridge, count: int) -> None:
    usage = TokenUsage(prompt_tokens=count, completion_tokens=1)
    serve(bridge, answer(usage=usage, cost=float("nan")))
    response = await bridge.chat(ask())
    assert (response.record_status, response.cost_reason) == ("committed", "unmeasured_usage")
    assert response.usage == {"prompt_tokens": None, "completion_tokens": 1, "total_tokens": None}


async def test_a_call_that_ends_with_a_base_exception_is_recorded(bridge: LLMBridge) -> None:
    class PanicError(BaseException):
        pass

    vendor = serve(bridge, answer())

    async def panic(request: LLMRequest, model: str, *, timeout: float) -> Completion:
        raise PanicError

    vendor.complete = panic  # type: ignore[method-assign]
    with pytest.raises(PanicError):
        await bridge.chat(ask())
    while not await bridge.list_recent_calls():
        await asyncio.sleep(0)
    assert (await only_call(bridge)).error_type == "PanicError"


async def test_every_provider_is_closed_whatever_the_others_raise() -> None:
    closed: list[str] = []

    class Closing(Vendor):
        async def close(self) -> None:
            closed.append(self.name)
            raise OSError

    bridge = LLMBridge("memory://")
    for name in ("one", "two", "two"):
        bridge.register_provider(name, Closing(answer()))
    with pytest.raises(OSError):  # noqa: PT011
        await bridge.close()
    assert sorted(closed) == ["one", "two", "two"]


async def test_a_provider_that_does_not_close_keeps_nobody(caplog: pytest.LogCaptureFixture) -> None:
    class Hanging(Vendor):
        async def close(self) -> None:
            await asyncio.sleep(3600)

    bridge = LLMBridge("memory://")
    bridge.register_provider("acme", Hanging(answer()))
    async with asyncio.timeout(20):
        assert await bridge.close(timeout=0) == CloseReport()
    assert "the provider acme did not close its connections in time" in caplog.text


async def test_what_is_no_request_is_told_so(bridge: LLMBridge) -> None:
    with pytest.raises(TypeError, match="LLMRequest"):
        await bridge.chat("Hi")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="stream"):
        ask(stream=True)
    with pytest.raises(ValueError, match="colon"):
        bridge.register_provider("a:b", Vendor(answer()))


def test_times_that_are_no_times_are_refused() -> None:
    for name in ("timeout", "total_timeout", "record_timeout"):
        for wrong in (0, -1, float("nan")):
            with pytest.raises(ValueError, match="0 seconds"):
                LLMBridge("memory://", **{name: wrong})  # type: ignore[arg-type]


@pytest.mark.parametrize("timeout", [0, -1, float("nan")])
async def test_a_call_has_time_for_an_answer(bridge: LLMBridge, timeout: float) -> None:
    vendor = serve(bridge, answer())
    with pytest.raises(InvalidRequestError, match="0 seconds"):
        await bridge.chat(ask(timeout=timeout))
    with pytest.raises(InvalidRequestError, match="0 seconds"):
        bridge.stream(ask(timeout=timeout))
    assert vendor.requests == []


def test_a_call_that_was_refused_binds_no_loop() -> None:
    bridge = LLMBridge("memory://")
    for _ in range(2):
        with pytest.raises(ModelNotFoundError):
            asyncio.run(bridge.chat(ask(model="nobody-knows-this")))


async def test_a_lost_call_is_priced_all_the_same() -> None:
    store = Faulty()
    store.on_connect = fail(StorageUnavailableError("away"))
    bridge = bridge_over(store)
    bridge.register_provider("acme", Vendor(answer()), priced_as="openai")
    response = await bridge.chat(ask())
    assert (response.record_status, response.cost) == ("lost", Decimal("0.00021"))


async def test_preparing_a_provider_does_not_count_as_response_time(bridge: LLMBridge) -> None:
    vendor = serve(bridge, answer())

    async def prepare() -> None:
        await asyncio.sleep(0.3)

    vendor.prepare = prepare  # type: ignore[method-assign]
    await bridge.chat(ask(timeout=0.2))
    call = await only_call(bridge)
    assert call.response_time_ms is not None
    assert call.response_time_ms < 300


def test_the_models_that_can_be_called_are_listed_by_provider() -> None:
    bridge = LLMBridge()
    assert "gpt-4o-mini" in bridge.get_available_models()["openai"]
    info = bridge.get_model_info("gpt-4o-mini")
    assert (info["provider"], info["model"], info["max_context"]) == ("openai", "gpt-4o-mini", 128000)
    bridge.register_provider("acme", Vendor(answer()))
    assert bridge.get_model_info("acme:x") == {"provider": "acme", "model": "x", "supported": True}
    with pytest.raises(ModelNotFoundError):
        bridge.get_model_info("nobody-knows-this")


async def test_a_model_string_leads_to_the_provider_that_was_registered_last(bridge: LLMBridge) -> None:
    first = serve(bridge, answer(content="one"))
    await bridge.chat(ask())
    serve(bridge, answer(content="two"))
    assert (await bridge.chat(ask())).content == "two"
    bridge.register_provider("openai", Vendor(answer(content="three")))
    assert (await bridge.chat(ask(model="gpt-4o"))).content == "three"
    assert len(first.requests) == 1


async def test_more_models_can_be_called_than_are_remembered(
    bridge: LLMBridge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmbridge._calls.provider_registry._MAX_TARGETS", 2)
    vendor = serve(bridge, answer())
    for number in range(5):
        await bridge.chat(ask(model=f"acme:{number}"))
    assert len(vendor.requests) == 5
    assert len(bridge._providers._targets) <= 2


class Listing(Vendor):
    """A vendor that lists its models, or fails to."""

    def __init__(self, listed: list[str] | Exception | None) -> None:
        super().__init__(answer())
        self.listed = listed

    async def list_models(self) -> list[str] | None:
        if isinstance(self.listed, Exception):
            raise self.listed
        if self.listed == ["hangs"]:
            await asyncio.Event().wait()
        return self.listed


async def test_a_provider_lists_its_models_and_none_of_them_is_refused() -> None:
    bridge = LLMBridge(timeout=0.1)
    bridge.register_provider("acme", Listing(["two", "one"]))
    bridge.register_provider("openai", Listing(None))
    bridge.register_provider("broken", Listing(AuthenticationError("no key")))
    bridge.register_provider("slow", Listing(["hangs"]))
    found = await bridge.discover_models()
    assert found["acme"] == ["one", "two"]
    assert not {"broken", "slow", "echo", "groq"} & found.keys()
    assert "gpt-4o-mini" in found["openai"]
    assert bridge.get_available_models() == found
    assert bridge.get_model_info("acme:one")["supported"] is True
    assert bridge.get_model_info("acme:three")["supported"] is False
    assert (await bridge.chat(ask(model="acme:three"))).content == "Hello"
    assert (await bridge.discover_models("acme"))["acme"] == ["one", "two"]
    with pytest.raises(AuthenticationError):
        await bridge.discover_models("broken")
    with pytest.raises(ProviderTimeoutError):
        await bridge.discover_models("slow")
    with pytest.raises(ProviderNotFoundError):
        await bridge.discover_models("nobody")
    bridge.register_provider("acme", Listing(ZeroDivisionError()))
    assert "acme" not in bridge.get_available_models()
    with pytest.raises(ZeroDivisionError):
        await bridge.discover_models()


async def test_a_caller_who_leaves_before_the_store_is_open_takes_nothing_along() -> None:
    class Opening(MemoryBackend):
        def __init__(self) -> None:
            super().__init__("opening-late")
            self.begun, self.may_open = asyncio.Event(), asyncio.Event()

        async def connect(self) -> None:
            self.begun.set()
            await self.may_open.wait()
            await super().connect()

    store = Opening()
    bridge = bridge_over(store, record_timeout=60)
    asking = asyncio.create_task(bridge.chat(ask()))
    await store.begun.wait()
    while not any("keep" in repr(task.get_coro()) for task in asyncio.all_tasks()):
        await asyncio.sleep(0)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    store.may_open.set()
    await bridge.close()
    async with LLMBridge("memory://opening-late") as again:
        assert len(await again.list_recent_calls()) == 1


async def test_a_call_whose_caller_is_cancelled_during_the_closing_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    begun = asyncio.Event()

    class Slow(Vendor):
        async def complete(self, request: LLMRequest, model: str, *, timeout: float) -> Completion:
            begun.set()
            return await asyncio.get_running_loop().create_future()

    monkeypatch.setattr(
        "llmbridge._pricing.genai_prices.editions.is_fresh", lambda: False
    )  # so that recording takes a while
    bridge = await LLMBridge("memory://", origin="app").__aenter__()
    bridge.register_provider("acme", Slow(answer()))
    calling = asyncio.create_task(bridge.chat(ask()))
    await begun.wait()
    closing = asyncio.create_task(bridge.close(timeout=20))
    await asyncio.sleep(0)
    calling.cancel()
    await closing
    assert (bridge.metrics()["calls_committed"], bridge.metrics()["calls_lost"]) == (1, 0)


@pytest.mark.parametrize("url", [None, "memory://"])
def test_a_misspelt_option_gets_the_one_that_is_meant(url: str | None) -> None:
    with pytest.raises(InvalidStorageURLError, match=r"max_retry.*; did you mean max_retries\?"):
        LLMBridge(url, max_retry=3)


async def test_user_is_a_shorter_name_of_id_at_origin(bridge: LLMBridge) -> None:
    serve(bridge, answer())
    await bridge.chat(ask(), user="alice")
    async for _ in bridge.stream(ask(), user="alice"):
        pass
    assert [call.id_at_origin for call in await bridge.list_recent_calls("alice")] == ["alice", "alice"]
    [row] = await bridge.usage("today", user="alice", group_by="user")
    assert (row.key, row.calls) == ({"user": "alice"}, 2)
    with pytest.raises(TypeError, match="give id_at_origin or user, which are the same, not both"):
        await bridge.chat(ask(), "alice", user="alice")
