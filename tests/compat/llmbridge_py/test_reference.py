"""Every call in the reference of llmbridge-py 0.2.3 (docs/API.md) and in its examples works with the same arguments.

The programs are written for these tests, because those of llmbridge-py are not part of its distribution.
"""

from __future__ import annotations

import base64
import inspect
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from fastapi import Depends, FastAPI, HTTPException

import llmbridge
from llmbridge import CallRecord, LLMBridge, LLMDatabase, LLMModel, LLMRequest, LLMResponse, Message, UsageStats
from llmbridge.base import BaseLLMProvider
from llmbridge.schemas import DailyAnalytics
from llmbridge.service_sqlite import LLMBridgeSQLite

from .conftest import Run

PNG = b"\x89PNG\r\n\x1a\n" + bytes(200)
REQUEST = LLMRequest(model="echo:demo", messages=[Message(role="user", content="Hi")])


@pytest.fixture
async def db(tmp_path: Path) -> AsyncIterator[LLMDatabase]:
    database = LLMDatabase(connection_string=f"sqlite:///{tmp_path}/calls.db", enable_monitoring=False)
    await database.initialize()
    yield database
    await database.close()


def parameters(function: Any) -> list[str]:
    return [name for name in inspect.signature(function).parameters if name != "self"]


def test_what_upstream_s_package_exports_is_here() -> None:
    for name in (
        "LLMBridge",
        "LLMDatabase",
        "LLMRequest",
        "LLMResponse",
        "Message",
        "LLMModel",
        "UsageStats",
        "CallRecord",
        "BaseLLMProvider",
        "encode_file_to_base64",
        "create_data_url",
        "get_file_mime_type",
        "validate_image_file",
        "create_image_content",
        "create_multi_image_content",
        "create_base64_image_content",
        "analyze_image",
        "extract_text_from_image",
        "compare_images",
    ):
        assert name in llmbridge.__all__
        assert getattr(llmbridge, name) is not None
    assert BaseLLMProvider is llmbridge.BaseLLMProvider
    assert DailyAnalytics.__name__ == "DailyAnalytics"


@pytest.mark.parametrize(
    ("function", "leading"),
    [
        (LLMBridge.chat, ["request", "id_at_origin"]),
        (LLMBridge.get_usage_stats, ["id_at_origin", "days"]),
        (LLMBridge.list_recent_calls, ["id_at_origin", "limit"]),
        (LLMBridge.get_models_from_db, ["provider", "active_only"]),
        (LLMBridge.get_model_from_db, ["provider", "model_name"]),
        (LLMDatabase.get_model, ["provider", "model_name", "active_only"]),
        (LLMDatabase.list_models, ["provider", "active_only"]),
        (LLMDatabase.add_model, ["model"]),
        (
            LLMDatabase.update_model_costs,
            ["provider", "model_name", "dollars_per_million_tokens_input", "dollars_per_million_tokens_output"],
        ),
        (LLMDatabase.get_call_record, ["call_id"]),
        (LLMDatabase.get_usage_stats, ["origin", "id_at_origin", "days"]),
        (LLMDatabase.list_recent_calls, ["origin", "id_at_origin", "limit", "offset"]),
        (LLMDatabase.aggregate_daily_analytics, ["date"]),
        (LLMDatabase.cleanup_old_data, ["days_to_keep_calls", "days_to_keep_analytics"]),
        (LLMDatabase.get_slow_queries, ["threshold_ms"]),
        (LLMDatabase.from_manager, ["db_manager", "schema"]),
        (LLMBridgeSQLite.__init__, ["db_path", "origin", "enable_db_logging"]),
    ],
    ids=lambda value: value.__qualname__ if callable(value) else "",
)
def test_arguments_have_upstream_s_places(function: Any, leading: list[str]) -> None:
    assert parameters(function)[: len(leading)] == leading


async def test_a_call_is_recorded_with_all_of_upstream_s_keywords(db: LLMDatabase) -> None:
    call_id = await db.record_api_call(
        origin="app",
        id_at_origin="user-1",
        provider="openai",
        model_name="gpt-4o-mini",
        prompt_tokens=1000,
        completion_tokens=100,
        response_time_ms=640,
        temperature=0.0,
        max_tokens=200,
        top_p=0.9,
        stream=False,
        stop_sequences=["\n"],
        system_prompt="Be brief.",
        tools_used=["look_up"],
        json_mode=True,
        response_format={"type": "json_object"},
        seed=7,
        tool_choice="auto",
        parallel_tool_calls=False,
        status="success",
        error_type=None,
        error_message=None,
    )
    assert isinstance(call_id, UUID)
    call = await db.get_call_record(call_id)
    assert call is not None
    assert (call.total_tokens, call.estimated_cost, call.temperature) == (1100, Decimal("0.00021"), 0)
    assert call.metadata == {
        "top_p": 0.9,
        "stop_sequences": ["\n"],
        "json_mode": True,
        "response_format": {"type": "json_object"},
        "seed": 7,
        "tool_choice": "auto",
    }
    assert len(call.system_prompt_hash or "") == 64
    stats = await db.get_usage_stats("app", "user-1", 30)
    assert isinstance(stats, UsageStats)
    assert (stats.total_calls, stats.total_tokens, stats.success_rate) == (1, 1100, 1)
    assert stats.avg_cost_per_call == stats.total_cost == Decimal("0.00021")
    assert (stats.most_used_model, stats.avg_response_time_ms) == ("gpt-4o-mini", 640)


async def test_a_record_made_by_hand_is_recorded(db: LLMDatabase) -> None:
    record = CallRecord(
        id=uuid4(),
        origin="app",
        id_at_origin="user-1",
        model_id=None,  # type: ignore[call-arg]
        provider="anthropic",
        model_name="m",
        prompt_tokens=1,
        completion_tokens=2,
        total_tokens=3,
        estimated_cost=Decimal("0.5"),
        called_at=datetime.now(UTC),
    )
    assert await db.record_api_call(record) == record.id
    [first, *_] = await db.list_recent_calls(origin="app", id_at_origin=None, limit=100, offset=0)
    assert (first.id, first.estimated_cost) == (record.id, Decimal("0.5"))
    assert await db.list_recent_calls("app", "user-1", 10, 1) == []


async def test_models_are_kept(db: LLMDatabase) -> None:
    model = LLMModel(
        provider="openai",
        model_name="mine",
        display_name="Mine",
        max_context=1000,
        max_output_tokens=100,
        supports_vision=True,
        supports_function_calling=True,
        supports_json_mode=True,
        supports_parallel_tool_calls=False,
        dollars_per_million_tokens_input=Decimal("1.5"),
        dollars_per_million_tokens_output=Decimal("2.5"),
    )
    number = await db.add_model(model)
    assert isinstance(number, int)
    assert await db.update_model_costs("openai", "mine", Decimal("3"), Decimal("4"))
    found = await db.get_model("openai", "mine", active_only=True)
    assert found is not None
    assert (found.id, found.dollars_per_million_tokens_input, found.is_active) == (number, 3, True)
    assert "mine" in [each.model_name for each in await db.list_models(provider="openai", active_only=True)]


async def test_a_database_is_looked_after() -> None:
    db = LLMDatabase("memory://")
    report = await db.apply_migrations()
    assert report["applied"] == ["001_baseline"]
    await db.aggregate_daily_analytics()
    await db.aggregate_daily_analytics("2026-01-01")
    assert await db.cleanup_old_data(days_to_keep_calls=90, days_to_keep_analytics=365) == 0
    assert (await db.health_check())["status"] == "healthy"
    await db.close()


async def test_a_bridge_over_sqlite_keeps_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.warns(DeprecationWarning, match="sqlite:///"):
        service = LLMBridgeSQLite(db_path="my_app.db", origin="app")
    response = await service.chat(REQUEST)
    assert isinstance(response, LLMResponse)
    assert await service.get_usage_stats("user123", days=1) is None
    await service.close()
    assert (tmp_path / "my_app.db").exists()
    with pytest.warns(DeprecationWarning, match="sqlite:///"):
        assert LLMBridgeSQLite(enable_db_logging=False).db is None


async def test_a_provider_is_registered_by_its_kind_and_found() -> None:
    service = LLMBridge(enable_db_logging=False)
    service.register_provider("openai", api_key="sk-anything")
    assert isinstance(service.get_provider("openai"), BaseLLMProvider)
    with pytest.raises(ValueError, match="nobody"):
        service.get_provider("nobody")
    assert {"openai", "anthropic"} <= set(service.get_available_models())
    info = service.get_model_info("openai:gpt-4o")
    assert (info["provider"], info["model"], info["supported"]) == ("openai", "gpt-4o", True)
    await service.close()


def test_files_are_prepared_as_in_the_examples(tmp_path: Path) -> None:
    packed = base64.b64encode(PNG).decode()
    page = tmp_path / "page.txt"
    page.write_text("Some text.")
    assert llmbridge.get_file_mime_type(str(page)) == "text/plain"
    assert (
        llmbridge.create_data_url(str(page)) == f"data:text/plain;base64,{llmbridge.encode_file_to_base64(str(page))}"
    )
    text, picture = llmbridge.analyze_image(packed, "What is there?", "image/png")
    assert (text["text"], picture["image_url"]["url"][:22]) == ("What is there?", "data:image/png;base64,")
    assert len(llmbridge.extract_text_from_image("https://example.com/a.png")) == 2
    # Not quite base64, as their example makes it where it has no image.
    made_up = "iVBORw0KGgoAAAANSUhEUgAA" + "A" * 200 + "AAAABJRU5ErkJggg=="
    for source in (packed, made_up):
        sources: list[Any] = ["https://example.com/a", source, {"data": source[:100] + "cut", "mime_type": "image/png"}]
        assert len(llmbridge.create_multi_image_content(sources, "Compare them")) == 4
        assert len(llmbridge.compare_images("https://example.com/a", source, "What differs?")) == 3


def test_a_quick_start_runs_without_closing_anything(run: Run) -> None:
    printed = run(
        """
        import asyncio
        from llmbridge import LLMBridge, LLMRequest, Message
        from llmbridge.service_sqlite import LLMBridgeSQLite

        async def main():
            for service in (LLMBridge(enable_db_logging=False), LLMBridgeSQLite()):
                request = LLMRequest(
                    messages=[Message(role="user", content="What is 2+2?")],
                    model="gpt-4o-mini",
                    temperature=0,
                    max_tokens=100,
                    cache={"enabled": True, "ttl_seconds": 300},
                )
                response = await service.chat(request)
                print(response.content, response.usage["total_tokens"])
                stats = await service.get_usage_stats("user123", days=1)
                if stats:
                    print(f"${stats.total_cost:.4f}")

        asyncio.run(main())
        """.replace("\n        ", "\n")
    )
    assert printed == "echo: What is 2+2? 19\n" * 2


async def test_a_fastapi_application_is_served(tmp_path: Path) -> None:
    service = LLMBridge(db_connection_string=f"sqlite:///{tmp_path}/calls.db", origin="llm-api", enable_db_logging=True)
    app = FastAPI()

    async def get_service() -> LLMBridge:
        return service

    @app.get("/health")
    async def health(service: LLMBridge = Depends(get_service)) -> Any:  # noqa: B008
        assert service.db is not None
        return await service.db.health_check()

    @app.post("/chat")
    async def chat(body: dict[str, Any], service: LLMBridge = Depends(get_service)) -> Any:  # noqa: B008
        try:
            request = LLMRequest(messages=[Message(**said) for said in body["messages"]], model=body["model"])
            response = await service.chat(request, id_at_origin=body["id_at_origin"])
        except Exception as error:
            raise HTTPException(500, str(error)) from error
        return {"content": response.content, "usage": response.usage, "tool_calls": response.tool_calls}

    @app.get("/models")
    async def models(service: LLMBridge = Depends(get_service)) -> Any:  # noqa: B008
        return [each.model_name for each in await service.get_models_from_db(provider="openai")]

    @app.get("/usage/{user_id}")
    async def usage(user_id: str, days: int = 30, service: LLMBridge = Depends(get_service)) -> Any:  # noqa: B008
        stats = await service.get_usage_stats(user_id, days=days)
        return {"total_calls": stats.total_calls, "total_cost": stats.total_cost} if stats else {"message": "none"}

    assert service.db is not None
    await service.db.initialize()
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://app") as client:
        assert (await client.get("/health")).json()["status"] == "healthy"
        said = {"messages": [{"role": "user", "content": "Hi"}], "model": "echo:demo", "id_at_origin": "user-1"}
        assert (await client.post("/chat", json=said)).json()["content"] == "echo: Hi"
        assert "gpt-4o" in (await client.get("/models")).json()
        assert (await client.get("/usage/user-1")).json()["total_calls"] == 1
        assert (await client.get("/usage/nobody")).json() == {"message": "none"}
    (call,) = await service.list_recent_calls("user-1", limit=100)
    assert call.called_at > datetime.now(UTC) - timedelta(minutes=5)
    await service.close()
