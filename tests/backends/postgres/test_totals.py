"""Folding in PostgreSQL: in the background, for all writers, and with no more privileges than necessary."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal

import asyncpg
import pytest

from llmbridge._recording.batch_writer import BatchWriter
from llmbridge.errors import RecordRejectedError
from llmbridge.schemas import CallRecord
from llmbridge.storage import EARLIEST, LATEST, CallQuery, CostChange, StorageBackend, StorageRefusedError, UsageQuery
from llmbridge.storage.reference import summarize
from llmbridge.testing import make_call, make_calls, make_totals
from llmbridge.testing.comparison import assert_same
from llmbridge.testing.records import EPOCH
from llmbridge_postgres import PostgreSQLBackend

from ...support.postgres_server import Server

Shell = Callable[..., list[dict[str, object]]]

DAY = timedelta(days=1)
DAYS = UsageQuery(group_by=("period", "status"), edges=tuple(EPOCH.replace(hour=0) + day * DAY for day in range(5)))
USERS = UsageQuery(group_by=("id_at_origin", "origin"))
FEW, MANY = 10, 80


async def assert_exact(backend: StorageBackend, calls: list[CallRecord]) -> None:
    for query in (UsageQuery(), DAYS, USERS):
        assert_same(await backend.summarize_usage(query), summarize(calls, query))


def waiting(shell: Shell) -> object:
    return shell(
        "SELECT count(*) AS n FROM llmbridge.llmbridge_calls AS calls JOIN llmbridge.llmbridge_lots AS lots "
        "ON lots.number = lot WHERE NOT folded"
    )[0]["n"]


async def test_folding_changes_no_answer(backend: PostgreSQLBackend, shell: Shell) -> None:
    calls = make_calls(400, seed=60)
    await backend.record_calls(calls[:250])
    await assert_exact(backend, calls[:250])
    assert waiting(shell) == 250
    await backend.fold_totals()
    assert waiting(shell) == 0
    await assert_exact(backend, calls[:250])
    await backend.record_calls(calls[250:])
    assert waiting(shell) == 150
    await assert_exact(backend, calls)


async def test_the_first_and_the_last_instants_of_time_are_folded(backend: PostgreSQLBackend, shell: Shell) -> None:
    calls = [make_call(1, called_at=EARLIEST), make_call(2, called_at=LATEST - timedelta(microseconds=1))]
    await backend.record_calls(calls)
    await backend.fold_totals()
    assert waiting(shell) == 0
    await assert_exact(backend, calls)
    report = await backend.check_totals()
    assert report.checked
    assert not report.wrong


async def test_a_lot_without_calls_is_folded_with_the_others(
    backend: PostgreSQLBackend, url: str, shell: Shell
) -> None:
    await backend.record_calls([])
    async with PostgreSQLBackend(url) as other:
        await other.record_calls(calls := make_calls(20, seed=67))
        await other.fold_totals()
    assert shell("SELECT count(*) AS n FROM llmbridge.llmbridge_lots WHERE NOT folded")[0]["n"] == 0
    await assert_exact(backend, calls)


@pytest.mark.parametrize("size", [FEW, MANY])
async def test_a_writer_whose_lot_another_one_closed_takes_a_new_one(
    backend: PostgreSQLBackend, url: str, size: int
) -> None:
    calls = make_calls(4 * size, seed=61)
    async with PostgreSQLBackend(url) as other:
        for start in range(0, len(calls), size):
            assert (await backend.record_calls(calls[start : start + size])).inserted == size
            await other.fold_totals()
        assert (await backend.record_calls(calls[:size])).duplicates == size
    await assert_exact(backend, calls)
    assert (await backend.check_totals()).wrong == 0


@pytest.mark.parametrize("size", [FEW, MANY])
async def test_a_writer_learns_what_another_one_purged(backend: PostgreSQLBackend, url: str, size: int) -> None:
    midnight = EPOCH.replace(hour=0) + 2 * DAY
    calls = make_calls(200, seed=62)
    await backend.record_calls(calls)
    async with PostgreSQLBackend(url) as other:
        await other.purge_calls(midnight)
    late = [make_call(n, called_at=midnight - timedelta(seconds=n + 1), id_at_origin="late") for n in range(size)]
    new = [make_call(1000 + n, called_at=midnight + timedelta(seconds=n)) for n in range(size)]
    result = await backend.record_calls([*late, *new])
    assert (result.inserted, result.expired) == (size, tuple(call.id for call in late))
    await assert_exact(backend, [*calls, *new])


@pytest.mark.parametrize("size", [FEW, MANY])
async def test_a_batch_that_meets_a_purge_is_stored_or_expired(
    backend: PostgreSQLBackend, url: str, shell: Shell, size: int
) -> None:
    midnight = EPOCH.replace(hour=0) + DAY
    batches = [[make_call(n * size + i) for i in range(size)] for n in range(20)]
    async with PostgreSQLBackend(url) as other:
        await backend.record_calls(batches[0])
        purged, *results = await asyncio.gather(
            other.purge_calls(midnight), *(backend.record_calls(batch) for batch in batches[1:])
        )
    before = [call for batch in batches for call in batch if call.called_at < midnight]
    assert purged + sum(len(result.expired) for result in results) == len(before)
    assert shell(f"SELECT count(*) AS n FROM llmbridge.llmbridge_calls WHERE called_at < '{midnight}'")[0]["n"] == 0
    [row] = await backend.summarize_usage(UsageQuery())
    assert row.calls == size * len(batches) - sum(len(result.expired) for result in results)
    assert (await backend.check_totals()).wrong == 0


@pytest.mark.parametrize("isolation", ["repeatable read", "serializable"])
async def test_a_purge_among_writers_succeeds_also_where_transactions_are_stricter_by_default(
    isolation: str, backend: PostgreSQLBackend, database: str, url: str, shell: Shell
) -> None:
    shell(f"ALTER DATABASE {database} SET default_transaction_isolation = '{isolation}'")
    midnight = EPOCH.replace(hour=0) + DAY
    calls = [make_call(number) for number in range(400)]
    async with PostgreSQLBackend(url) as purging, PostgreSQLBackend(url) as writing:
        await purging.record_calls(calls[:1])
        recorders = [BatchWriter(writing.record_calls, timeout=60) for _ in range(20)]
        recording = [recorders[number % 20].record(call) for number, call in enumerate(calls[1:])]
        purged, *outcomes = await asyncio.gather(purging.purge_calls(midnight), *recording, return_exceptions=True)
        assert isinstance(purged, int), purged
        expired = sum(isinstance(outcome, RecordRejectedError) for outcome in outcomes)
        assert outcomes.count("committed") + expired == len(calls) - 1
        assert purged + expired == sum(call.called_at < midnight for call in calls)
        assert [row.calls for row in await writing.summarize_usage(UsageQuery())] == [len(calls) - expired]
        assert (await writing.check_totals()).wrong == 0
        await asyncio.gather(*(recorder.close() for recorder in recorders))


async def test_a_transaction_that_stays_open_elsewhere_keeps_nothing_from_being_folded(
    backend: PostgreSQLBackend, url: str, shell: Shell
) -> None:
    calls = make_calls(100, seed=63)
    host = await asyncpg.connect(url)
    try:
        async with host.transaction():
            await host.execute("CREATE TABLE theirs (n int)")
            await backend.record_calls(calls)
            await backend.fold_totals()
            assert waiting(shell) == 0
            await assert_exact(backend, calls)
    finally:
        await host.close()


@pytest.fixture
async def left(url: str, shell: Shell) -> list[CallRecord]:
    """The calls of a process that ended without a word an hour ago: its lot stays open."""
    calls = make_calls(1000, seed=64)
    async with PostgreSQLBackend(url, fold_after=2**62) as dead:
        await dead.apply_migrations()
        await dead.record_calls(calls[:500])
        await dead.record_calls(calls[500:])
        dead._folding.lot.number = None
    assert waiting(shell) == 1000
    shell("UPDATE llmbridge.llmbridge_lots SET touched = now() - interval '1 hour'")
    return calls


async def test_what_a_dead_process_left_is_folded_once_another_records(
    left: list[CallRecord], url: str, shell: Shell
) -> None:
    async with PostgreSQLBackend(url) as other:
        await other.record_calls([call := make_call(called_at=EPOCH + 3 * DAY)])
        async with asyncio.timeout(20):
            while waiting(shell) != 1:
                await asyncio.sleep(0.01)
        await assert_exact(other, [*left, call])


async def test_what_a_dead_process_left_is_folded_by_another(left: list[CallRecord], url: str, shell: Shell) -> None:
    async with PostgreSQLBackend(url, fold_after=1) as other:
        await other.record_calls([call := make_call(called_at=EPOCH + 3 * DAY)])
    assert waiting(shell) == 0
    async with PostgreSQLBackend(url) as reader:
        await assert_exact(reader, [*left, call])


async def test_only_purging_and_forgetting_need_the_right_to_delete(
    server: Server, url: str, database: str, backend: PostgreSQLBackend
) -> None:
    midnight = EPOCH.replace(hour=0) + 2 * DAY
    calls = make_calls(100, seed=65)
    user = next(call for call in calls if call.id_at_origin is not None and call.called_at >= midnight)
    with server.role([database]) as name:
        server.run(
            f"GRANT USAGE ON SCHEMA llmbridge TO {name}",
            f"GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA llmbridge TO {name}",
            database=database,
        )
        async with PostgreSQLBackend(server.database_url(database, user=name), fold_after=1) as plain:
            await plain.record_calls(calls[:20])
            await plain.record_calls(calls[20:])
            await plain.fold_totals()
            change = CostChange(calls[0].id, Decimal(1), "caller", None, None, EPOCH)
            assert await plain.reprice_calls([change]) == 1
            assert (await plain.check_totals(repair=True)).wrong == 0
            await plain.write_totals(make_totals([make_call(called_at=EPOCH - 90 * DAY)]), EPOCH - 80 * DAY)
            before = await plain.summarize_usage(UsageQuery())
            listed = (await plain.list_calls(CallQuery(limit=1000))).calls
            for refused in (
                lambda: plain.purge_calls(midnight),
                lambda: plain.erase_user(user.origin, str(user.id_at_origin)),
            ):
                with pytest.raises(StorageRefusedError, match="DELETE to purge"):
                    await refused()
            assert_same(await plain.summarize_usage(UsageQuery()), before)
            assert_same((await plain.list_calls(CallQuery(limit=1000))).calls, listed)
            server.run(f"GRANT DELETE ON llmbridge.llmbridge_calls TO {name}", database=database)
            assert await plain.purge_calls(midnight) > 0
            server.run(f"GRANT DELETE ON llmbridge.llmbridge_usage_by_user TO {name}", database=database)
            assert await plain.erase_user(user.origin, str(user.id_at_origin)) > 0
            assert_same(await plain.summarize_usage(UsageQuery()), before)


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE llmbridge.llmbridge_usage_by_time SET calls = calls + 1 WHERE grain = 3600",
        "UPDATE llmbridge.llmbridge_usage_by_user SET cost = 0",
        "UPDATE llmbridge.llmbridge_usage_by_time SET status = status || '?' WHERE status <> 'success'",
        "UPDATE llmbridge.llmbridge_usage_by_user SET response_time_histogram = '1,2:-3'",
        "UPDATE llmbridge.llmbridge_usage_by_user SET first_token_histogram = NULL",
        "DELETE FROM llmbridge.llmbridge_usage_by_user WHERE id_at_origin <> ''",
    ],
)
async def test_wrong_totals_are_found_and_repaired(backend: PostgreSQLBackend, shell: Shell, damage: str) -> None:
    await backend.record_calls(make_calls(200, seed=66))
    await backend.fold_totals()
    shell(damage)
    found = await backend.check_totals()
    assert found.wrong > 0
    assert found.repaired == 0
    assert (await backend.check_totals(repair=True)).repaired == found.wrong
    assert (await backend.check_totals()).wrong == 0


async def test_folding_gives_way_to_who_has_the_turn(url: str, server: Server, database: str, shell: Shell) -> None:
    calls = make_calls(400, seed=65)
    async with PostgreSQLBackend(url, max_connections=2, fold_after=20) as backend:
        await backend.apply_migrations()
        busy = await asyncpg.connect(server.database_url(database))
        async with asyncio.timeout(30), busy.transaction():
            await busy.execute("SELECT FROM llmbridge.llmbridge_state FOR NO KEY UPDATE")
            for start in range(0, 200, 20):
                await backend.record_calls(calls[start : start + 20])
            await assert_exact(backend, calls[:200])
            assert waiting(shell) == 200
        await busy.close()
        for start in range(200, 400, 20):
            await backend.record_calls(calls[start : start + 20])
        await backend.fold_totals()
        await assert_exact(backend, calls)
        assert not (await backend.check_totals()).wrong
