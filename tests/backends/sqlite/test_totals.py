"""Folding in a SQLite file: in the background, exact at every commit, and repaired if another program changed rows."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from llmbridge.schemas import CallRecord
from llmbridge.storage import EARLIEST, LATEST, StorageBackend, UsageQuery
from llmbridge.storage.reference import summarize
from llmbridge.testing import make_call, make_calls
from llmbridge.testing.comparison import assert_same
from llmbridge.testing.records import EPOCH
from llmbridge_sqlite import SQLiteBackend

NEVER = 2**62
DAYS = UsageQuery(
    group_by=("period", "status"), edges=tuple(EPOCH.replace(hour=0) + timedelta(days=day) for day in range(5))
)
USERS = UsageQuery(group_by=("id_at_origin", "origin"))


async def assert_exact(backend: StorageBackend, calls: list[CallRecord]) -> None:
    for query in (UsageQuery(), DAYS, USERS):
        assert_same(await backend.summarize_usage(query), summarize(calls, query))


def waiting(shell: Callable[[str], list[Any]]) -> int:
    return int(
        shell("SELECT COUNT(*) AS n FROM llmbridge_calls, llmbridge_state WHERE llmbridge_calls.number > folded")[0][
            "n"
        ]
    )


async def test_folding_changes_no_answer(backend, shell):
    calls = make_calls(500, seed=50)
    await backend.record_calls(calls[:300])
    await assert_exact(backend, calls[:300])
    assert waiting(shell) == 300
    await backend.fold_totals()
    assert waiting(shell) == 0
    await assert_exact(backend, calls[:300])
    await backend.record_calls(calls[300:])
    assert waiting(shell) == 200
    await assert_exact(backend, calls)


async def test_the_first_and_the_last_instants_of_time_are_folded(backend, shell):
    calls = [make_call(1, called_at=EARLIEST), make_call(2, called_at=LATEST - timedelta(microseconds=1))]
    await backend.record_calls(calls)
    await backend.fold_totals()
    assert waiting(shell) == 0
    await assert_exact(backend, calls)
    report = await backend.check_totals()
    assert report.checked
    assert not report.wrong


async def test_calls_are_folded_once_enough_of_them_wait_and_when_the_store_is_closed(path, shell):
    async with SQLiteBackend(path, fold_after=400) as backend:
        await backend.apply_migrations()
        await backend.record_calls(make_calls(300, seed=51))
        assert waiting(shell) == 300
        await backend.record_calls(make_calls(300, seed=52))
        while waiting(shell):
            await backend.ping()
        await backend.record_calls(make_calls(300, seed=53))
    assert waiting(shell) == 0


async def test_what_a_dead_process_left_is_folded_by_the_next_one(path, shell):
    async with SQLiteBackend(path, fold_after=NEVER) as backend:
        await backend.apply_migrations()
        for seed in range(3):
            await backend.record_calls(make_calls(700, seed=seed))
    shell(
        "UPDATE llmbridge_state SET folded = 0; "
        "DELETE FROM llmbridge_usage_by_time; DELETE FROM llmbridge_usage_by_user"
    )
    assert waiting(shell) == 2100
    async with SQLiteBackend(path, fold_after=2000) as backend:
        await backend.record_calls([make_call()])
    assert waiting(shell) == 0


async def test_a_call_with_the_number_of_a_purged_call_is_counted(backend):
    kept, old = make_call(0, called_at=EPOCH + timedelta(days=2)), make_call(1, called_at=EPOCH)
    await backend.record_calls([kept, old])
    await backend.purge_calls(EPOCH + timedelta(days=1))
    new = make_call(2, called_at=EPOCH + timedelta(days=2))
    await backend.record_calls([new])
    await assert_exact(backend, [kept, old, new])
    await backend.fold_totals()
    await assert_exact(backend, [kept, old, new])


async def test_backends_that_fold_at_the_same_time_count_every_call_once(path):
    calls = make_calls(400, seed=54)
    backends = [SQLiteBackend(path, fold_after=1) for _ in range(3)]
    await backends[0].connect()
    await backends[0].apply_migrations()
    await asyncio.gather(*(backend.connect() for backend in backends))
    await asyncio.gather(*(backends[n % 3].record_calls(calls[n * 10 : n * 10 + 10]) for n in range(40)))
    await assert_exact(backends[1], calls)
    assert (await backends[2].check_totals()).wrong == 0
    await asyncio.gather(*(backend.disconnect() for backend in backends))


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE llmbridge_usage_by_time SET calls = calls + 1 WHERE grain = 21600",
        "UPDATE llmbridge_usage_by_user SET status = 'failed' WHERE status = 'success'",
        "UPDATE llmbridge_usage_by_user SET cost_rest = cost_rest + 1",
        "UPDATE llmbridge_usage_by_user SET total_tokens_high = total_tokens_high + 1",
        "UPDATE llmbridge_usage_by_time SET response_time_histogram = response_time_histogram || ',7'",
        "UPDATE llmbridge_usage_by_time SET first_token_histogram = NULL",
        "INSERT INTO llmbridge_usage_by_user (day, origin, id_at_origin, provider, model_name, status, calls) "
        "SELECT day, origin, 'nobody', provider, model_name, status, 1 FROM llmbridge_usage_by_user LIMIT 1",
        "DELETE FROM llmbridge_usage_by_time WHERE grain = 900",
        "DELETE FROM llmbridge_calls WHERE number % 7 = 0",
    ],
)
async def test_wrong_totals_are_found_and_repaired(backend, shell, damage):
    await backend.record_calls(make_calls(300, seed=55))
    await backend.fold_totals()
    sound = await backend.check_totals()
    assert sound.checked > 300
    assert sound.wrong == 0
    shell(damage)
    found = await backend.check_totals()
    assert found.wrong > 0
    assert found.repaired == 0
    mended = await backend.check_totals(repair=True)
    assert (mended.wrong, mended.repaired) == (found.wrong, found.wrong)
    assert (await backend.check_totals()).wrong == 0


async def test_a_purge_of_many_calls_lets_others_write_in_between(path: Path):
    old = [make_call(n, called_at=EPOCH + timedelta(minutes=n)) for n in range(12_000)]
    async with SQLiteBackend(path, synchronous="normal") as backend:
        await backend.apply_migrations()
        for start in range(0, len(old), 1000):
            await backend.record_calls(old[start : start + 1000])
        purging = asyncio.create_task(backend.purge_calls(EPOCH + timedelta(days=20)))
        await asyncio.sleep(0)
        new = make_call(20_000, called_at=EPOCH + timedelta(days=30))
        await backend.record_calls([new])
        assert not purging.done()
        assert await purging == len(old)
        await assert_exact(backend, [*old, new])
