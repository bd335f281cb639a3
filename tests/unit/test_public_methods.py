"""Methods of LLMDatabase for pages of calls, the spool and the price data, and the types in `llmbridge.reports`."""

from __future__ import annotations

import typing
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from llmbridge import LLMDatabase, reports
from llmbridge._recording.spool import Spool
from llmbridge.testing import make_call

START = datetime(2026, 3, 1, 23, 30, tzinfo=UTC)


@pytest.fixture
async def db(tmp_path: Path) -> Any:
    async with LLMDatabase(f"sqlite:///{tmp_path}/calls.db", spool_dir=tmp_path / "spool") as opened:
        for hour in range(5):
            await opened.record_api_call(
                origin="app",
                provider="openai",
                model_name="gpt-4o",
                id_at_origin="ann" if hour % 2 else None,
                cost_reason="unknown_model",
                called_at=START + timedelta(hours=hour),
            )
        yield opened


async def test_pages_of_calls_follow_each_other_by_their_cursor(db: LLMDatabase) -> None:
    first = await db.find_calls(limit=3)
    assert first.next is not None
    second = await db.find_calls(limit=3, cursor=first.next)
    assert second.next is None
    found = [call.called_at for call in (*first.calls, *second.calls)]
    assert found == [START + timedelta(hours=hour) for hour in reversed(range(5))]


async def test_calls_are_found_by_time_and_filters(db: LLMDatabase) -> None:
    async def hours(*args: Any, **options: Any) -> list[int]:
        return [
            (call.called_at - START) // timedelta(hours=1) for call in (await db.find_calls(*args, **options)).calls
        ]

    assert await hours(date(2026, 3, 2)) == [4, 3, 2, 1]
    assert await hours(date(2026, 3, 2), tz="America/Lima") == []
    assert await hours(START + timedelta(hours=1), START + timedelta(hours=3)) == [2, 1]
    assert await hours(id_at_origin="ann") == [3, 1]
    assert await hours(id_at_origin=(None,)) == [4, 2, 0]
    assert await hours(status=("error", "timeout")) == []


@pytest.mark.parametrize(
    "options",
    [
        {"cursor": "nonsense"},
        {"limit": 0},
        {"limit": 1001},
        {"status": "fine"},
        {"tz": "Nowhere"},
        {"since": datetime.max},
    ],
)
async def test_a_wrong_question_is_refused_without_a_database_too(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"."):
        await LLMDatabase().find_calls(**options)


async def test_without_a_database_no_call_is_found() -> None:
    assert await LLMDatabase().find_calls() == reports.CallList([], None)


async def test_the_spool_shows_what_waits_and_what_was_set_aside(tmp_path: Path) -> None:
    db = LLMDatabase(f"sqlite:///{tmp_path}/calls.db", spool_dir=tmp_path / "spool")
    assert db.backend is not None
    assert db.backend.target is not None
    spool = Spool(db.backend.target, tmp_path / "spool")
    spool.put([make_call(number) for number in range(3)])
    spool.file.set_aside({1: "too large", 2: "too large"})
    status = await db.spool_status()
    assert status == reports.SpoolStatus(str(spool.path), 1, 2, 0, {"too large": 2})
    assert await db.retry_spool() == 2
    assert (await db.spool_status()) == reports.SpoolStatus(str(spool.path), 3, 0, 0, {})


@pytest.mark.parametrize("url", [None, "memory://"])
async def test_a_database_in_memory_has_no_spool(url: str | None) -> None:
    db = LLMDatabase(url)
    assert await db.spool_status() is None
    assert await db.retry_spool() == 0


async def test_the_price_data_in_use_are_described(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    data = await LLMDatabase.price_data()
    assert data.version.startswith("genai-prices ")
    assert data.providers > 20
    assert data.models > 500
    assert (data.path, data.fetched_at, data.error) == (str(tmp_path / "llmbridge" / "prices.json"), None, None)
    (tmp_path / "llmbridge").mkdir()
    (tmp_path / "llmbridge" / "prices.json").write_text("broken")
    assert "prices.json" in ((await LLMDatabase.price_data()).error or "")


async def test_only_entries_of_the_catalog_have_an_origin() -> None:
    db = LLMDatabase()
    [model] = [model for model in await db.known_models() if (model.provider, model.model_name) == ("openai", "gpt-4o")]
    origin = db.models.origin(model)
    assert origin is not None
    assert origin.source.startswith("https://")
    assert db.models.origin(model.model_copy(update={"source": "user"})) is None


def test_every_type_of_a_public_method_can_be_imported() -> None:
    listed = {getattr(reports, name) for name in reports.__all__ if isinstance(getattr(reports, name), type)}
    private = {
        used
        for name, method in vars(LLMDatabase).items()
        if callable(method) and not name.startswith("_")
        for used in _types(typing.get_type_hints(method, localns=vars(reports)).get("return"))
        if any(part.startswith("_") for part in used.__module__.split(".")) and used.__module__.startswith("llmbridge")
    }
    assert private <= listed


def _types(hint: Any) -> set[type]:
    found = {hint} if isinstance(hint, type) else set()
    return found.union(*(_types(argument) for argument in typing.get_args(hint)))
