"""Cost of folding, erasing and querying in a SQLite file, in steps of SQLite's virtual machine, which do not depend on
time."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from llmbridge.storage import LATEST, UsageQuery
from llmbridge.storage.reference import summarize
from llmbridge.storage.toolkit.rollups import HISTOGRAM_STEP, read_histogram
from llmbridge.testing import make_call, make_calls
from llmbridge.testing.comparison import assert_same
from llmbridge.testing.records import EPOCH
from llmbridge_sqlite import SQLiteBackend, erase, rollups, usage

NEVER = 2**62
STEP = 100
MANY = """
INSERT INTO llmbridge_calls (id, called_at, origin, id_at_origin, provider, model_name, status, attempt, usage_source,
    stream, total_tokens, estimated_cost, response_time_ms, response_bucket)
WITH RECURSIVE n (n) AS (SELECT :first UNION ALL SELECT n + 1 FROM n WHERE n + 1 < :last)
SELECT CAST(printf('%016d', n) AS BLOB), :at, 'kit', 'user-' || (n % 2), 'p',
    CASE WHEN :named THEN 'm-' || n ELSE 'm' END, 'success', 1, 'provider', 0, 7, 3, n % 600, n % 600 FROM n
"""


@pytest.fixture
async def file(path: Path) -> Any:
    """A connection to a migrated store, as a backend has one."""
    async with SQLiteBackend(path) as backend:
        await backend.apply_migrations()
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        rollups.prepare(connection)
        yield connection


def record(connection: sqlite3.Connection, first: int, last: int, *, named: bool = False) -> None:
    """Store calls of one quarter of an hour: of two users, and of one model or of one model each."""
    at = 1_700_000_000_000_000
    connection.execute(MANY, {"first": first, "last": last, "at": at, "named": named})


@contextmanager
def counting(connection: sqlite3.Connection) -> Iterator[Callable[[], int]]:
    """How many steps statements take in the block."""
    steps = 0

    def step() -> None:
        nonlocal steps
        steps += STEP

    connection.set_progress_handler(step, STEP)
    try:
        yield lambda: steps
    finally:
        connection.set_progress_handler(None, 0)


def fold(connection: sqlite3.Connection) -> int:
    """Fold everything and return how many steps that took."""
    with counting(connection) as steps:
        rollups.fold_all(connection)
        return steps()


def test_a_fold_takes_the_same_steps_however_many_names_a_cell_has(file):
    taken = []
    for first in range(0, 25_000, 5_000):
        record(file, first, first + 5_000, named=True)
        taken.append(fold(file))
    assert max(taken) < 1.1 * min(taken)
    [(models,)] = file.execute("SELECT COUNT(*) FROM llmbridge_usage_by_time WHERE grain = 86400")
    assert models == 25_000


async def test_names_of_full_length_are_folded_exactly(path):
    calls = [make_call(n, model_name=f"{n:03}".ljust(255, "m"), provider="p" * 255) for n in range(300)]
    calls += [make_call(1000 + n, id_at_origin="ü" * 255, origin="o" * 255) for n in range(300)]
    async with SQLiteBackend(path) as backend:
        await backend.apply_migrations()
        await backend.record_calls(calls)
        await backend.fold_totals()
        for group_by in (("model_name", "provider"), ("id_at_origin", "origin")):
            query = UsageQuery(group_by=group_by)
            assert_same(await backend.summarize_usage(query), summarize(calls, query))
        assert not (await backend.check_totals()).wrong


def test_a_cell_of_very_many_calls_stays_small_and_folds_in_the_same_steps(file):
    taken = []
    for first in range(0, 60_000, 5_000):
        record(file, first, first + 5_000)
        taken.append(fold(file))
    assert max(taken) < 1.1 * min(taken)
    histograms = [text for (text,) in file.execute("SELECT response_time_histogram FROM llmbridge_usage_by_time")]
    assert len(histograms) == 4
    for text in histograms:
        assert len(text) < 600 * len("599:100,") + HISTOGRAM_STEP
        assert read_histogram(text) == dict.fromkeys(range(600), 100)
    while erase.erase(file, "kit", "user-1")[1]:
        pass
    rows = file.execute(
        "SELECT id_at_origin, calls, total_tokens, response_time_histogram FROM llmbridge_usage_by_user"
    )
    assert [(user, calls, tokens, read_histogram(text)) for user, calls, tokens, text in rows] == [
        ("", 30_000, 210_000, dict.fromkeys(range(1, 600, 2), 100)),
        ("user-0", 30_000, 210_000, dict.fromkeys(range(0, 600, 2), 100)),
    ]


@pytest.mark.parametrize(
    "filters",
    [
        {"origin": ("kit",)},
        {"origin": ("kit", "other")},
        {"id_at_origin": ("user-1",)},
        {"origin": ("kit",), "provider": ("p",)},
        {"origin": ("kit",), "id_at_origin": ("user-1",)},
        {},
    ],
)
def test_a_range_that_cuts_cells_scans_no_calls_but_those_of_the_cells_that_it_cuts(file, filters):
    """A quarter of an hour of 5,000 calls of one origin lies in the midst of a range whose ends cut others."""
    record(file, 0, 5_000)
    fold(file)
    edges = (EPOCH.replace(year=2020, minute=7), EPOCH.replace(year=2030, minute=7))
    with counting(file) as steps:
        [row] = usage.summarize(file, UsageQuery(filters, edges=edges))
        assert steps() < 5_000
    assert row.calls == (2_500 if "id_at_origin" in filters else 5_000)


async def test_one_user_is_found_without_reading_the_others_of_a_day(file):
    record(file, 0, 5_000)
    file.execute("UPDATE llmbridge_calls SET id_at_origin = 'user-' || number")
    fold(file)
    query = UsageQuery({"origin": ("kit",), "id_at_origin": ("user-77",)}, ("model_name",))
    with counting(file) as steps:
        [row] = usage.summarize(file, query)
        assert steps() < 2_000
    assert row.calls == 1


async def test_one_origin_is_found_without_reading_the_others_of_a_day(file):
    record(file, 0, 5_000)
    file.execute("UPDATE llmbridge_calls SET origin = 'origin-' || number")
    fold(file)
    with counting(file) as steps:
        [row] = usage.summarize(file, UsageQuery({"origin": ("origin-77",)}, ("model_name",)))
        assert steps() < 2_000
    assert row.calls == 1


async def test_sums_are_exact_beyond_64_bits_in_rows_in_the_tail_and_together(path):
    most = 2**63 - 1
    calls = [
        make_call(
            n, prompt_tokens=most, total_tokens=most - n, response_time_ms=most, called_at=EPOCH, status="success"
        )
        for n in range(7)
    ]
    async with SQLiteBackend(path, fold_after=NEVER) as backend:
        await backend.apply_migrations()
        query = UsageQuery(group_by=("model_name",), edges=(EPOCH - timedelta(minutes=1), LATEST))
        for number, call in enumerate(calls, 1):
            await backend.record_calls([call])
            assert_same(await backend.summarize_usage(query), summarize(calls[:number], query))
            if number in (3, 5):
                await backend.fold_totals()
                assert_same(await backend.summarize_usage(query), summarize(calls[:number], query))
        assert not (await backend.check_totals()).wrong


async def test_a_row_of_which_all_calls_were_erased_is_gone(path, shell):
    calls = make_calls(100, seed=7)
    user = next(call for call in calls if call.id_at_origin)
    async with SQLiteBackend(path) as backend:
        await backend.apply_migrations()
        await backend.record_calls(calls)
        await backend.fold_totals()
        assert await backend.erase_user(user.origin, str(user.id_at_origin))
    assert not shell("SELECT 1 FROM llmbridge_usage_by_user WHERE calls = 0")
