"""Killed connections, restarted servers, cancelled callers: nothing lost, nothing counted twice."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Any

import pytest

from llmbridge.errors import RecordRejectedError, StorageUnavailableError
from llmbridge.recorder import Recorder
from llmbridge.schemas import CallRecord
from llmbridge.storage import RecordResult, UsageQuery
from llmbridge.storage.reference import summarize
from llmbridge.testing import make_call, make_model
from llmbridge.testing.comparison import assert_same
from llmbridge_postgres import PostgreSQLBackend

from .server import OwnServer, Server


async def assert_recorded(backend: PostgreSQLBackend, calls: Sequence[CallRecord]) -> None:
    """Every call is there once."""
    query = UsageQuery(group_by=("status",))
    assert_same(await backend.summarize_usage(query), summarize(calls, query))


async def record_while(backend: PostgreSQLBackend, trouble: asyncio.Task[None]) -> list[CallRecord]:
    """Callers that record through core's recorder until `trouble` is over, and what was acknowledged to them."""
    recorder = Recorder(backend.record_calls, patience=60)
    acknowledged: list[CallRecord] = []

    async def caller(number: int) -> None:
        sequence = 0
        while not trouble.done() or sequence < 3:
            call = make_call(number * 1_000_000 + sequence)
            await recorder.record(call)
            acknowledged.append(call)
            sequence += 1

    await asyncio.gather(*(caller(number) for number in range(100)))
    await trouble
    await recorder.close()
    return acknowledged


async def test_connections_killed_in_mid_batch_lose_and_double_nothing(
    server: Server, backend: PostgreSQLBackend, database: str
) -> None:
    async def trouble() -> None:
        for _ in range(20):
            await asyncio.to_thread(
                server.run,
                f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database}'",
            )

    acknowledged = await record_while(backend, asyncio.create_task(trouble()))
    await assert_recorded(backend, acknowledged)


@pytest.mark.parametrize("end", ["stop", "kill"])
async def test_a_server_that_ends_under_load_and_comes_back(own_server: OwnServer, end: str) -> None:
    with own_server.database("ENCODING 'UTF8'") as database:
        async with PostgreSQLBackend(own_server.database_url(database)) as backend:
            await backend.apply_migrations()

            async def trouble() -> None:
                for _ in range(2):
                    await asyncio.to_thread(getattr(own_server, end))
                    await asyncio.to_thread(own_server.start)

            acknowledged = await record_while(backend, asyncio.create_task(trouble()))
            await assert_recorded(backend, acknowledged)


async def test_a_batch_whose_commit_was_not_heard_of_is_recorded_once(
    server: Server, url: str, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer is lost after the commit: the same ids are sent again."""
    async with PostgreSQLBackend(url) as backend:
        await backend.apply_migrations()
        calls = [make_call(number) for number in range(50)]
        unheard = 2

        async def record(batch: Sequence[CallRecord]) -> RecordResult:
            nonlocal unheard
            result = await backend.record_calls(batch)
            if unheard:
                unheard -= 1
                raise StorageUnavailableError("the connection was lost")
            return result

        recorder = Recorder(record, patience=60)
        await asyncio.gather(*(recorder.record(call) for call in calls))
        await recorder.close()
        await assert_recorded(backend, calls)


@pytest.mark.parametrize("size", [10, 100])
async def test_callers_cancelled_around_the_commit_are_wholly_in_or_out(backend: PostgreSQLBackend, size: int) -> None:
    cancelled = stored = 0
    recorded: list[CallRecord] = []
    for attempt in range(200):
        batch = [make_call(attempt * size + number) for number in range(size)]
        task = asyncio.create_task(backend.record_calls(batch))
        await asyncio.sleep(attempt * 0.00003)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        cancelled += task.cancelled()
        again = await backend.record_calls(batch)
        assert again.inserted in (0, size)
        stored += again.inserted == 0
        recorded += batch
    assert cancelled
    assert stored
    await assert_recorded(backend, recorded)


@pytest.mark.parametrize("size", [3, 400])
async def test_small_and_large_batches_keep_the_first_of_an_id(backend: PostgreSQLBackend, size: int) -> None:
    calls = [make_call(number) for number in range(size)]
    doubled = [*calls, *(call.model_copy(update={"model_name": "second"}) for call in calls[::2])]
    result = await backend.record_calls(doubled)
    assert (result.inserted, result.duplicates) == (size, len(doubled) - size)
    overlapping = [*(call.model_copy(update={"model_name": "third"}) for call in calls), make_call(size)]
    result = await backend.record_calls(overlapping)
    assert (result.inserted, result.duplicates) == (1, size)
    await assert_recorded(backend, [*calls, make_call(size)])
    [row] = await backend.summarize_usage(UsageQuery(group_by=("model_name",)))
    assert row.key == {"model_name": "gpt-4o-mini"}


@pytest.mark.parametrize("size", [3, 400])
@pytest.mark.parametrize("poison", [{"prompt_tokens": 2**63}, {"error_message": "a\0b"}, {"model_name": "\ud800"}])
async def test_one_value_that_cannot_be_stored_stores_none_of_a_batch(
    backend: PostgreSQLBackend, size: int, poison: dict[str, Any]
) -> None:
    calls = [make_call(number) for number in range(size)]
    with pytest.raises(RecordRejectedError):
        await backend.record_calls([*calls, make_call(size, **poison)])
    assert (await backend.summarize_usage(UsageQuery()))[0].calls == 0
    assert (await backend.record_calls(calls)).inserted == size


async def test_batches_that_share_ids_in_opposite_order_do_not_deadlock(url: str) -> None:
    async with PostgreSQLBackend(url) as one, PostgreSQLBackend(url) as other:
        await one.apply_migrations()
        for start in range(0, 5000, 500):
            calls = [make_call(number) for number in range(start, start + 500)]
            results = await asyncio.gather(one.record_calls(calls), other.record_calls(calls[::-1]))
            assert sum(result.inserted for result in results) == 500


async def test_writers_of_models_in_opposite_order_do_not_deadlock(url: str) -> None:
    models = [make_model(f"provider {number}") for number in range(200)]
    keys = [(model.provider, model.model_name) for model in models]
    async with PostgreSQLBackend(url) as one, PostgreSQLBackend(url) as other:
        await one.apply_migrations()
        for _ in range(5):
            results = await asyncio.gather(one.upsert_models(models), other.upsert_models(models[::-1]))
            assert all(result.inserted + result.updated == 200 for result in results)
            at = make_call().called_at
            retired = await asyncio.gather(one.retire_models(keys, at), other.retire_models(keys[::-1], at))
            assert sum(retired) == 200


async def test_disconnecting_waits_for_a_caller_that_was_cancelled(backend: PostgreSQLBackend, url: str) -> None:
    task = asyncio.create_task(backend.record_calls([make_call()]))
    await asyncio.sleep(0)
    task.cancel()
    await backend.disconnect()
    assert task.done() or (await asyncio.wait([task]))[0]
