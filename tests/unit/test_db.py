"""LLMDatabase on one database: recording, prices, models, queries."""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from llmbridge import CallRecord, LLMDatabase, LLMModel, ModelPrice
from llmbridge._models import catalog
from llmbridge._shared.ids import new_id
from llmbridge.errors import (
    RecordRejectedError,
    SchemaOutdatedError,
    SchemaTooNewError,
    StorageClosedError,
    StorageError,
    StorageUnavailableError,
    UnsupportedOperationError,
)
from llmbridge.reports import CloseReport
from llmbridge.storage import MigrationReport, SchemaStatus
from llmbridge.storage.memory import MemoryBackend


@pytest.fixture
async def db() -> AsyncIterator[LLMDatabase]:
    async with LLMDatabase("memory://") as opened:
        yield opened


def fields(**changes: Any) -> dict[str, Any]:
    return {
        "origin": "app",
        "id_at_origin": "user-1",
        "provider": "openai",
        "model_name": "gpt-4o-mini",
        "prompt_tokens": 1000,
        "completion_tokens": 100,
        **changes,
    }


async def recorded(db: LLMDatabase, **changes: Any) -> CallRecord:
    call_id = await db.record_api_call(**fields(**changes))
    assert call_id is not None
    call = await db.get_call_record(call_id)
    assert call is not None
    return call


async def test_a_caller_who_leaves_while_prices_are_read_leaves_his_call(
    db: LLMDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    await recorded(db)
    read = threading.Event()
    monkeypatch.setattr("llmbridge._pricing.genai_prices.editions.MAX_AGE", -1)
    monkeypatch.setattr("llmbridge._pricing.genai_prices.editions.refresh", read.wait)
    call_id = new_id()
    leaving = asyncio.create_task(db.record_api_call(**fields(id=call_id)))
    await asyncio.sleep(0)
    leaving.cancel()
    assert await asyncio.gather(leaving, return_exceptions=True) != [call_id]
    read.set()
    while await db.get_call_record(call_id) is None:
        await asyncio.sleep(0.01)


async def test_a_call_that_is_left_and_can_never_be_stored_is_told_of(
    db: LLMDatabase, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("llmbridge._pricing.genai_prices.editions.MAX_AGE", -1)
    leaving = asyncio.create_task(db.record_api_call(**fields(metadata={"secret": object()})))
    await asyncio.sleep(0)
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    assert db.metrics()["calls_rejected"] == 1
    assert "is not known to be recorded" in caplog.text
    assert "secret" not in caplog.text


async def test_what_is_missing_is_filled_in(db: LLMDatabase) -> None:
    before = datetime.now(UTC)
    call = await recorded(db)
    assert call.total_tokens == 1100
    assert call.estimated_cost == Decimal("0.00021")
    assert (call.cost_source, call.cost_reason, call.usage_source) == ("prices", None, "provider")
    assert before <= call.called_at <= datetime.now(UTC)


async def test_a_cost_that_the_caller_gives_is_taken(db: LLMDatabase) -> None:
    call = await recorded(db, estimated_cost=0.001)
    assert (call.estimated_cost, call.cost_source) == (Decimal("0.001"), "caller")


async def test_a_cost_of_zero_is_a_cost(db: LLMDatabase) -> None:
    call = await recorded(db, estimated_cost=0, provider="nobody", model_name="x")
    assert (call.estimated_cost, call.cost_reason) == (0, None)


async def test_upstreams_parameters_find_their_place(db: LLMDatabase) -> None:
    call = await recorded(
        db,
        system_prompt="be brief",
        top_p=0.5,
        stop_sequences=["\n"],
        json_mode=False,
        seed=7,
        stream=True,
        tools_used=["a"],
        metadata={"team": "x"},
    )
    assert call.metadata == {"top_p": 0.5, "stop_sequences": ["\n"], "seed": 7, "team": "x"}
    assert (call.stream, call.tools_used) == (True, ["a"])
    assert call.system_prompt_hash == hashlib.sha256(b"be brief").hexdigest()


async def test_a_parameter_that_does_not_exist_is_named(db: LLMDatabase) -> None:
    with pytest.raises(TypeError, match="promt_tokens"):
        await db.record_api_call(**fields(promt_tokens=1))


async def test_a_record_made_by_hand_is_priced_and_kept_with_its_id(db: LLMDatabase) -> None:
    at = datetime(2026, 1, 2, tzinfo=UTC)
    call = CallRecord(id=new_id(), called_at=at, **fields())
    assert await db.record_api_call(call) == call.id
    kept = await db.get_call_record(call.id)
    assert kept is not None
    assert (kept.called_at, kept.estimated_cost) == (at, Decimal("0.00021"))
    with pytest.raises(TypeError):
        await db.record_api_call(call, origin="x")


async def test_a_call_that_can_never_be_stored_is_refused_with_its_reason(db: LLMDatabase) -> None:
    with pytest.raises(RecordRejectedError, match="called_at"):
        await db.record_api_call(**fields(called_at=datetime(2026, 1, 1)))
    with pytest.raises(RecordRejectedError, match="below"):
        await db.record_api_call(**fields(prompt_tokens=2**62))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"model_name": "nobody-knows"}, "unknown_model"),
        ({"prompt_tokens": None, "completion_tokens": None}, "unmeasured_usage"),
        ({"prompt_tokens": None, "completion_tokens": None, "status": "timeout"}, "unmeasured_usage"),
        ({"prompt_tokens": None, "completion_tokens": None, "status": "cancelled"}, "unmeasured_usage"),
        ({"prompt_tokens": None, "completion_tokens": None, "status": "error"}, "not_billed"),
        ({"prompt_tokens": None, "completion_tokens": None, "status": "rate_limited"}, "not_billed"),
        ({"completion_tokens": None}, "unmeasured_usage"),
        ({"usage_source": "synthetic"}, "synthetic"),
    ],
    ids=repr,
)
async def test_an_unknown_cost_says_why(db: LLMDatabase, changes: dict[str, Any], reason: str) -> None:
    call = await recorded(db, **changes)
    assert (call.estimated_cost, call.cost_reason) == (None, reason)


async def test_an_own_price_wins_from_its_date_on(db: LLMDatabase) -> None:
    start = datetime(2026, 6, 1, tzinfo=UTC)
    await db.set_prices([ModelPrice("openai", "gpt-4o-mini", start, input=Decimal(1), output=Decimal(2))])
    before = await recorded(db, called_at=start - timedelta(microseconds=1))
    after = await recorded(db, called_at=start)
    assert (before.estimated_cost, before.cost_source) == (Decimal("0.00021"), "prices")
    assert (after.estimated_cost, after.cost_source) == (Decimal("0.0012"), "own_prices")


async def test_the_rates_of_a_model_become_its_own_price(db: LLMDatabase) -> None:
    model = LLMModel(
        provider="acme",
        model_name="m",
        dollars_per_million_tokens_input=Decimal("0.15"),
        dollars_per_million_tokens_output=Decimal("0.6"),
    )
    assert await db.add_model(model) == catalog.model_id("acme", "m")
    assert (await recorded(db, provider="acme", model_name="m")).estimated_cost == Decimal("0.00021")
    assert await db.update_model_costs("acme", "m", 1, 2)
    assert (await recorded(db, provider="acme", model_name="m")).estimated_cost == Decimal("0.0012")
    assert not await db.update_model_costs("acme", "nobody", 1, 2)
    found = await db.get_model("acme", "m")
    assert found is not None
    assert found.dollars_per_million_tokens_input == 1


async def test_a_model_without_rates_changes_no_price(db: LLMDatabase) -> None:
    await db.upsert_model(LLMModel(provider="openai", model_name="gpt-4o-mini", display_name="mine"))
    assert (await recorded(db)).cost_source == "prices"


async def test_rates_equal_to_those_in_force_make_no_own_price(db: LLMDatabase) -> None:
    await db.upsert_model(
        LLMModel(
            provider="openai",
            model_name="gpt-4o-mini",
            dollars_per_million_tokens_input=Decimal("0.150"),
            dollars_per_million_tokens_output=Decimal("0.60"),
        )
    )
    assert db.backend is not None
    assert await db.backend.list_prices() == []


async def test_a_free_model_is_priced_at_zero(db: LLMDatabase) -> None:
    await db.upsert_model(
        LLMModel(
            provider="acme",
            model_name="free",
            dollars_per_million_tokens_input=Decimal(0),
            dollars_per_million_tokens_output=Decimal(0),
        )
    )
    assert (await recorded(db, provider="acme", model_name="free")).estimated_cost == 0


async def test_the_catalog_is_there_at_first_use(db: LLMDatabase) -> None:
    model = await db.get_model("openai", "gpt-4o-mini")
    assert model is not None
    assert model.source == f"catalog {catalog.VERSION}"
    assert len(await db.list_models(active_only=False)) == len(catalog.models())
    assert len(await db.list_models()) == sum(model.is_active for model in catalog.models())
    assert {m.provider for m in await db.list_models("anthropic")} == {"anthropic"}


async def test_the_catalog_replaces_its_own_older_entries_and_nothing_else() -> None:
    backend = MemoryBackend("catalog")
    async with backend:
        old = {m.model_name: m for m in catalog.models() if m.provider == "openai"}
        stale = old["gpt-4o"].model_copy(update={"source": "catalog 2020.1.0", "display_name": "stale"})
        mine = old["gpt-4o-mini"].model_copy(update={"source": "user", "display_name": "mine"})
        retired = old["gpt-4-turbo"].model_copy(
            update={"source": "catalog 2020.1.0", "inactive_from": datetime.now(UTC), "display_name": "retired"}
        )
        await backend.upsert_models([stale, mine, retired])
    async with LLMDatabase("memory://catalog") as db:
        names = {m.model_name: m.display_name for m in await db.list_models("openai", active_only=False)}
    assert names["gpt-4o"] == old["gpt-4o"].display_name
    assert (names["gpt-4o-mini"], names["gpt-4-turbo"]) == ("mine", "retired")


async def test_a_retired_model_is_found_only_when_asked_for(db: LLMDatabase) -> None:
    assert await db.retire_models([("openai", "gpt-4o"), ("openai", "nobody")]) == 1
    assert await db.get_model("openai", "gpt-4o") is None
    retired = await db.get_model("openai", "gpt-4o", active_only=False)
    assert retired is not None
    assert not retired.is_active


async def test_recent_calls_come_newest_first_in_pages(db: LLMDatabase) -> None:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    for n in range(25):
        user = "a" if n % 2 else "b"
        await db.record_api_call(**fields(called_at=start + timedelta(hours=n), id_at_origin=user, prompt_tokens=n))
    assert [c.prompt_tokens for c in await db.list_recent_calls("app", limit=3)] == [24, 23, 22]
    assert [c.prompt_tokens for c in await db.list_recent_calls("app", limit=3, offset=20)] == [4, 3, 2]
    assert [c.prompt_tokens for c in await db.list_recent_calls("app", "a", limit=2)] == [23, 21]
    assert len(await db.list_recent_calls(limit=100)) == 25
    assert await db.list_recent_calls("app", limit=0) == []
    with pytest.raises(ValueError, match="negative"):
        await db.list_recent_calls(limit=-1)


async def test_more_calls_than_one_page_holds_are_listed(db: LLMDatabase) -> None:
    await asyncio.gather(*(db.record_api_call(**fields()) for _ in range(1500)))
    assert len(await db.list_recent_calls("app", limit=1400, offset=50)) == 1400


async def test_usage_by_day_in_a_zone_is_labelled_by_dates(db: LLMDatabase) -> None:
    for at in (datetime(2026, 3, 1, 18, tzinfo=UTC), datetime(2026, 3, 1, 18, 20, tzinfo=UTC)):
        await db.record_api_call(**fields(called_at=at))
    rows = await db.usage(
        date(2026, 3, 1), date(2026, 3, 4), group_by=["day", "model_name"], tz="Asia/Kathmandu", origin="app"
    )
    assert [(row.key, row.calls) for row in rows] == [
        ({"day": date(2026, 3, 1), "model_name": "gpt-4o-mini"}, 1),
        ({"day": date(2026, 3, 2), "model_name": "gpt-4o-mini"}, 1),
    ]


async def test_usage_filters_by_one_value_by_several_and_by_absence(db: LLMDatabase) -> None:
    for user, team in (("a", "x"), ("b", "y"), (None, None)):
        await db.record_api_call(**fields(id_at_origin=user, metadata={"team": team} if team else None))

    async def calls(**filters: Any) -> int:
        (row,) = await db.usage(**filters)
        return row.calls

    assert await calls() == 3
    assert await calls(id_at_origin="a") == 1
    assert await calls(id_at_origin=["a", "b"]) == 2
    assert await calls(id_at_origin=(None,)) == 1
    assert await calls(tags={"team": "x"}) == 1
    assert await calls(tags={"team": (None, "y")}) == 2
    assert await calls(provider="openai", model_name="gpt-4o-mini", status="success", origin="app") == 3
    rows = await db.usage(group_by="tag:team")
    assert [(row.key["tag:team"], row.calls) for row in rows] == [(None, 1), ("x", 1), ("y", 1)]


@pytest.mark.parametrize(
    "wrong",
    [
        {"group_by": "colour"},
        {"group_by": ("origin", "origin")},
        {"group_by": "period"},
        {"group_by": "day"},
        {"group_by": ("day", "hour"), "since": datetime(2026, 1, 1, tzinfo=UTC)},
        {"group_by": ("tag:a", "tag:b")},
        {"group_by": "tag:"},
        {"group_by": ("origin", 7)},
        {"status": "successful"},
        {"status": ("error", None)},
        {"tz": "Mars/Olympus"},
        {"since": datetime(2026, 1, 1)},
        {"since": datetime(2026, 1, 2, tzinfo=UTC), "until": datetime(2026, 1, 1, tzinfo=UTC)},
        {"tags": {"a": "x", "b": "y"}},
        {"id_at_origin": 7},
    ],
    ids=repr,
)
async def test_a_wrong_question_is_refused(db: LLMDatabase, wrong: dict[str, Any]) -> None:
    with pytest.raises((ValueError, TypeError)):
        await db.usage(**wrong)


async def test_an_id_that_is_no_uuid_is_refused(db: LLMDatabase) -> None:
    known = await db.record_api_call(**fields())
    with pytest.raises(ValueError, match="an id must be a UUID, not str"):
        await db.get_call_record(str(known))  # type: ignore[arg-type]


async def test_stats_start_at_midnight_where_their_first_day_was_purged(db: LLMDatabase) -> None:
    now = datetime.now(UTC)
    old = now - timedelta(days=10)
    await db.record_api_call(**fields(called_at=old))
    await db.record_api_call(**fields())
    assert await db.cleanup_old_data(days_to_keep_calls=8) == 1
    stats = await db.get_usage_stats("app", "user-1", days=10)
    assert stats is not None
    assert stats.since == (now - timedelta(days=10)).replace(hour=0, minute=0, second=0, microsecond=0)
    assert stats.total_calls == 2


async def test_purging_keeps_a_week_unless_forced(db: LLMDatabase) -> None:
    with pytest.raises(ValueError, match="force"):
        await db.cleanup_old_data(days_to_keep_calls=6)
    assert await db.cleanup_old_data(days_to_keep_calls=0, force=True) == 0


async def test_monitoring_is_told_apart_from_its_absence(db: LLMDatabase) -> None:
    with pytest.raises(UnsupportedOperationError):
        await db.get_pool_stats()


class Dated(MemoryBackend):
    """A store whose schema is as old or as new as the test says."""

    def __init__(self, status: SchemaStatus) -> None:
        super().__init__()
        self.status = status

    async def schema_status(self) -> SchemaStatus:
        return self.status

    async def apply_migrations(self) -> MigrationReport:
        self.status = SchemaStatus("002", "002", [], writable=True)
        return MigrationReport(["002"], ["001"], 2)


async def test_a_check_names_the_command_that_migrates() -> None:
    db = LLMDatabase(backend=Dated(SchemaStatus("001", "002", ["002"], writable=True)), migrate="check")
    with pytest.raises(SchemaOutdatedError, match="llmbridge storage migrate"):
        await db.initialize()
    report = await db.apply_migrations()
    assert report.applied == report["applied"] == ["002"]
    assert dict(report) == {"applied": ["002"], "skipped": ["001"], "total": 2}
    await db.initialize()
    await db.close()


async def test_a_schema_that_is_too_new_is_refused() -> None:
    db = LLMDatabase(backend=Dated(SchemaStatus("009", "002", [], writable=False)))
    with pytest.raises(SchemaTooNewError, match="009"):
        await db.initialize()


async def test_health_never_raises() -> None:
    class Silent(MemoryBackend):
        async def ping(self) -> None:
            await asyncio.Event().wait()

    async with LLMDatabase(backend=Silent()) as db:
        report = await db.health_check(timeout=0.05)
    assert report["status"] == "unhealthy"

    class Away(MemoryBackend):
        async def connect(self) -> None:
            raise StorageUnavailableError("cannot reach postgresql://user:hunter2@host/db")

    report = await LLMDatabase(backend=Away()).health_check()
    assert report["status"] == "unhealthy"
    assert "hunter2" not in report["error"]


async def test_a_foreign_exception_names_the_distribution_that_let_it_through() -> None:
    class Leaky(MemoryBackend):
        async def list_calls(self, query: Any) -> Any:
            raise ZeroDivisionError

    async with LLMDatabase(backend=Leaky()) as db:
        with pytest.raises(StorageError, match="ZeroDivisionError") as leaked:
            await db.list_recent_calls()
    assert isinstance(leaked.value.__cause__, ZeroDivisionError)


async def test_a_record_that_is_not_confirmed_in_time_raises() -> None:
    class Slow(MemoryBackend):
        async def record_calls(self, calls: Any) -> Any:
            await asyncio.sleep(0.3)
            return await super().record_calls(calls)

    db = LLMDatabase(backend=Slow(), record_timeout=0.05)
    with pytest.raises(StorageUnavailableError, match=r"0\.05 s"):
        await db.record_api_call(**fields())
    await db.close()


async def test_without_a_store_nothing_is_kept_and_nothing_raises() -> None:
    db = LLMDatabase()
    assert not db.enabled
    await db.initialize()
    assert await db.record_api_call(**fields()) is None
    assert await db.get_call_record(UUID(int=0)) is None
    assert await db.list_models() == []
    assert await db.get_usage_stats("app") is None
    assert await db.usage() == []
    assert await db.cleanup_old_data() == 0
    await db.close()


def test_a_backend_and_a_url_are_one_too_many() -> None:
    with pytest.raises(ValueError, match="not two"):
        LLMDatabase("memory://", backend=MemoryBackend())


async def test_closing_twice_is_harmless_and_opening_again_works() -> None:
    db = LLMDatabase("memory://reopened")
    await db.record_api_call(**fields())
    await db.close()
    await db.close()
    with pytest.raises(StorageClosedError):
        await db.list_recent_calls()
    async with db:
        assert len(await db.list_recent_calls()) == 1


async def test_zero_is_a_value_of_a_parameter_and_metadata_of_the_caller_wins(db: LLMDatabase) -> None:
    call = await recorded(db, seed=0, top_p=0, metadata={"seed": "mine"})
    assert call.metadata == {"seed": "mine", "top_p": 0}


async def test_a_record_moves_to_another_store_as_it_is(db: LLMDatabase) -> None:
    await db.set_prices([ModelPrice("acme", "m", datetime(2026, 1, 1, tzinfo=UTC), Decimal(1), Decimal(1))])
    call = await recorded(db, provider="acme", model_name="m")
    async with LLMDatabase("memory://") as other:
        await other.record_api_call(call)
        assert await other.get_call_record(call.id) == call


async def test_counts_given_as_text_are_counted(db: LLMDatabase) -> None:
    assert (await recorded(db, prompt_tokens="5", completion_tokens=1.0)).total_tokens == 6


@pytest.mark.parametrize(
    "wrong",
    [
        {"effective_from": datetime(2026, 1, 1)},
        {"input": -1},
        {"input": float("nan")},
        {"input": 10**9},
        {"model_name": "m" * 256},
        {"provider": ""},
    ],
    ids=lambda wrong: next(iter(wrong)),
)
async def test_a_price_that_can_never_be_stored_is_refused(db: LLMDatabase, wrong: dict[str, Any]) -> None:
    given = {"provider": "acme", "model_name": "m", "effective_from": datetime(2026, 1, 1, tzinfo=UTC), **wrong}
    with pytest.raises(RecordRejectedError):
        await db.set_prices([ModelPrice(**given)])
    assert (await recorded(db, provider="acme", model_name="m")).cost_reason == "unknown_model"


async def test_a_price_of_floats_enters_by_its_digits(db: LLMDatabase) -> None:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    await db.set_prices([ModelPrice("acme", "m", start, input=0.1, output=0.2)])  # type: ignore[arg-type]
    assert (await recorded(db, provider="acme", model_name="m")).estimated_cost == Decimal("0.00012")


async def test_rates_that_are_not_given_stay_those_in_force(db: LLMDatabase) -> None:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    await db.set_prices([ModelPrice("openai", "gpt-4o-mini", start, Decimal(1), Decimal(2), Decimal(3), Decimal(4))])
    assert await db.update_model_costs("openai", "gpt-4o-mini", None, None)
    assert db.backend is not None
    assert len(await db.backend.list_prices()) == 1
    assert await db.update_model_costs("openai", "gpt-4o-mini", 5, None)
    newest = (await db.backend.list_prices())[-1]
    assert (newest.input, newest.output, newest.cache_read, newest.cache_write) == (5, 2, 3, 4)
    model = await db.get_model("openai", "gpt-4o-mini")
    assert model is not None
    assert model.source == "user"


async def test_rates_of_many_models_become_prices_at_once() -> None:
    class Counting(MemoryBackend):
        writes = 0

        async def set_prices(self, prices: Sequence[ModelPrice]) -> None:
            self.writes += 1
            await super().set_prices(prices)

    def model(name: str, rate: str) -> LLMModel:
        rates = {"dollars_per_million_tokens_input": rate, "dollars_per_million_tokens_output": rate}
        return LLMModel.model_validate({"provider": "acme", "model_name": name, **rates})

    backend = Counting()
    async with LLMDatabase(backend=backend) as db:
        await db.upsert_models([model("a", "1"), model("b", "2"), model("a", "3")])
        assert [(price.model_name, price.input) for price in await db.list_prices()] == [("a", 3), ("b", 2)]
        await db.upsert_models([model("a", "3"), model("b", "2")])
    assert backend.writes == 1


async def test_the_past_may_be_as_long_as_it_likes_and_the_future_is_not_purged(db: LLMDatabase) -> None:
    await db.record_api_call(**fields())
    stats = await db.get_usage_stats("app", days=10**7)
    assert stats is not None
    with pytest.raises(ValueError, match="negative"):
        await db.cleanup_old_data(-5, force=True)
    assert await db.cleanup_old_data(10**7) == 0


async def test_filters_find_what_was_stored_for_them(db: LLMDatabase) -> None:
    await db.record_api_call(**fields(id_at_origin="u\0x"))
    await db.record_api_call(**fields(id_at_origin=""))
    for user in ("u\0x", ""):
        stats = await db.get_usage_stats("app", user)
        assert stats is not None
        assert stats.total_calls == 1
        assert len(await db.list_recent_calls("app", user)) == 1


async def test_the_most_used_model_and_the_mean_are_of_what_there_is(db: LLMDatabase) -> None:
    for name in ("a", "z", "z"):
        await db.record_api_call(**fields(provider="nobody", model_name=name))
    stats = await db.get_usage_stats("app")
    assert stats is not None
    assert (stats.most_used_model, stats.avg_cost_per_call, stats.unpriced_calls) == ("z", None, 3)


async def test_closing_does_not_wait_for_a_backend_that_hangs() -> None:
    class Hanging(MemoryBackend):
        async def record_calls(self, calls: Any) -> Any:
            await asyncio.Event().wait()

    db = LLMDatabase(backend=Hanging(), record_timeout=0.05)
    with pytest.raises(StorageUnavailableError):
        await db.record_api_call(**fields())
    await db.close()


async def test_options_without_a_url_are_an_error() -> None:
    with pytest.raises(ValueError, match="synchronous"):
        LLMDatabase(synchronous="normal")


async def test_a_closing_that_was_cancelled_midway_leaves_a_database_that_opens_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    db = LLMDatabase("memory://cancelled-closing")
    await db.initialize()
    hangs = asyncio.Event()

    async def hang(timeout: float) -> CloseReport:
        hangs.set()
        return await asyncio.get_running_loop().create_future()

    monkeypatch.setattr(db._writer, "close", hang)
    closing = asyncio.create_task(db.close())
    await hangs.wait()
    (shared,) = [task for task in asyncio.all_tasks() if task.get_name() == "llmbridge-close"]
    shared.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    await db.initialize()
    call_id = await db.record_api_call(**fields())
    assert call_id is not None
    assert await db.get_call_record(call_id) is not None
    await db.close()
