"""Outages of the database: what callers get, which calls are spooled, and what is logged."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from llmbridge import LLMBridge, LLMDatabase, LLMRequest, Message
from llmbridge._recording import spool_file
from llmbridge._recording import writer as writer_module
from llmbridge._recording.metrics import CloseReport
from llmbridge._recording.spool import Spool, SpoolCounts
from llmbridge._recording.writer import CallWriter
from llmbridge.errors import (
    RecordRejectedError,
    SchemaOutdatedError,
    StorageClosedError,
    StorageError,
    StorageRefusedError,
    StorageUnavailableError,
)
from llmbridge.schemas import CallRecord
from llmbridge.storage import RecordResult, StorageBackend, memory, new_identity
from llmbridge.storage.memory import MemoryBackend
from llmbridge.testing import make_call

from ...support.clock import pass_time

FIELDS: dict[str, Any] = {"origin": "app", "provider": "openai", "model_name": "gpt-4o-mini", "prompt_tokens": 1}
#: Longer than the spool takes on any machine. What a test has to wait for it to be over, `pass_time` shortens.
TIMEOUT = 60
ASK = LLMRequest(model="echo:x", messages=[Message(role="user", content="Hi")])


class Store(MemoryBackend):
    """A store with a name, made before the test, which is away while `fault` is an error, and hangs while `open` is not
    set."""

    def __init__(self, name: str, fault: Exception | None = None) -> None:
        super().__init__(name)
        content = memory._named.setdefault(name, memory.Store())
        self.identity = content.identity = content.identity or new_identity()
        self.target = f"memory:{name}"
        self.fault = fault
        self.answers = asyncio.Event()
        self.answers.set()
        self.poison: set[UUID] = set()
        self.batches: list[Sequence[CallRecord]] = []

    async def _work(self) -> None:
        await self.answers.wait()
        if self.fault is not None:
            raise self.fault

    async def connect(self) -> None:
        await self._work()
        await super().connect()

    async def ping(self) -> None:
        await self._work()
        await super().ping()

    async def record_calls(self, calls: Sequence[CallRecord]) -> RecordResult:
        self.batches.append(calls)
        await self._work()
        if any(call.id in self.poison for call in calls):
            raise RecordRejectedError("sk-live_12345678 is not taken")
        return await super().record_calls(calls)

    @property
    def ids(self) -> set[UUID]:
        return set(self._open.calls)


AWAY = StorageUnavailableError("cannot reach postgresql://user:hunter2@db/shop")
#: As AWAY, but that nothing is tried again: calls go to the spool at once, not when their timeout is over.
REFUSING = StorageRefusedError("postgresql://user:hunter2@db/shop refuses everybody")


@pytest.fixture
def store(request: pytest.FixtureRequest) -> Store:
    return Store(request.node.name)


@pytest.fixture
def spool(store: Store, tmp_path: Path) -> Spool:
    assert store.target is not None
    spool = Spool(store.target, tmp_path)
    spool.recognize(store.identity)
    return spool


def database(store: Store, folder: Path, **options: Any) -> LLMDatabase:
    return LLMDatabase(backend=store, **{"record_timeout": TIMEOUT, "spool_dir": folder, **options})


async def hanging(db: LLMDatabase, store: Store) -> list[asyncio.Task[UUID | None]]:
    """Ten callers whose calls a store that hangs has in hand."""
    await db.initialize()
    store.answers.clear()
    recording = [asyncio.create_task(db.record_api_call(**FIELDS)) for _ in range(10)]
    while not store.batches:
        await asyncio.sleep(0)
    return recording


async def replayed(spool: Spool, left: int = 0) -> None:
    async with asyncio.timeout(120):
        while (await asyncio.to_thread(spool.counts)).waiting > left:
            await asyncio.sleep(0.01)


async def counted(db: LLMDatabase, **expected: int) -> None:
    """Wait until the counters have these values. The replay counts a call after it was removed from the spool."""
    async with asyncio.timeout(120):
        while not expected.items() <= db.metrics().items():
            await asyncio.sleep(0.01)


@contextmanager
def slow_spool() -> Iterator[None]:
    """Whatever another thread does with a spool does not end meanwhile."""
    with spool_file._one_at_a_time:
        yield


def change(spool: Spool, *statements: str) -> None:
    """What another program does to the file."""
    with closing(sqlite3.connect(spool.path, isolation_level=None)) as file:
        for statement in statements:
            file.execute(statement)


def lines(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    return [(record.levelname, record.message) for record in caplog.records if record.name.startswith("llmbridge")]


async def test_calls_of_an_outage_are_spooled_and_replayed_when_it_is_over(
    store: Store, spool: Spool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with database(store, tmp_path) as db:
        before = await db.record_api_call(**FIELDS)
        store.fault = REFUSING
        during = [await db.record_api_call(**FIELDS) for _ in range(5)]
        assert store.ids == {before}
        assert spool.counts() == SpoolCounts(waiting=5)
        store.fault = None
        await replayed(spool)
        assert store.ids == {before, *during}
        after = await db.record_api_call(**FIELDS)
        assert store.ids == {before, *during, after}
        counts = db.metrics()
    (level, began), (level_after, ended) = lines(caplog)
    assert (level, level_after) == ("WARNING", "WARNING")
    assert str(spool.path) in began
    assert "hunter2" not in began
    assert "5 calls were spooled and 0 lost" in ended
    assert counts == {
        "calls_committed": 2,
        "calls_spooled": 5,
        "calls_lost": 0,
        "calls_rejected": 0,
        "calls_expired": 0,
        "calls_duplicate": 1,
        "calls_replayed": 5,
        "calls_set_aside": 0,
        "batches_committed": 2,
        "batches_retried": counts["batches_retried"],
        "outages": 1,
        "calls_waiting": 0,
    }


async def test_a_store_that_cannot_be_reached_is_tried_again_until_the_timeout_is_over(
    store: Store, spool: Spool, tmp_path: Path
) -> None:
    async with database(store, tmp_path) as db:
        store.fault = AWAY
        recording = asyncio.create_task(db.record_api_call(**FIELDS))
        while len(store.batches) < 3:
            await asyncio.sleep(0.01)
        assert db.metrics()["outages"] == 0
        pass_time(TIMEOUT)
        call = await recording
        assert [found.record.id for found in spool.file.oldest(10) if found.record] == [call]
        assert db.metrics()["outages"] == 1
        store.fault = None
        await replayed(spool)
        assert store.ids == {call}


async def test_only_the_first_callers_of_an_outage_wait_for_the_store(store: Store, tmp_path: Path) -> None:
    async with database(store, tmp_path) as db:
        store.answers.clear()
        recording = asyncio.create_task(db.record_api_call(**FIELDS))
        while not db.metrics()["outages"]:
            pass_time(TIMEOUT)
            await asyncio.sleep(0)
        await recording
        tried = len(store.batches)
        for _ in range(20):
            await db.record_api_call(**FIELDS)
        assert len(store.batches) == tried
        store.answers.set()


async def test_a_store_that_is_away_does_not_stop_a_service_from_starting(
    store: Store, spool: Spool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store.fault = AWAY
    async with LLMBridge("memory://unused", spool_dir=tmp_path) as bridge:
        bridge._database = database(store, tmp_path)
        await bridge._ensure_db_initialized()
        assert (await bridge.chat(ASK)).record_status == "spooled"
        assert [level for level, _ in lines(caplog)] == ["WARNING"]
        store.fault = None
        await replayed(spool)
        assert (await bridge.chat(ASK)).record_status == "committed"
        assert len(store.ids) == 2
    assert [level for level, _ in lines(caplog)] == ["WARNING", "WARNING"]


async def test_calls_that_one_run_spooled_are_recorded_by_the_next(store: Store, spool: Spool, tmp_path: Path) -> None:
    spool.put([make_call(number) for number in range(2500)])
    async with database(store, tmp_path) as db:
        await replayed(spool)
        assert len(store.ids) == 2500
        assert store.batches[0][0] == make_call(0)
        await counted(db, calls_replayed=2500)


async def test_rejected_calls_are_set_aside_and_block_no_others(
    store: Store, spool: Spool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    calls = [make_call(number) for number in range(300)]
    spool.put(calls)
    store.poison = {calls[0].id, calls[77].id}
    async with database(store, tmp_path) as db:
        await replayed(spool)
        assert store.ids == {call.id for call in calls} - store.poison
        await counted(db, calls_set_aside=2)
        report = await db.health_check()
    assert report["spool"] == {"path": str(spool.path), "waiting": 0, "set_aside": 2, "to_adopt": 0, "error": None}
    assert [level for level, _ in lines(caplog)] == ["ERROR"]
    assert b"12345678" not in spool.path.read_bytes()


async def test_a_spool_that_cannot_be_changed_does_not_block_later_calls(
    store: Store, spool: Spool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    calls = [make_call(number) for number in range(5)]
    spool.put(calls)
    store.poison = {calls[0].id, calls[2].id}
    change(spool, "CREATE TRIGGER full BEFORE UPDATE ON calls BEGIN SELECT RAISE(ABORT, 'the disk is full'); END")
    async with database(store, tmp_path) as db:
        await replayed(spool, left=2)
        assert store.ids == {call.id for call in calls} - store.poison
        while len(store.batches) < 20:  # they are tried again
            await asyncio.sleep(0.01)
        assert spool.counts() == SpoolCounts(waiting=2)
        ((level, told),) = lines(caplog)
        assert level == "WARNING"
        assert "the disk is full" in told
        assert db.metrics()["calls_set_aside"] == 0
        change(spool, "DROP TRIGGER full")
        await replayed(spool)
        assert spool.counts() == SpoolCounts(set_aside=2)
        await counted(db, calls_set_aside=2)


async def test_calls_that_cannot_be_removed_from_the_spool_are_recorded_once(
    store: Store, spool: Spool, tmp_path: Path
) -> None:
    spool.put([make_call(number) for number in range(1200)])
    change(spool, "CREATE TRIGGER full BEFORE DELETE ON calls BEGIN SELECT RAISE(ABORT, 'the disk is full'); END")
    async with database(store, tmp_path) as db:
        while len(store.batches) < 6:
            await asyncio.sleep(0.01)
        assert len(store.ids) == 1200
        assert db.metrics()["calls_replayed"] == 0
        change(spool, "DROP TRIGGER full")
        await replayed(spool)
        await counted(db, calls_replayed=1200)


async def test_calls_of_a_newer_release_stay_in_the_spool_and_block_no_others(
    store: Store, spool: Spool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    calls = [make_call(number) for number in range(3)]
    spool.put(calls)
    change(spool, "UPDATE calls SET record = json_set(record, '$.flavour', 1) WHERE position = 1")
    async with database(store, tmp_path) as db:
        await replayed(spool, left=1)
        assert store.ids == {call.id for call in calls[1:]}
        while any(task.get_name() == "llmbridge-replay" for task in asyncio.all_tasks()):
            await asyncio.sleep(0.01)
        store.fault = REFUSING
        await db.record_api_call(**FIELDS)
        store.fault = None
        await replayed(spool, left=1)
        assert spool.counts() == SpoolCounts(waiting=1)
        assert db.metrics()["calls_set_aside"] == 0
    (told,) = (message for _, message in lines(caplog) if "cannot read" in message)
    assert "flavour" in told
    change(spool, "UPDATE calls SET record = json_remove(record, '$.flavour')")
    async with database(store, tmp_path):
        await replayed(spool)
        assert calls[0].id in store.ids


async def test_a_call_that_is_spooled_while_the_database_works_is_replayed(
    store: Store, spool: Spool, tmp_path: Path
) -> None:
    """As does what was on its way there when the outage ended."""
    async with database(store, tmp_path) as db:
        await db.record_api_call(**FIELDS)
        assert isinstance(db._writer, CallWriter)
        await db._writer._put([make_call()])
        await replayed(spool)
        assert make_call().id in store.ids


async def test_an_outage_may_end_before_the_spool_has_its_first_call(
    store: Store, spool: Spool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with database(store, tmp_path) as db:
        await db.record_api_call(**FIELDS)
        with slow_spool():
            store.fault = StorageRefusedError("no rights for a moment")
            recording = asyncio.create_task(db.record_api_call(**FIELDS))
            while not lines(caplog):
                await asyncio.sleep(0)
            store.fault = None
            while len(lines(caplog)) < 2:
                await asyncio.sleep(0.01)
        call = await recording
        await replayed(spool)
        assert call in store.ids
        assert spool.is_there()


async def test_calls_saved_from_a_writer_that_was_stopped_are_moved_while_the_loop_goes_on(
    store: Store, spool: Spool, tmp_path: Path
) -> None:
    async with database(store, tmp_path) as db:
        store.answers.clear()
        recording = [asyncio.create_task(db.record_api_call(make_call(number))) for number in range(5)]
        while not store.batches or db.metrics()["calls_waiting"] < 5:
            await asyncio.sleep(0)
        for task in asyncio.all_tasks():
            if task.get_name().startswith("llmbridge"):
                task.cancel()
        await asyncio.gather(*recording)
        assert spool.counts().waiting == 5
        store.answers.set()
        await replayed(spool)
        assert store.ids == {make_call(number).id for number in range(5)}


async def test_calls_of_days_that_were_purged_meanwhile_are_set_aside(
    store: Store, spool: Spool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    old, new = make_call(0), make_call(1, called_at=make_call(0).called_at.replace(year=2027))
    spool.put([old, new])
    async with store:
        await store.apply_migrations()
        await store.purge_calls(make_call(0).called_at.replace(year=2027, month=1, day=1))
    async with database(store, tmp_path) as db:
        await replayed(spool)
        assert store.ids == {new.id}
        await counted(db, calls_set_aside=1, calls_replayed=1)
    assert spool.refusals(10) == {"called_at lies in a day that was purged": 1}
    assert "does not take 1 calls; they are set aside" in lines(caplog)[0][1]


@pytest.mark.parametrize(
    "fault",
    [
        StorageRefusedError("the password is wrong now"),
        SchemaOutdatedError("a table is gone"),
        StorageError("something new"),
        ZeroDivisionError("a bug"),
    ],
)
async def test_a_running_service_spools_its_calls_even_if_the_database_refuses_them(
    fault: Exception, store: Store, spool: Spool, tmp_path: Path
) -> None:
    async with database(store, tmp_path) as db:
        store.fault = fault
        call = await db.record_api_call(**FIELDS)
        assert spool.counts().waiting == 1
        store.fault = None
        await replayed(spool)
        assert store.ids == {call}


async def test_a_refused_database_stops_a_service_from_starting(store: Store, tmp_path: Path) -> None:
    store.fault = StorageRefusedError("not ours")
    with pytest.raises(StorageRefusedError):
        await database(store, tmp_path).open()


@pytest.mark.parametrize("setting", ["log", "raise"])
async def test_without_a_spool_calls_are_lost_and_reported_as_lost(
    setting: Any, store: Store, spool: Spool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    db = database(store, tmp_path, on_storage_error=setting)
    await db.initialize()
    store.fault = REFUSING
    record, status = await db.keep(FIELDS)
    assert record is not None
    assert status == "lost"
    with pytest.raises(StorageRefusedError):
        await db.record_api_call(**FIELDS)
    assert [level for level, _ in lines(caplog)] == ["WARNING", "ERROR"]
    assert (await db.health_check())["spool"] is None
    assert db.metrics()["calls_lost"] == 2
    await db.close()
    assert not spool.is_there()


@pytest.mark.parametrize("setting", ["log", "raise"])
async def test_calls_of_an_earlier_run_are_replayed_even_if_new_ones_are_not_spooled(
    setting: Any, store: Store, spool: Spool, tmp_path: Path
) -> None:
    spool.put([make_call(0), make_call(1)])
    store.poison = {make_call(1).id}
    async with database(store, tmp_path, on_storage_error=setting) as db:
        await replayed(spool)
        assert store.ids == {make_call(0).id}
        report = await db.health_check()
        assert report["spool"] == {"path": str(spool.path), "waiting": 0, "set_aside": 1, "to_adopt": 0, "error": None}
        store.fault = REFUSING
        with pytest.raises(StorageRefusedError):
            await db.record_api_call(**FIELDS)
        assert spool.counts() == SpoolCounts(set_aside=1)


async def test_on_storage_error_raise_raises_at_the_start(store: Store, tmp_path: Path) -> None:
    store.fault = AWAY
    with pytest.raises(StorageUnavailableError):
        await database(store, tmp_path, on_storage_error="raise").open()


async def test_a_spool_that_cannot_be_written_is_logged_at_the_start_and_calls_can_be_lost(
    store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    async with database(store, tmp_path / "file" / "spool") as db:
        assert [level for level, _ in lines(caplog)] == ["WARNING"]
        report = await db.health_check()
        assert report["status"] == "healthy"
        assert "cannot be spooled" in report["spool"].pop("error")
        (path,) = (tmp_path / "file" / "spool" / name for name in [Path(report["spool"]["path"]).name])
        assert report["spool"] == {"path": str(path), "waiting": None, "set_aside": None, "to_adopt": None}
        store.fault = REFUSING
        _, status = await db.keep(FIELDS)
        assert status == "lost"
        with pytest.raises(StorageUnavailableError, match="cannot be spooled"):
            await db.record_api_call(**FIELDS)
        store.fault = None
        _, status = await db.keep(FIELDS)
        assert status == "committed"


@pytest.mark.parametrize("first_use", ["initialize", "record_api_call", "usage", "all at once"])
async def test_the_warning_that_calls_cannot_be_spooled_is_logged_once_each_time_the_database_is_opened(
    store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture, first_use: str
) -> None:
    (tmp_path / "file").write_text("")
    db = database(store, tmp_path / "file" / "spool")
    uses = {
        "initialize": db.initialize,
        "record_api_call": lambda: db.record_api_call(**FIELDS),
        "usage": db.usage,
    }
    chosen = list(uses.values()) if first_use == "all at once" else [uses[first_use]]
    for openings in (1, 2):
        await asyncio.gather(*(use() for use in chosen))
        await db.health_check()  # waits for the thread of the spool
        assert [level for level, _ in lines(caplog)] == ["WARNING"] * openings
        await asyncio.gather(*(use() for use in uses.values()))
        await db.health_check()
        assert [level for level, _ in lines(caplog)] == ["WARNING"] * openings
        await db.close()
        await db.initialize()
    await db.close()


async def test_a_spool_with_an_impossible_name_fails_no_start(
    store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with database(store, tmp_path / ("x" * 300)) as db:
        await db.record_api_call(**FIELDS)
        assert [level for level, _ in lines(caplog)] == ["WARNING"]
        report = await db.health_check()
        assert report["status"] == "healthy"
        assert "too long" in report["spool"]["error"]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such users")
def test_a_spool_whose_folder_may_not_be_searched_fails_no_start(tmp_path: Path) -> None:
    program = """
import asyncio, json, os, sys
from llmbridge import LLMDatabase
from llmbridge.storage.memory import MemoryBackend
from llmbridge.testing import make_call

async def main(folder):
    backend = MemoryBackend()
    backend.target = "memory:unsearchable"
    async with LLMDatabase(backend=backend, spool_dir=folder) as db:
        await db.record_api_call(make_call())
        return await db.health_check(), db.metrics()

asyncio.run(main(sys.argv[2]))  # nothing is imported for the first time by a user who may read nothing
if os.geteuid() == 0:
    os.setgid(65534)
    os.setuid(65534)
report, counts = asyncio.run(main(sys.argv[1]))
print(json.dumps([report["status"], report["spool"]["error"], counts["calls_committed"]]))
"""
    locked = tmp_path / "locked"
    (locked / "spool").mkdir(parents=True)
    locked.chmod(0)
    try:
        command = [sys.executable, "-c", program, str(locked / "spool"), str(tmp_path)]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    finally:
        locked.chmod(0o700)
    status, problem, committed = json.loads(done.stdout)
    assert (status, committed) == ("healthy", 1)
    assert "Permission denied" in problem
    assert done.stderr.count("Permission denied") == 1


async def test_a_spool_that_does_not_answer_holds_up_neither_calls_nor_the_start(
    store: Store, spool: Spool, tmp_path: Path
) -> None:
    spool.put([make_call()])
    recording, starting = database(store, tmp_path), database(store, tmp_path, record_timeout=0.3)
    with slow_spool():
        async with asyncio.timeout(20):
            call = await recording.record_api_call(**FIELDS)
            await starting.initialize()
        assert store.ids == {call}
    await recording.close()
    await starting.close()


async def late_health(db: LLMDatabase) -> dict[str, Any]:
    """What is told of store and spool where one of them does not answer in time and the other has answered."""
    others = asyncio.all_tasks()
    checking = asyncio.create_task(db.health_check(timeout=60))
    while len(asyncio.all_tasks() - others) < 3:  # one asks the store, one asks the spool, and one waits for both
        await asyncio.sleep(0)
    while len(asyncio.all_tasks() - others) > 2:
        await asyncio.sleep(0.01)
    pass_time(60)
    return await checking


async def test_health_checks_the_database_and_the_spool_separately(store: Store, spool: Spool, tmp_path: Path) -> None:
    spool.put([make_call()])
    async with database(store, tmp_path) as db:
        await replayed(spool)
        with slow_spool():
            report = await late_health(db)
        assert report["status"] == "healthy"
        late = "no answer within 60 s"
        unknown = dict.fromkeys(("waiting", "set_aside", "to_adopt"))
        assert report["spool"] == {"path": str(spool.path), **unknown, "error": late}
        store.answers.clear()
        report = await late_health(db)
        assert (report["status"], report["error"]) == ("unhealthy", late)
        assert report["spool"] == {"path": str(spool.path), "waiting": 0, "set_aside": 0, "to_adopt": 0, "error": None}
        store.answers.set()


async def test_health_reports_the_queue_the_spool_and_the_last_error(
    store: Store, spool: Spool, tmp_path: Path
) -> None:
    async with database(store, tmp_path) as db:
        assert await db.health_check() == {
            "status": "healthy",
            "target": store.target,
            "queue": 0,
            "spool": {"path": str(spool.path), "waiting": 0, "set_aside": 0, "to_adopt": 0, "error": None},
            "last_error": None,
        }
        store.fault = REFUSING
        await db.record_api_call(**FIELDS)
        report = await db.health_check()
        assert (report["status"], report["spool"]["waiting"]) == ("unhealthy", 1)
        assert report["last_error"] == "StorageRefusedError: postgresql://user:***@db/shop refuses everybody"


async def test_closing_reports_the_outcome_of_pending_calls(store: Store, spool: Spool, tmp_path: Path) -> None:
    db = database(store, tmp_path)
    await db.initialize()
    store.answers.clear()
    recording = [asyncio.create_task(db.record_api_call(**FIELDS)) for _ in range(7)]
    while not store.batches:
        await asyncio.sleep(0)
    assert await db.close(timeout=0.05) == CloseReport(spooled=7)
    ids = set(await asyncio.gather(*recording))
    assert {found.record.id for found in spool.file.oldest(10) if found.record} == ids
    assert await db.close() == CloseReport()
    with pytest.raises(StorageClosedError):
        await db.record_api_call(**FIELDS)


async def test_closing_writes_the_calls_that_the_database_takes_in_time(store: Store, tmp_path: Path) -> None:
    db = database(store, tmp_path)
    await db.initialize()
    store.answers.clear()
    recording = [asyncio.create_task(db.record_api_call(**FIELDS)) for _ in range(7)]
    while not store.batches:
        await asyncio.sleep(0)
    closing = asyncio.create_task(db.close(timeout=60))
    await asyncio.sleep(0)
    store.answers.set()
    assert await closing == CloseReport(committed=7)
    assert None not in await asyncio.gather(*recording)


async def test_a_start_that_ends_after_the_closing_began_starts_no_replay(
    store: Store, spool: Spool, tmp_path: Path
) -> None:
    spool.put([make_call()])
    store.answers.clear()
    threads = set(threading.enumerate())
    db = database(store, tmp_path)
    db.start_soon()
    closing = asyncio.create_task(db.close(timeout=60))
    await asyncio.sleep(0.05)
    store.answers.set()
    await closing
    assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("llmbridge")]
    assert not [thread for thread in set(threading.enumerate()) - threads if thread.name.startswith("llmbridge")]
    assert spool.counts().waiting == 1


async def test_a_caller_cancelled_before_the_database_is_open_leaves_its_call(store: Store, tmp_path: Path) -> None:
    store.answers.clear()
    db = database(store, tmp_path)
    call = make_call()
    leaving = asyncio.create_task(db.record_api_call(call))
    while not db.metrics()["calls_waiting"]:
        await asyncio.sleep(0)
        leaving.cancel()
    store.answers.set()
    while call.id not in (store._store.calls if store._store else ()):
        await asyncio.sleep(0.01)
    await db.close()


async def test_a_database_that_responds_but_takes_no_calls_is_not_healthy(store: Store, tmp_path: Path) -> None:
    async def refuse(calls: Sequence[CallRecord]) -> RecordResult:
        raise StorageRefusedError("the user lacks a right")

    async with database(store, tmp_path) as db:
        assert (await db.health_check())["status"] == "healthy"
        taking = store.record_calls
        store.record_calls = refuse  # type: ignore[method-assign]
        await db.record_api_call(**FIELDS)
        told = await db.health_check()
        assert told["status"] == "unhealthy"
        assert told["error"] == "it answers, but does not take calls: StorageRefusedError: the user lacks a right"
        store.record_calls = taking  # type: ignore[method-assign]
        while (await db.health_check())["status"] != "healthy":
            await asyncio.sleep(0.01)


async def test_closing_twice_is_closing_once(
    store: Store, spool: Spool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = []
    disconnect = store.disconnect

    async def close_once() -> None:
        closed.append(store)
        await disconnect()

    monkeypatch.setattr(store, "disconnect", close_once)
    db = database(store, tmp_path)
    recording = await hanging(db, store)
    report = CloseReport(committed=0, spooled=10, lost=0)
    assert await asyncio.gather(db.close(timeout=0.1), db.close(timeout=0.1)) == [report, report]
    assert closed == [store]
    assert None not in await asyncio.gather(*recording)
    assert spool.counts().waiting == 10
    store.answers.set()


async def test_a_cancelled_closing_continues(store: Store, spool: Spool, tmp_path: Path) -> None:
    db = database(store, tmp_path)
    recording = await hanging(db, store)
    closing = asyncio.create_task(db.close(timeout=1))
    await asyncio.sleep(0)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    assert db.metrics()["calls_waiting"] == 10
    assert await db.close() == CloseReport(committed=0, spooled=10, lost=0)
    assert None not in await asyncio.gather(*recording)
    store.answers.set()


async def test_a_database_that_is_opened_while_it_closes_is_open_afterwards(store: Store, tmp_path: Path) -> None:
    db = database(store, tmp_path)
    await hanging(db, store)
    closing = asyncio.create_task(db.close(timeout=0.05))
    await asyncio.sleep(0)
    opening = asyncio.create_task(db.initialize())
    assert (await closing).spooled == 10
    store.answers.set()
    await opening
    assert await db.record_api_call(**FIELDS)
    await db.close()


@pytest.mark.parametrize(
    ("on_storage_error", "report"),
    [("spool", CloseReport(committed=0, spooled=5, lost=0)), ("log", CloseReport(committed=0, spooled=0, lost=5))],
)
async def test_closing_counts_callers_for_whom_the_store_is_still_opening(
    on_storage_error: str, report: CloseReport, store: Store, spool: Spool, tmp_path: Path
) -> None:
    store.answers.clear()
    db = database(store, tmp_path, on_storage_error=on_storage_error)
    recording = [asyncio.create_task(db.record_api_call(**FIELDS)) for _ in range(5)]
    await asyncio.sleep(0.1)
    assert await db.close(timeout=0.1) == report
    outcomes = await asyncio.gather(*recording, return_exceptions=True)
    assert [isinstance(outcome, StorageUnavailableError) for outcome in outcomes] == [bool(report.lost)] * 5
    assert spool.counts().waiting == report.spooled
    store.answers.set()


async def test_closing_waits_for_callers_for_whom_the_store_opens_in_time(store: Store, tmp_path: Path) -> None:
    store.answers.clear()
    db = database(store, tmp_path)
    recording = [asyncio.create_task(db.record_api_call(**FIELDS)) for _ in range(5)]
    await asyncio.sleep(0.1)
    closing = asyncio.create_task(db.close(timeout=60))
    await asyncio.sleep(0)
    with pytest.raises(StorageClosedError):
        await db.record_api_call(**FIELDS)
    store.answers.set()
    assert await closing == CloseReport(committed=5, spooled=0, lost=0)
    assert db.metrics()["calls_lost"] == 1
    assert None not in await asyncio.gather(*recording)


async def test_a_call_that_ends_after_the_closing_is_spooled(store: Store, spool: Spool, tmp_path: Path) -> None:
    db = database(store, tmp_path)
    await db.initialize()
    await db.close()
    record, status = await db.keep(FIELDS)
    assert record is not None
    assert status == "spooled"
    assert db.metrics()["calls_spooled"] == 1
    assert spool.counts().waiting == 1


async def test_a_call_that_ends_after_the_closing_is_lost_without_a_spool(
    store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    db = database(store, tmp_path, on_storage_error="log")
    await db.initialize()
    await db.close()
    assert (await db.keep(FIELDS))[1] == "lost"
    assert db.metrics()["calls_lost"] == 1
    assert [level for level, _ in lines(caplog)] == ["ERROR"]


async def test_a_call_whose_backend_was_closed_elsewhere_is_lost_once(store: Store, tmp_path: Path) -> None:
    async with database(store, tmp_path, on_storage_error="log") as db:
        await store.disconnect()
        assert (await db.keep(FIELDS))[1] == "lost"
        assert db.metrics()["calls_lost"] == 1


async def test_closing_reports_even_if_the_backend_fails_to_disconnect(
    store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail() -> None:
        raise ZeroDivisionError

    db = database(store, tmp_path)
    await db.record_api_call(**FIELDS)
    monkeypatch.setattr(store, "disconnect", fail)
    assert await db.close() == CloseReport()
    await asyncio.sleep(0)
    [(level, text)] = lines(caplog)
    assert level == "ERROR"
    assert "could not be closed" in text
    assert "raised ZeroDivisionError" in text


async def test_no_log_line_and_no_error_shows_a_password(
    store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with database(store, tmp_path, on_storage_error="log") as db:
        store.fault = StorageRefusedError(str(AWAY))
        with pytest.raises(StorageRefusedError) as failed:
            await db.record_api_call(**FIELDS)
        assert (await db.keep(FIELDS))[1] == "lost"
        leaving = asyncio.create_task(db.record_api_call(**FIELDS))
        await asyncio.sleep(0)
        leaving.cancel()
        await asyncio.gather(leaving, return_exceptions=True)
    assert "hunter2" not in f"{failed.value}{caplog.text}"
    assert "user:***@db" in str(failed.value)


async def test_a_call_that_core_refuses_is_counted(store: Store, tmp_path: Path) -> None:
    async with database(store, tmp_path) as db:
        with pytest.raises(RecordRejectedError):
            await db.record_api_call(**FIELDS, completion_tokens=-1)
        assert await db.keep({**FIELDS, "completion_tokens": -1}) == (None, "lost")
        assert db.metrics()["calls_rejected"] == 2


def test_a_store_in_memory_has_no_spool(tmp_path: Path) -> None:
    async def main() -> Any:
        async with LLMDatabase("memory://", spool_dir=tmp_path) as db:
            return (await db.health_check())["spool"]

    assert asyncio.run(main()) is None


async def test_nothing_is_logged_without_an_error(
    store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="llmbridge"):
        async with database(store, tmp_path) as db:
            await db.record_api_call(**FIELDS)
    assert lines(caplog) == []
    assert list(tmp_path.iterdir()) == []


def test_calls_are_spooled_in_every_event_loop_during_an_outage(tmp_path: Path) -> None:
    bridge = LLMBridge(backend=Store("loops", StorageUnavailableError("away")), spool_dir=tmp_path)
    assert [asyncio.run(bridge.chat(ASK)).record_status for _ in range(3)] == ["spooled"] * 3


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_forked_child_saves_its_calls_though_its_parent_made_the_database(tmp_path: Path) -> None:
    program = """
import asyncio, os, sys
from llmbridge import LLMDatabase
from llmbridge.storage.memory import MemoryBackend
from llmbridge.testing import make_call

class Hanging(MemoryBackend):
    async def record_calls(self, calls):
        taken.set()
        await asyncio.Event().wait()

async def main():
    global taken
    taken = asyncio.Event()
    recording = asyncio.create_task(db.record_api_call(make_call()))
    await taken.wait()

backend = Hanging("fork")
backend.target = "memory:fork"
db = LLMDatabase(backend=backend, spool_dir=sys.argv[1], record_timeout=60)
if (child := os.fork()) == 0:
    asyncio.run(main())
else:
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True, timeout=120)
    assert Spool("memory:fork", tmp_path).counts() == SpoolCounts(waiting=1)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_child_forked_during_an_outage_is_refused_and_leaves_the_pending_calls_to_its_parent(tmp_path: Path) -> None:
    """The database could not be opened, so no event loop owns it. All the same the parent has used it: the child has
    neither the parent's threads nor its tasks, and copies of its pending calls."""
    program = """
import asyncio, atexit, os, sys, threading
from llmbridge import LLMDatabase
from llmbridge._recording import spool
from llmbridge.errors import StorageUnavailableError, WrongLoopError
from llmbridge.storage.memory import MemoryBackend
from llmbridge.testing import make_call

class Away(MemoryBackend):
    async def connect(self):
        raise StorageUnavailableError("away")

async def use():
    try:
        await db.record_api_call(make_call(1))
    except WrongLoopError:
        _, status = await db.keep(vars(make_call(2)))
        assert status == "spooled", status
    else:
        raise AssertionError("not refused")
    for action in (db.initialize, db.close, db.usage):
        try:
            await action()
        except WrongLoopError:
            continue
        raise AssertionError(action)
    health = await db.health_check()
    assert "another process" in health["error"] and "another process" in health["spool"]["error"], health

def fork():
    # In a thread of its own, a forked child has no running event loop.
    if child := os.fork():
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    code = 1
    try:
        asyncio.run(use())
        atexit._run_exitfuncs()  # among them the rescue of pending calls
        assert spool.Spool("memory:fork", sys.argv[1]).counts().waiting == 2  # the calls 2 and 3
        code = 0
    finally:
        os._exit(code)

async def main():
    await db.record_api_call(make_call(3))  # the thread of the spool has started
    holding, held = threading.Event(), threading.Event()
    put = spool.Spool.put
    def slow(self, calls):
        if os.getpid() == parent:
            held.set()
            holding.wait()
        put(self, calls)
    spool.Spool.put = slow
    recording = [asyncio.create_task(db.record_api_call(make_call(number))) for number in range(4, 9)]
    await asyncio.to_thread(held.wait)
    code = await asyncio.to_thread(fork)
    holding.set()
    await asyncio.gather(*recording)
    assert db.metrics()["calls_lost"] == 0
    await db.close()
    return code

parent = os.getpid()
backend = Away()
backend.target = "memory:fork"
db = LLMDatabase(backend=backend, spool_dir=sys.argv[1], record_timeout=60)
sys.exit(asyncio.run(main()))
"""
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True, timeout=120)
    spool = Spool("memory:fork", tmp_path)
    spooled = [call for file in spool.files() for call in spool.find(file.name).oldest(100)]
    assert {call.record for call in spooled} == {make_call(number) for number in range(2, 9)}


async def test_a_bug_at_the_opening_of_the_database_loses_no_call(store: Store, spool: Spool, tmp_path: Path) -> None:
    async def fail(_: StorageBackend) -> None:
        raise ZeroDivisionError

    db = database(store, tmp_path)
    remove = db._session.on_start(fail)
    with pytest.raises(ZeroDivisionError):
        await db.initialize()
    assert (await db.keep(FIELDS))[1] == "spooled"
    remove()
    await replayed(spool)
    assert len(store.ids) == 1
    await db.close()


async def test_closing_lets_a_replay_continue_for_the_rest_of_the_timeout(
    store: Store, spool: Spool, tmp_path: Path
) -> None:
    spool.put([make_call(number) for number in range(2500)])
    async with database(store, tmp_path):
        pass
    assert spool.counts() == SpoolCounts()
    async with database(store, tmp_path):
        assert len(store.ids) == 2500


async def test_a_call_that_the_spool_does_not_confirm_before_the_closing_says_so(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_module, "_SPOOL_TIMEOUT", 0.1)
    db = database(store, tmp_path)
    recording = await hanging(db, store)
    with slow_spool():
        await db.close(timeout=0)
        with pytest.raises(StorageUnavailableError, match="the spool did not confirm the calls before the closing"):
            await recording[0]
    await asyncio.gather(*recording, return_exceptions=True)


def test_closing_again_in_another_event_loop_closes_nothing(store: Store, tmp_path: Path) -> None:
    db = database(store, tmp_path)

    async def use() -> None:
        async with db:
            await db.record_api_call(**FIELDS)

    asyncio.run(use())
    assert asyncio.run(db.close()) == CloseReport()


async def test_health_of_a_closed_database_says_that_it_is_closed(store: Store, tmp_path: Path) -> None:
    db = database(store, tmp_path)
    async with db:
        pass
    report = await db.health_check()
    assert "the database is closed" in report["error"]
    assert "the database is closed" in report["spool"]["error"]


async def test_a_spool_that_works_again_begins_no_replay_while_the_database_is_away(
    store: Store, spool: Spool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def is_full(_: Spool, calls: Sequence[CallRecord]) -> None:
        raise StorageUnavailableError("the disk is full")

    def replays() -> list[str]:
        return [task.get_name() for task in asyncio.all_tasks() if task.get_name() == "llmbridge-replay"]

    async with database(store, tmp_path) as db:
        while replays():  # that of the start
            await asyncio.sleep(0)
        store.fault = REFUSING
        with monkeypatch.context() as full:
            full.setattr(Spool, "put", is_full)
            assert (await db.keep(FIELDS))[1] == "lost"
        assert (await db.keep(FIELDS))[1] == "spooled"
        assert replays() == []
        store.fault = None
        await replayed(spool)
