"""A provider on a real socket and a database in a file: each call is a row, however it ends, with the right values."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path

import pytest

from llmbridge import LLMBridge, LLMRequest, Message
from llmbridge.errors import InvalidRequestError, ProviderTimeoutError, ProviderUnavailableError, RateLimitError

from ..support.fake_provider import FakeProvider, Reply
from .conftest import KEY


@pytest.fixture
async def bridge(server: FakeProvider, tmp_path: Path) -> AsyncIterator[LLMBridge]:
    async with LLMBridge(f"sqlite:///{tmp_path}/calls.db", origin="app", max_retries=0) as opened:
        opened.register_provider("openai", api_key=KEY, base_url=server.url)
        yield opened


def ask(model: str, **changes: object) -> LLMRequest:
    return LLMRequest(model=model, messages=[Message(role="user", content="the canary prompt")], **changes)


async def test_five_calls_of_five_endings_are_five_rows_with_the_right_status_and_cost(
    bridge: LLMBridge, server: FakeProvider, tmp_path: Path
) -> None:
    response = await bridge.chat(ask("openai:gpt-4o-mini"), id_at_origin="user-1")
    with pytest.raises(RateLimitError) as limited:
        await bridge.chat(ask("openai:gpt-4o-mini--rate_limit"), id_at_origin="user-1")
    with pytest.raises(ProviderUnavailableError):
        await bridge.chat(ask("openai:gpt-4o-mini--server_error"))
    with pytest.raises(ProviderTimeoutError):
        await bridge.chat(ask("openai:gpt-4o-mini--hang", timeout=0.3), id_at_origin="user-1")
    asking = asyncio.create_task(bridge.chat(ask("openai:gpt-4o-mini--hang")))
    while len(server.requests) < 5:
        await asyncio.sleep(0.01)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking

    by_hand = (12 * Decimal("0.15") + 7 * Decimal("0.60")) / 1_000_000
    assert by_hand == Decimal("0.000006")
    assert response.cost == by_hand
    assert limited.value.retry_after is not None
    await bridge.close()
    with sqlite3.connect(tmp_path / "calls.db") as plain:
        rows = plain.execute(
            "SELECT status, estimated_cost, cost_reason, id_at_origin FROM call_log ORDER BY called_at"
        ).fetchall()
    plain.close()
    assert [(status, reason, user) for status, _, reason, user in rows] == [
        ("success", None, "user-1"),
        ("rate_limited", "not_billed", "user-1"),
        ("error", "not_billed", None),
        ("timeout", "unmeasured_usage", "user-1"),
        ("cancelled", "unmeasured_usage", None),
    ]
    assert [cost and Decimal(cost) for _, cost, _, _ in rows] == [by_hand, None, None, None, None]
    assert b"canary" not in b"".join(path.read_bytes() for path in tmp_path.iterdir())


async def test_no_row_and_no_error_has_what_a_provider_quotes(
    bridge: LLMBridge, server: FakeProvider, tmp_path: Path
) -> None:
    error = {"message": "cannot read 'canary'", "code": "canary", "type": "the_canary_prompt", "param": "canary"}
    server.reply = Reply(400, {"error": error})
    with pytest.raises(InvalidRequestError) as caught:
        await bridge.chat(ask("openai:gpt-4o-mini"))
    await bridge.close()
    assert "canary" not in str(caught.value)
    assert b"canary" not in b"".join(path.read_bytes() for path in tmp_path.iterdir())


async def test_errors_of_an_endpoint_name_it_as_it_is_registered(bridge: LLMBridge, server: FakeProvider) -> None:
    bridge.register_provider("acme", kind="openai", api_key=KEY, base_url=server.url)
    with pytest.raises(ProviderUnavailableError, match="acme failed on its side") as caught:
        await bridge.chat(ask("acme:gpt-4o-mini--server_error"))
    assert caught.value.provider == "acme"


async def test_the_provider_is_asked_once_per_call(bridge: LLMBridge, server: FakeProvider) -> None:
    with pytest.raises(ProviderUnavailableError):
        await bridge.chat(ask("openai:gpt-4o-mini--server_error"))
    assert len(server.requests) == 1


async def test_a_bare_name_finds_its_provider(bridge: LLMBridge) -> None:
    response = await bridge.chat(ask("gpt-4o-mini"))
    assert (response.provider, response.content) == ("openai", "echo: the canary prompt")


async def test_an_endpoint_of_its_own_is_priced_by_the_list_of_its_kind(
    bridge: LLMBridge, server: FakeProvider
) -> None:
    bridge.register_provider("acme", kind="openai", api_key=KEY, base_url=server.url)
    response = await bridge.chat(ask("acme:gpt-4o-mini"))
    assert (response.provider, response.cost) == ("acme", Decimal("0.000006"))
