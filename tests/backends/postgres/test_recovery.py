"""After killed connections, restarted servers and cancelled callers no call is lost or counted twice."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from pgdbm import AsyncDatabaseManager, DatabaseConfig

from llmbridge import LLMBridge, LLMRequest, Message
from llmbridge._recording.batch_writer import BatchWriter
from llmbridge.errors import RecordRejectedError, StorageUnavailableError
from llmbridge.schemas import CallRecord
from llmbridge.storage import CallQuery, RecordResult, UsageQuery
from llmbridge.storage.reference import summarize
from llmbridge.testing import make_call, make_model
from llmbridge.testing.comparison import assert_same
from llmbridge_postgres import PostgreSQLBackend, pool
from llmbridge_postgres import backend as backend_module

from ...support.postgres_server import OwnServer, Server, own

Use = Callable[[PostgreSQLBackend], Awaitable[Any]]
READS: dict[str, Use] = {
    "a page of calls": lambda backend: backend.list_calls(CallQuery()),
    "a sum": lambda backend: backend.summarize_usage(UsageQuery()),
    "a ping": lambda backend: backend.ping(),
}
USES: dict[str, Use] = READS | {
    "a small batch": lambda backend: backend.record_calls([make_call()]),
    "a large batch": lambda backend: backend.record_calls([make_call(number) for number in range(200)]),
    "a model": lambda backend: backend.upsert_models([make_model()]),
}

#: Does its harm, waiting for `progress` where more calls are to be acknowledged first.
Trouble = Callable[[Callable[[], Awaitable[None]]], Awaitable[None]]


async def assert_recorded(backend: PostgreSQLBackend, calls: Sequence[CallRecord]) -> None:
    """Every call is there once, and the totals are those of what is there."""
    stored: list[CallRecord] = []
    query = CallQuery(limit=1000)
    while True:
        page = await backend.list_calls(query)
        stored += page.calls
        if page.next is None:
            break
        query = replace(query, after=page.next)
    assert Counter(call.id for call in stored) == Counter({call.id for call in calls})
    question = UsageQuery(group_by=("model_name", "status"))
    assert_same(await backend.summarize_usage(question), summarize(stored, question))


async def record_while(backend: PostgreSQLBackend, trouble: Trouble) -> list[CallRecord]:
    """Callers that record through core's recorder until `trouble` is over, and what was acknowledged to them."""
    recorder = BatchWriter(backend.record_calls, timeout=60)
    acknowledged: list[CallRecord] = []
    progressed = asyncio.Event()

    async def progress() -> None:
        progressed.clear()
        await progressed.wait()

    troubling = asyncio.ensure_future(trouble(progress))

    async def caller(number: int) -> None:
        sequence = 0
        while not troubling.done() or sequence < 3:
            call = make_call(number * 1_000_000 + sequence)
            await recorder.record(call)
            acknowledged.append(call)
            progressed.set()
            sequence += 1

    await asyncio.gather(*(caller(number) for number in range(100)))
    await troubling
    await recorder.close()
    return acknowledged


async def test_connections_killed_in_mid_batch_lose_and_double_nothing(
    server: Server, backend: PostgreSQLBackend, database: str
) -> None:
    async def trouble(progress: Callable[[], Awaitable[None]]) -> None:
        for _ in range(20):
            await progress()
            await asyncio.to_thread(
                server.run,
                f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database}'",
            )

    acknowledged = await record_while(backend, trouble)
    await backend.disconnect()
    await backend.connect()  # a question over a connection that was killed just now is one to ask again
    await assert_recorded(backend, acknowledged)


@pytest.mark.parametrize(("end", "times"), [("stop", 2), ("kill", 8)])
async def test_a_server_that_ends_under_load_and_comes_back(own_server: OwnServer, end: str, times: int) -> None:
    async def trouble(progress: Callable[[], Awaitable[None]]) -> None:
        for _ in range(times):
            await progress()
            await asyncio.to_thread(getattr(own_server, end))
            await asyncio.to_thread(own_server.start)

    with own_server.database("ENCODING 'UTF8'") as database:
        async with PostgreSQLBackend(own_server.database_url(database)) as backend:
            await backend.apply_migrations()
            await assert_recorded(backend, await record_while(backend, trouble))


async def test_a_failover_under_load_loses_and_doubles_nothing() -> None:
    """The primary dies for good, and its synchronous standby takes over."""
    with own() as primary, own(primary) as standby:
        primary.run("ALTER SYSTEM SET synchronous_standby_names = '*'", "SELECT pg_reload_conf()")

        async def trouble(progress: Callable[[], Awaitable[None]]) -> None:
            await progress()
            await asyncio.to_thread(primary.kill)
            await asyncio.to_thread(standby.promote)
            await progress()

        hosts = quote(f"{primary.socket},{standby.socket}", safe="")
        url = f"postgresql://postgres@/postgres?host={hosts}&target_session_attrs=read-write"
        async with PostgreSQLBackend(url) as backend:
            await backend.apply_migrations()
            acknowledged = await record_while(backend, trouble)
            await assert_recorded(backend, acknowledged)
        assert standby.run("SELECT count(*) FROM llmbridge.llmbridge_calls")[0][0] == len(acknowledged)


async def test_calls_of_a_host_application_wait_in_the_spool_while_its_pool_reaches_nobody(
    own_server: OwnServer, tmp_path: Path
) -> None:
    request = LLMRequest(model="echo:parrot", messages=[Message(role="user", content="Hi")])
    with own_server.database("ENCODING 'UTF8'") as database:
        url = own_server.database_url(database)
        manager = AsyncDatabaseManager(DatabaseConfig(connection_string=url, min_connections=1, retry_attempts=1))
        async with LLMBridge(db_manager=manager, schema="books", spool_dir=tmp_path) as bridge:
            assert (await bridge.chat(request)).record_status == "committed"
            await asyncio.to_thread(own_server.stop)
            try:
                assert (await bridge.chat(request)).record_status == "spooled"
                await bridge.close()
            finally:
                await asyncio.to_thread(own_server.start)
        async with LLMBridge(url, schema="books", spool_dir=tmp_path) as bridge:
            while (await bridge.usage())[0].calls < 2:
                await asyncio.sleep(0.01)
        await manager.disconnect()


@pytest.fixture(params=["own pool", "pool of the host"])
async def lone(own_server: OwnServer, request: pytest.FixtureRequest) -> AsyncIterator[PostgreSQLBackend]:
    """A backend with one connection, which is open."""
    with own_server.database("ENCODING 'UTF8'") as database:
        url = own_server.database_url(database)
        config = DatabaseConfig(connection_string=url, min_connections=1, max_connections=1)
        pool = await AsyncDatabaseManager.create_shared_pool(config)
        manager = AsyncDatabaseManager(pool=pool, schema="books")
        options = {"url": url, "max_connections": 1} if request.param == "own pool" else {"db_manager": manager}
        async with PostgreSQLBackend(**options) as backend:
            await backend.apply_migrations()
            yield backend
        pool.terminate()


@pytest.mark.parametrize("use", USES.values(), ids=USES)
async def test_a_server_that_hangs_is_given_up_when_time_is_over(
    own_server: OwnServer, lone: PostgreSQLBackend, use: Use, monkeypatch: pytest.MonkeyPatch
) -> None:
    with own_server.frozen(), monkeypatch.context() as shortened:
        shortened.setattr(backend_module, "_READ_SECONDS", 0.1)
        shortened.setattr(backend_module, "_WRITE_SECONDS", 0.1)
        shortened.setattr(pool, "ACQUIRE_SECONDS", 1000)
        with pytest.raises(StorageUnavailableError, match="in time"):
            await asyncio.wait_for(use(lone), timeout=100)
    await use(lone)


@pytest.mark.parametrize("use", USES.values(), ids=USES)
async def test_nobody_waits_for_a_connection_for_ever(
    own_server: OwnServer, lone: PostgreSQLBackend, use: Use, monkeypatch: pytest.MonkeyPatch
) -> None:
    sleeping = "FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
    busy = asyncio.create_task(lone.execute("SELECT pg_sleep(1000)"))
    while not own_server.run(f"SELECT {sleeping}"):
        await asyncio.sleep(0.01)
    with monkeypatch.context() as shortened:
        shortened.setattr(pool, "ACQUIRE_SECONDS", 0.1)
        shortened.setattr(backend_module, "ACQUIRE_SECONDS", 0.1)
        with pytest.raises(StorageUnavailableError, match="in time"):
            await asyncio.wait_for(use(lone), timeout=100)
    own_server.run(f"SELECT pg_cancel_backend(pid) {sleeping}")
    with pytest.raises(StorageUnavailableError, match="cancelled the statement"):
        await busy
    await use(lone)


async def test_pool_stats_of_a_server_that_hangs_are_given_up(
    own_server: OwnServer, lone: PostgreSQLBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    with own_server.frozen(), monkeypatch.context() as shortened:
        shortened.setattr(pool, "ACQUIRE_SECONDS", 0.1)
        with pytest.raises(StorageUnavailableError, match="in time"):
            await asyncio.wait_for(lone.get_pool_stats(), timeout=100)
    assert (await lone.get_pool_stats())["status"] == "connected"


async def test_disconnecting_from_a_server_that_hangs_cuts_the_connection(
    own_server: OwnServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "CLOSE_SECONDS", 0.1)
    with own_server.database("ENCODING 'UTF8'") as database:
        backend = PostgreSQLBackend(own_server.database_url(database))
        await backend.connect()
        with own_server.frozen():
            await asyncio.wait_for(backend.disconnect(), timeout=100)
        async with asyncio.timeout(100):
            while own_server.backends(database):
                await asyncio.sleep(0.05)


@pytest.mark.parametrize("use", READS.values(), ids=READS)
async def test_a_caller_who_leaves_does_not_wait_for_a_server_that_hangs(
    own_server: OwnServer, lone: PostgreSQLBackend, use: Use
) -> None:
    with own_server.frozen():
        leaving = asyncio.ensure_future(use(lone))
        for _ in range(100):  # until it has asked the server
            await asyncio.sleep(0)
        leaving.cancel()
        async with asyncio.timeout(100):
            await asyncio.wait([leaving])
        assert leaving.cancelled()
    await use(lone)


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

        recorder = BatchWriter(record, timeout=60)
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


async def test_a_sequence_of_lots_that_stands_behind_moves_on(
    backend: PostgreSQLBackend, url: str, shell: Callable[..., Any]
) -> None:
    """As after a failover by logical replication, which replicates no sequences."""
    for number in range(5):
        async with PostgreSQLBackend(url) as other:
            await other.record_calls([make_call(number)])
    shell("ALTER TABLE llmbridge.llmbridge_lots ALTER COLUMN number RESTART WITH 1")
    results = [await backend.record_calls([make_call(number)]) for number in range(5, 8)]
    assert [result.inserted for result in results] == [1, 1, 1]
    (total,) = await backend.summarize_usage(UsageQuery())
    assert total.calls == 8
