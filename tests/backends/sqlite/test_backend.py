"""The backend under load and with errors: locks, full and read-only disks, cancellation, event loops, large sums."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
import threading
import time
from datetime import timedelta
from decimal import Decimal

import pytest

from llmbridge.storage import (
    CallQuery,
    ConstraintError,
    RecordRejectedError,
    StorageClosedError,
    StorageRefusedError,
    StorageUnavailableError,
    UsageQuery,
    WrongLoopError,
)
from llmbridge.storage.reference import summarize
from llmbridge.testing import make_call, make_calls
from llmbridge_sqlite import SQLiteBackend, connection, files
from llmbridge_sqlite import backend as backend_module


async def count(backend: SQLiteBackend) -> int:
    return (await backend.summarize_usage(UsageQuery()))[0].calls


def test_importing_the_plugin_and_making_a_backend_import_no_driver():
    program = (
        "import sys, llmbridge_sqlite; llmbridge_sqlite.llmbridge_storage(); llmbridge_sqlite.SQLiteBackend('x.db');"
        "sys.exit('aiosqlite' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


async def test_a_lock_that_stays_is_unavailable_and_can_be_tried_again(path, other, monkeypatch):
    monkeypatch.setattr(connection, "BUSY_SECONDS", 0.05)
    async with SQLiteBackend(path) as backend:
        await backend.apply_migrations()
        holder = other()
        holder.execute("BEGIN IMMEDIATE")
        with pytest.raises(StorageUnavailableError, match="locked"):
            await backend.record_calls([make_call()])
        assert await count(backend) == 0
        holder.execute("ROLLBACK")
        assert (await backend.record_calls([make_call()])).inserted == 1


async def test_opening_a_locked_file_is_unavailable_and_can_be_tried_again(path, other, monkeypatch):
    monkeypatch.setattr(connection, "BUSY_SECONDS", 0.05)
    holder = other()
    holder.execute("CREATE TABLE t (x)")
    holder.execute("BEGIN EXCLUSIVE")
    backend = SQLiteBackend(path)
    with pytest.raises(StorageUnavailableError, match="locked"):
        await backend.connect()
    holder.execute("ROLLBACK")
    async with backend:
        await backend.ping()


async def test_closing_does_not_wait_for_a_lock(path, other, shell, monkeypatch):
    monkeypatch.setattr(connection, "BUSY_SECONDS", 3600)
    monkeypatch.setattr(backend_module, "_CLOSE_SECONDS", 0.1)
    backend = SQLiteBackend(path)
    await backend.connect()
    await backend.apply_migrations()
    await backend.record_calls([make_call(n) for n in range(300)])
    holder = other()
    holder.execute("BEGIN IMMEDIATE")
    async with asyncio.timeout(60):
        await backend.disconnect()
    holder.execute("ROLLBACK")
    assert shell("SELECT folded AS n FROM llmbridge_state")[0]["n"] == 0
    async with backend:
        assert await count(backend) == 300


@pytest.mark.parametrize("what", ["connect", "migrate", "record", "execute", "close"])
def test_a_backend_opens_again_after_a_caller_was_cancelled_while_it_waited_for_a_lock(path, other, what, monkeypatch):
    monkeypatch.setattr(connection, "BUSY_SECONDS", 3600)
    monkeypatch.setattr(backend_module, "_CLOSE_SECONDS", 3600 if what == "close" else 0.1)
    backend, before = SQLiteBackend(path), threading.enumerate()

    async def use() -> int:
        async with backend:
            await backend.apply_migrations()
            return await count(backend)

    async def begin() -> None:
        if what != "connect":
            await backend.connect()
        if what not in ("connect", "migrate"):
            await backend.apply_migrations()
            await backend.record_calls([make_call(n) for n in range(300)])
        holder.execute("BEGIN EXCLUSIVE" if what == "connect" else "BEGIN IMMEDIATE")
        waiting = {
            "connect": backend.connect,
            "migrate": backend.apply_migrations,
            "record": lambda: backend.record_calls([make_call(1000)]),
            "execute": lambda: backend.execute("DELETE FROM llmbridge_calls"),
            "close": backend.disconnect,
        }[what]
        kept.append(asyncio.create_task(waiting()))
        await asyncio.sleep(0.1)
        if what not in ("connect", "close"):  # those are cancelled as the loop ends
            kept[0].cancel()
            await backend.disconnect()

    kept: list[asyncio.Task[object]] = []
    holder = other(check_same_thread=False)
    if what == "connect":
        holder.execute("CREATE TABLE theirs (x)")
    loop = threading.Thread(target=lambda: asyncio.run(begin()), daemon=True)
    loop.start()
    loop.join(60)
    assert not loop.is_alive()
    holder.execute("ROLLBACK")
    tables = [row["name"] for row in holder.execute("SELECT name FROM sqlite_master WHERE name = 'llmbridge_calls'")]
    stored = [row["n"] for name in tables for row in holder.execute(f"SELECT COUNT(*) AS n FROM {name}")]
    assert stored == ([] if what in ("connect", "migrate") else [300])
    while threading.enumerate() != before:
        time.sleep(0.01)
    assert asyncio.run(use()) == sum(stored)


async def test_a_full_disk_stores_nothing_of_a_batch(backend):
    await backend.record_calls([make_call()])
    pages = await backend.fetch_value("PRAGMA page_count")
    await backend.execute(f"PRAGMA max_page_count = {pages + 5}")
    with pytest.raises(StorageUnavailableError, match="full"):
        await backend.record_calls([make_call(n, error_message="x" * 2000) for n in range(1, 500)])
    assert await count(backend) == 1
    await backend.execute(f"PRAGMA max_page_count = {pages + 5000}")
    assert (await backend.record_calls([make_call(n) for n in range(1, 500)])).inserted == 499


async def test_a_read_only_disk_is_unavailable(backend):
    await backend.execute("PRAGMA query_only = ON")
    with pytest.raises(StorageUnavailableError, match="written"):
        await backend.record_calls([make_call()])
    await backend.execute("PRAGMA query_only = OFF")
    assert (await backend.record_calls([make_call()])).inserted == 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"prompt_tokens": 2**63},
        {"origin": "\ud800"},
        {"metadata": {"a": object()}},
        {"temperature": "warm"},
        {"origin": None},
    ],
)
async def test_a_value_that_cannot_be_stored_names_its_call_and_stores_nothing(backend, wrong):
    bad = make_call(5).model_copy(update=wrong)
    with pytest.raises(ConstraintError if wrong == {"origin": None} else RecordRejectedError) as caught:
        await backend.record_calls([make_call(), bad, make_call(6)])
    assert caught.value.ids == (bad.id,)
    assert await count(backend) == 0
    assert (await backend.record_calls([make_call()])).inserted == 1


async def test_a_call_cancelled_while_it_waits_for_the_lock_is_never_stored(backend, other):
    holder = other()
    holder.execute("BEGIN IMMEDIATE")
    task = asyncio.create_task(backend.record_calls([make_call()]))
    await asyncio.sleep(0)
    await backend.ping()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    holder.execute("ROLLBACK")
    assert (await backend.record_calls([make_call(1)])).inserted == 1
    assert await count(backend) == 1


async def test_a_cancelled_caller_knows_at_once_whether_its_calls_are_stored(backend):
    for steps in range(60):
        batch = [make_call(steps * 10 + n) for n in range(10)]
        task = asyncio.create_task(backend.record_calls(batch))
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        stored = len((await backend.list_calls(CallQuery(ids=tuple(call.id for call in batch)))).calls)
        assert (await backend.record_calls(batch)).duplicates == stored
        assert stored in (0, 10)


async def test_a_cancelled_connect_leaves_a_backend_that_connects(path):
    for steps in range(25):
        backend = SQLiteBackend(path)
        task = asyncio.create_task(backend.connect())
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await backend.connect()
        await backend.ping()
        await backend.disconnect()


async def test_a_cancelled_connect_can_be_disconnected(path):
    for steps in range(10):
        backend = SQLiteBackend(path)
        task = asyncio.create_task(backend.connect())
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await backend.disconnect()
        with pytest.raises(StorageClosedError):
            await backend.ping()


async def test_a_cancelled_disconnect_still_closes(path):
    for steps in range(6):
        backend = SQLiteBackend(path)
        await backend.connect()
        task = asyncio.create_task(backend.disconnect())
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await backend.disconnect()
    assert [file.name for file in path.parent.iterdir()] == ["calls.db"]


async def test_a_backend_can_move_to_another_loop_after_disconnecting(path):
    backend = SQLiteBackend(path)

    async def use() -> None:
        async with backend:
            await backend.ping()

    await use()
    await asyncio.to_thread(asyncio.run, use())
    await use()


async def test_connecting_and_disconnecting_from_another_loop_are_refused(backend):
    async def elsewhere() -> None:
        for call in (backend.connect(), backend.disconnect(), backend.fetch_value("SELECT 1")):
            with pytest.raises(WrongLoopError):
                await call

    await asyncio.to_thread(asyncio.run, elsewhere())
    await backend.ping()


async def test_readers_see_what_was_committed_elsewhere_before(backend, path):
    async with SQLiteBackend(path) as writer:
        for number in range(20):
            await writer.record_calls([make_call(number)])
            assert await count(backend) == number + 1


async def test_sums_are_exact_beyond_64_bits(backend):
    largest = 2**63 - 1
    calls = [
        make_call(n, total_tokens=largest, response_time_ms=largest, estimated_cost=Decimal("8999999.999999999999"))
        for n in range(100)
    ]
    await backend.record_calls(calls)
    for fold in (False, True):
        if fold:
            await backend.fold_totals()
        [row] = await backend.summarize_usage(UsageQuery())
        assert (row.total_tokens, row.response_time_ms_sum) == (100 * largest, 100 * largest)
        assert row.cost == Decimal("899999999.9999999999")


async def test_a_year_of_hours_keeps_the_law(backend):
    calls = make_calls(1000, seed=5, days=365)
    await backend.record_calls(calls)
    edges = tuple(
        calls[0].called_at.replace(month=1, day=1, hour=0, minute=0, second=0, microsecond=0) + timedelta(hours=n)
        for n in range(8761)
    )
    for filters in ({}, {"origin": ("app",), "id_at_origin": (None, "user-1")}, {"tag:team": ("7", None)}):
        query = UsageQuery(filters=filters, group_by=("period", "status"), edges=edges)
        assert await backend.summarize_usage(query) == summarize(calls, query)


async def test_many_accepted_values_are_one_parameter(backend):
    calls = make_calls(50, seed=6)
    await backend.record_calls(calls)
    accepted = (*(str(n) for n in range(50_000)), "app", None)
    query = UsageQuery(filters={"origin": accepted, "id_at_origin": accepted})
    assert await backend.summarize_usage(query) == summarize(calls, query)


async def test_listing_and_a_users_sums_read_an_index(backend, other):
    plan = (
        other()
        .execute("EXPLAIN QUERY PLAN SELECT id FROM llmbridge_calls ORDER BY called_at DESC, id DESC LIMIT 5")
        .fetchone()
    )
    assert "llmbridge_calls_by_time" in plan["detail"]
    plan = (
        other()
        .execute(
            "EXPLAIN QUERY PLAN SELECT COUNT(total_tokens) FROM llmbridge_calls "
            "WHERE origin = 'a' AND id_at_origin = 'b' AND called_at >= 5"
        )
        .fetchone()
    )
    assert "llmbridge_calls_by_user" in plan["detail"]


def test_sqlite_is_new_enough_for_strict_tables():
    assert sqlite3.sqlite_version_info >= (3, 37)


async def test_a_file_that_was_deleted_or_replaced_takes_no_more_calls(path):
    async with SQLiteBackend(path) as backend:
        await backend.apply_migrations()
        await backend.record_calls([make_call(1)])
        path.rename(path.with_name("moved.db"))
        with pytest.raises(StorageRefusedError, match="deleted or replaced"):
            await backend.record_calls([make_call(2)])
        path.touch()
        with pytest.raises(StorageRefusedError, match="deleted or replaced"):
            await backend.record_calls([make_call(2)])


async def test_a_database_whose_log_was_deleted_takes_no_more_calls(path):
    async with SQLiteBackend(path) as backend:
        await backend.apply_migrations()
        await backend.record_calls([make_call(1)])
        await backend.record_calls([make_call(2)])
        path.with_name(f"{path.name}-wal").unlink()
        with pytest.raises(StorageRefusedError, match="-wal was deleted or replaced"):
            await backend.record_calls([make_call(3)])
    async with SQLiteBackend(path) as backend:
        assert (await backend.record_calls([make_call(number) for number in (1, 2, 3)])).inserted == 1


async def test_a_file_with_two_names_is_refused(path):
    async with SQLiteBackend(path) as backend:
        await backend.apply_migrations()
    second = path.with_name("second.db")
    second.hardlink_to(path)
    for name in (path, second):
        with pytest.raises(StorageRefusedError, match="2 names"):
            await SQLiteBackend(name).connect()
    second.unlink()
    async with SQLiteBackend(path) as backend:
        assert (await backend.record_calls([make_call(1)])).inserted == 1


async def test_a_file_that_is_mounted_by_itself_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "our calls.db"
    mounts = tmp_path / "mountinfo"
    named = str(path).replace(" ", "\\040")
    mounts.write_text(f"36 35 98:0 / / rw - ext4 /dev/a rw\n37 36 98:0 /calls.db {named} rw - ext4 /dev/a rw\n")
    monkeypatch.setattr(files, "_MOUNTS", mounts)
    with pytest.raises(StorageRefusedError, match="mount its folder"):
        await SQLiteBackend(path).connect()
    async with SQLiteBackend(tmp_path / "other.db") as backend:
        await backend.apply_migrations()


async def test_a_link_leads_to_the_file_that_it_names(path, tmp_path):
    link = tmp_path / "link.db"
    link.symlink_to(path.name)
    async with SQLiteBackend(link) as backend:
        await backend.apply_migrations()
    assert path.stat().st_size > 0
