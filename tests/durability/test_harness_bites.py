"""The tests of this folder find each defect with the fault that is meant for it."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import closing
from itertools import count
from pathlib import Path
from random import Random

import pytest

from llmbridge._recording.batch_writer import BatchWriter
from llmbridge.errors import StorageUnavailableError
from llmbridge.schemas import CallRecord
from llmbridge.storage import RecordResult

from . import test_callers, test_kills, test_many_processes
from .conftest import MakeDatabase
from .databases import DatabaseUnderTest, check
from .disk import built
from .processes import Zygote, acknowledged, zygote
from .programs import defects
from .programs.calls import numbered
from .rounds import rounds
from .test_disk import lose_power_once, lose_power_while_spooling

LOST = "acknowledged calls are gone"
WRONG_SUM = "calls is"


async def find(fault: Callable[[], Awaitable[object]], told: str, attempts: int = 40) -> None:
    """Inject the fault until it finds the defect, and tells what is `told`."""
    for _ in range(attempts):
        try:
            await fault()
        except AssertionError as error:
            assert told in str(error)  # noqa: PT017
            return
    pytest.fail(f"{attempts} faults have not found the defect")


async def record_some(programs: Zygote, tested: DatabaseUnderTest, notes: Path, defect: str) -> int:
    """Record calls in a process that has a defect; how it ended."""
    process = programs.start(
        "record", url=tested.url, notes=str(notes), numbers=(0, 200), spool_dir=str(tested.spool_dir), defect=defect
    )
    return await asyncio.to_thread(process.wait)


async def test_totals_outside_the_transaction(programs: Zygote, new_database: MakeDatabase, tmp_path: Path) -> None:
    """A process dies within folding, which harms no store whose totals change in one transaction."""
    tested, notes = new_database(), tmp_path / "notes"
    assert await record_some(programs, tested, notes, "killed_while_folding") == -9
    await check(tested, acknowledged(notes), range(200))

    tested, notes = new_database(), tmp_path / "notes of the defect"
    assert await record_some(programs, tested, notes, "totals_outside_the_transaction") == -9
    with pytest.raises(AssertionError, match=WRONG_SUM):
        await check(tested, acknowledged(notes), range(200))


async def test_a_duplicate_that_counts(programs: Zygote, new_sqlite: MakeDatabase, tmp_path: Path) -> None:
    tested, notes = new_sqlite(), tmp_path / "notes"
    assert await record_some(programs, tested, notes, "duplicate_counted") == 0
    await check(tested, range(200), range(200))
    assert await record_some(programs, tested, notes, "duplicate_counted") == 0
    with pytest.raises(AssertionError, match=WRONG_SUM):
        await check(tested, range(200), range(200))


async def test_acknowledgement_before_the_commit(programs: Zygote, new_sqlite: MakeDatabase, tmp_path: Path) -> None:
    tested, dice, used = new_sqlite(), next(rounds(1, 1)), 0

    async def kill() -> None:
        nonlocal used
        used += 1
        notes, first = tmp_path / f"notes-{used}", used * test_kills.CALLS
        await test_kills.kill_one(programs, tested, notes, first, dice, defect="acknowledge_before_commit")
        await check(tested, acknowledged(notes))

    await find(kill, LOST)


async def test_a_deferred_begin(programs: Zygote, new_sqlite: MakeDatabase) -> None:
    ended, _ = await test_many_processes.record_together(programs, new_sqlite(), 2, 4, defect="deferred_begin")
    assert ended != [0] * 4


async def test_unsorted_keys(new_postgres: MakeDatabase) -> None:
    with defects.applied("unsorted_keys"):
        await find(lambda: test_many_processes.cross(new_postgres()), "deadlock", 5)


async def test_migrations_without_a_lock(programs: Zygote, new_postgres: MakeDatabase) -> None:
    async def open_together() -> None:
        ended, _ = await test_many_processes.record_together(programs, new_postgres(), 0, 8, defect="no_migration_lock")
        assert ended == [0] * 8

    await find(open_together, "")


@pytest.fixture(scope="module")
def powerless(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Zygote]:
    folder = tmp_path_factory.mktemp("disk")
    with zygote(folder / "log", LD_PRELOAD=str(built(folder))) as started:
        yield started


async def test_commits_that_are_not_synced(powerless: Zygote, new_sqlite: MakeDatabase) -> None:
    dice = next(rounds(1, 1))

    async def lose_power() -> None:
        try:
            await lose_power_once(powerless, new_sqlite(), dice, defect="synchronous_off_called_full")
        except Exception as error:  # a damaged file has many faces
            raise AssertionError from error

    await find(lose_power, "", 10)


@pytest.mark.parametrize(("defect", "told"), [("spool_not_synced", ""), ("folders_not_synced", LOST)])
async def test_a_spool_that_is_not_synced(defect: str, told: str, powerless: Zygote, tmp_path: Path) -> None:
    dice, folders = next(rounds(1, 1)), count()

    async def lose_power() -> None:
        try:
            folder = tmp_path / f"spool-{next(folders)}"
            await lose_power_while_spooling(powerless, folder, dice, defect=defect)
        except Exception as error:  # a damaged file has many faces
            raise AssertionError(str(error)) from error

    await find(lose_power, told, 10)


@pytest.mark.parametrize(
    ("defect", "told"), [("dropped_future", "forgotten"), ("cancelled_caller_takes_others_along", LOST)]
)
async def test_callers_who_are_forgotten_or_taken_along(
    defect: str, told: str, new_sqlite: MakeDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    # One round is too few: whether it finds the second defect depends on the instant at which callers leave.
    monkeypatch.setattr(test_callers, "rounds", lambda usual, _: (Random(number) for number in range(usual)))
    with defects.applied(defect):
        await find(lambda: test_callers.cancel_rounds(new_sqlite(), 5, 5, timeout=5), told, 20)


async def test_poison_that_takes_its_batch_along(new_sqlite: MakeDatabase) -> None:
    with defects.applied("poison_takes_its_batch_along"), pytest.raises(AssertionError, match="Extra items"):
        await test_callers.test_calls_that_no_store_holds_fail_alone(new_sqlite)


async def test_a_spool_that_is_not_replayed(new_sqlite: MakeDatabase) -> None:
    tested = new_sqlite()
    async with tested.open():
        pass
    tested.spool.put([numbered(number) for number in range(10)])
    with defects.applied("spool_not_replayed"), pytest.raises(TimeoutError):
        await check(tested, range(10), range(10), timeout=1)


async def test_calls_that_leave_the_spool_before_their_commit(new_sqlite: MakeDatabase) -> None:
    """The store is locked while they are moved, and closed before it is free."""
    tested = new_sqlite()
    async with tested.open():
        pass

    async def move(numbers: range) -> None:
        tested.spool.put([numbered(number) for number in numbers])
        with closing(sqlite3.connect(tested.home / "calls.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            db = tested.open()
            await db.initialize()
            while "llmbridge-replay" not in {task.get_name() for task in asyncio.all_tasks()}:
                await asyncio.sleep(0)
            await asyncio.sleep(0.3)
            closing_books = asyncio.create_task(db.close(timeout=0))
            await asyncio.sleep(0.1)
            other.execute("ROLLBACK")
            await closing_books
        await check(tested, numbers, range(20))

    await move(range(10))
    with defects.applied("removed_before_the_commit"), pytest.raises(AssertionError, match=LOST):
        await move(range(10, 20))


async def test_a_batch_sent_again_under_other_ids(new_sqlite: MakeDatabase) -> None:
    tested = new_sqlite()

    async def send_again() -> None:
        backend, unheard = tested.backend(), 1

        async def record(calls: Sequence[CallRecord]) -> RecordResult:
            nonlocal unheard
            result = await backend.record_calls(calls)
            if unheard:
                unheard -= 1
                raise StorageUnavailableError("the connection was lost")
            return result

        async with backend:
            await backend.apply_migrations()
            recorder = BatchWriter(record, timeout=60)
            await asyncio.gather(*(recorder.record(numbered(number)) for number in range(20)))
            await recorder.close()
        await check(tested, range(20), range(20))

    await send_again()
    with defects.applied("sent_again_under_another_id"), pytest.raises(AssertionError, match="item 0"):
        await send_again()


async def test_calls_left_in_memory_when_a_process_ends(programs: Zygote, new_sqlite: MakeDatabase) -> None:
    tested = new_sqlite()
    accepted, noted = tested.home / "accepted", tested.home / "acknowledged"

    async def end() -> None:
        process = programs.start(
            "returns",
            url=tested.url,
            spool_dir=str(tested.spool_dir),
            accepted=str(accepted),
            acknowledged=str(noted),
            defect="left_in_memory_at_the_end",
        )
        await asyncio.to_thread(process.wait)
        await check(tested, acknowledged(accepted))

    await find(end, LOST)
