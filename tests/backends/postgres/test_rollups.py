"""Rollups in PostgreSQL: which rows and locks folds, queries and purges need."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import asyncpg
import pytest

from llmbridge.schemas import CallRecord
from llmbridge.storage import MAX_BATCH, StorageRefusedError, UsageQuery
from llmbridge.storage.reference import summarize
from llmbridge.storage.toolkit.rollups import read_histogram
from llmbridge.testing import make_call
from llmbridge.testing.comparison import assert_same
from llmbridge.testing.records import EPOCH
from llmbridge_postgres import PostgreSQLBackend, rollups, usage
from llmbridge_postgres.connection import Connection

Shell = Callable[..., list[dict[str, object]]]
Python = Callable[..., "subprocess.Popen[str]"]

NEVER = 2**62
#: Rows of tables that the connection has read; what it read before the transaction may be among them.
READ = """
SELECT coalesce(sum(seq_tup_read + coalesce(idx_tup_fetch, 0)), 0)::bigint
FROM pg_stat_xact_user_tables WHERE relname = ANY ($1::text[])
"""
ROLLUPS = ["llmbridge_usage_by_user", "llmbridge_usage_by_time"]
MANY, FEW = 25_000, 500


async def record(backend: PostgreSQLBackend, calls: Sequence[CallRecord]) -> None:
    for start in range(0, len(calls), MAX_BATCH):
        await backend.record_calls(calls[start : start + MAX_BATCH])


async def folded_reading(backend: PostgreSQLBackend, calls: Sequence[CallRecord]) -> int:
    """Fold calls; return how many rows of rollups that read."""
    await record(backend, calls)

    async def fold(connection: Connection) -> int:
        async with connection.rollup_transaction():
            before = await connection.fetch_value(READ, ROLLUPS)
            await rollups.fold(connection, await rollups.open_lots(connection))
            read: int = await connection.fetch_value(READ, ROLLUPS) - before
        return read

    return await backend._write(fold)


@pytest.mark.parametrize("length", [10, 255])
async def test_a_fold_reads_no_rows_but_those_of_its_calls_whatever_names_they_have(url: str, length: int) -> None:
    async with PostgreSQLBackend(url, fold_after=NEVER) as backend:
        await backend.apply_migrations()
        names = [str(number).rjust(length, "m") for number in range(MANY)]
        await folded_reading(backend, [make_call(n, called_at=EPOCH, model_name=name) for n, name in enumerate(names)])
        again = [make_call(MANY + n, called_at=EPOCH, model_name=names[n]) for n in range(FEW)]
        assert await folded_reading(backend, again) <= 2 * 5 * FEW
        [row] = await backend.summarize_usage(UsageQuery())
        assert row.calls == MANY + FEW


_OPEN_LOT = """
INSERT INTO llmbridge.llmbridge_lots (calls, touched, folded) VALUES ($1, now(), false) RETURNING number
"""
_INSERT = """
INSERT INTO llmbridge.llmbridge_calls (id, lot, called_at, origin, id_at_origin, provider, model_name, status, attempt,
    usage_source, stream, response_time_ms, response_bucket, first_token_bucket)
SELECT gen_random_uuid(), $1, $2, 'one', CASE WHEN n % 2 = 0 THEN 'even' ELSE 'odd' END, 'p', 'm', 'success', 1,
    'none', false, n, n * 7 % 564, n * 11 % 564
FROM generate_series(1, $3::bigint) AS n
"""


async def test_a_cell_of_very_many_calls_keeps_a_short_histogram_of_which_half_can_be_erased(url: str) -> None:
    folds, size = 20, 10_000
    connection = await asyncpg.connect(url)
    async with PostgreSQLBackend(url) as backend:
        await backend.apply_migrations()
        for _ in range(folds):
            lot = await connection.fetchval(
                _OPEN_LOT,
                size,
            )
            await connection.execute(_INSERT, lot, EPOCH, size)
            await backend.fold_totals()
        longest = "SELECT max(length(response_time_histogram)) FROM llmbridge.llmbridge_usage_by_time"
        assert await connection.fetchval(longest) < 16 * 1024
        before = await backend.summarize_usage(UsageQuery())
        assert await backend.erase_user("one", "even") == folds * size / 2
        users = await backend.summarize_usage(UsageQuery(group_by=("id_at_origin",)))
        assert [(row.key["id_at_origin"], row.calls) for row in users] == [
            (None, folds * size / 2),
            ("odd", folds * size / 2),
        ]
        after = await backend.summarize_usage(UsageQuery())
        assert_same(after, before)
        texts = await connection.fetch("SELECT calls, response_time_histogram FROM llmbridge.llmbridge_usage_by_user")
        assert all(sum(read_histogram(text).values()) == calls for calls, text in texts)
        assert not (await backend.check_totals()).wrong
    await connection.close()


@pytest.mark.parametrize("is_analyzed", [False, True])
async def test_a_rolling_range_of_an_origin_reads_the_calls_of_its_cut_cells_alone(
    backend: PostgreSQLBackend, shell: Shell, monkeypatch: pytest.MonkeyPatch, is_analyzed: bool
) -> None:
    now = datetime(2024, 6, 1, 10, 7, 3, tzinfo=UTC)
    calls = [make_call(n, called_at=now - n * timedelta(minutes=30), origin="one") for n in range(5_000)]
    await record(backend, calls)
    await backend.fold_totals()
    if is_analyzed:
        shell("ANALYZE")
    read: list[int] = []
    of_gaps = usage._of_gaps

    async def counted(connection: Connection, *args: Any, **options: Any) -> list[Any]:
        before = await connection.fetch_value(READ, ["llmbridge_calls"])
        found = await of_gaps(connection, *args, **options)
        read.append(await connection.fetch_value(READ, ["llmbridge_calls"]) - before)
        return found

    monkeypatch.setattr(usage, "_of_gaps", counted)
    question = partial(UsageQuery, {"origin": ("one",)}, ("model_name",))
    query = question(edges=(now - timedelta(days=90), now))
    assert_same(await backend.summarize_usage(query), summarize(calls, query))
    assert 0 < read[0] <= 4


async def test_a_schema_of_packed_totals_is_refused(url: str, shell: Shell) -> None:
    shell(
        "CREATE SCHEMA llmbridge",
        "CREATE TABLE llmbridge.llmbridge_migrations (filename text, module_name text, checksum text)",
        "CREATE TABLE llmbridge.llmbridge_totals (grain bigint)",
    )
    with pytest.raises(StorageRefusedError, match="llmbridge storage copy"):
        await PostgreSQLBackend(url).connect()


_WRITE = """
import asyncio, sys
from datetime import timedelta
from llmbridge.testing import make_call
from llmbridge.testing.records import EPOCH
from llmbridge_postgres import PostgreSQLBackend

async def main():
    number = int(sys.argv[2]) * 1_000_000
    async with PostgreSQLBackend(sys.argv[1], fold_after=40) as backend:
        loop, stopped = asyncio.get_running_loop(), asyncio.Event()
        loop.run_in_executor(None, sys.stdin.read).add_done_callback(lambda _: stopped.set())
        inserted = expired = 0
        print("ready", flush=True)
        while not stopped.is_set():
            batch = [make_call(number + n, called_at=EPOCH + n % 5 * timedelta(days=1)) for n in range(20)]
            number += 20
            result = await backend.record_calls(batch)
            inserted, expired = inserted + result.inserted, expired + len(result.expired)
            await asyncio.sleep(0)
    print(inserted, expired, flush=True)

asyncio.run(main())
"""
_RECORDED = "SELECT count(*) AS n FROM llmbridge.llmbridge_lots"


async def test_a_purge_is_not_starved_by_eight_writers_who_go_on_meanwhile(
    backend: PostgreSQLBackend, url: str, shell: Shell, python: Python
) -> None:
    writers = [python(_WRITE, str(number)) for number in range(1, 9)]
    for writer in writers:
        assert writer.stdout is not None
        assert await asyncio.to_thread(writer.stdout.readline) == "ready\n"
    deleted, lots = 0, [shell(_RECORDED)[0]["n"]]
    async with asyncio.timeout(120):
        for day in range(1, 5):
            while shell(_RECORDED)[0]["n"] == lots[-1]:
                await asyncio.sleep(0.01)
            deleted += await backend.purge_calls(EPOCH.replace(hour=0) + day * timedelta(days=1))
            lots.append(shell(_RECORDED)[0]["n"])
    told = [await asyncio.to_thread(writer.communicate, "") for writer in writers]
    assert all(not errors for _, errors in told), told
    inserted = [int(out.split()[0]) for out, _ in told]
    assert all(inserted)
    [row] = await backend.summarize_usage(UsageQuery())
    assert row.calls == sum(inserted)
    stored = shell("SELECT count(*) AS n FROM llmbridge.llmbridge_calls")[0]["n"]
    assert stored == sum(inserted) - deleted
    assert not (await backend.check_totals()).wrong
