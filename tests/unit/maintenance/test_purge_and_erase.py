"""Purging, erasing and checking: purged calls are gone, and no sum changes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from llmbridge import LLMDatabase
from llmbridge._maintenance import erase
from llmbridge._maintenance.erase import Forgotten
from llmbridge._recording.spool import Spool, SpoolCounts
from llmbridge.errors import (
    PurgedDetailError,
    RecordRejectedError,
    StorageClosedError,
    StorageError,
    StorageUnavailableError,
    UnsupportedOperationError,
)
from llmbridge.schemas import CallRecord
from llmbridge.storage import EARLIEST, RecordResult, TotalsReport
from llmbridge.storage.memory import MemoryBackend
from llmbridge.testing import make_call

TODAY = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
DAY = timedelta(days=1)


class Watched(MemoryBackend):
    """Remembers what it was asked to delete."""

    def __init__(self) -> None:
        super().__init__()
        self.purges: list[datetime] = []
        self.pages = 0

    async def purge_calls(self, before: datetime) -> int:
        self.purges.append(before)
        return await super().purge_calls(before)

    async def list_calls(self, query: Any) -> Any:
        self.pages += 1
        return await super().list_calls(query)


@pytest.fixture
def backend() -> Watched:
    return Watched()


@pytest.fixture
async def db(backend: Watched) -> AsyncIterator[LLMDatabase]:
    async with LLMDatabase(backend=backend) as opened:
        yield opened


async def record(db: LLMDatabase, at: datetime, **changes: Any) -> None:
    known = {"origin": "shop", "provider": "p", "model_name": "m", "estimated_cost": "0.1", "called_at": at}
    await db.record_api_call(**{**known, **changes})


async def test_one_day_with_calls_is_deleted_at_a_time_oldest_first(db: LLMDatabase, backend: Watched) -> None:
    ages = (400, 400, 399, 100, 30, 29, 0)
    for age in ages:
        await record(db, TODAY - age * DAY)
    (before,) = await db.usage()
    seen: list[tuple[date, int]] = []
    purged = await db.purge(TODAY - 30 * DAY + timedelta(hours=5), on_day=lambda day, count: seen.append((day, count)))
    assert purged == 4
    assert seen == [((TODAY - age * DAY).date(), count) for age, count in ((400, 2), (399, 1), (100, 1))]
    assert backend.purges == [TODAY - age * DAY for age in (399, 398, 99, 30)]
    assert backend.pages < 100
    assert [call.called_at for call in await db.list_recent_calls()] == [TODAY - age * DAY for age in (0, 29, 30)]
    assert await db.usage() == [before]


async def test_a_dry_run_counts_and_deletes_nothing(db: LLMDatabase, backend: Watched) -> None:
    assert await db.purge(TODAY - 30 * DAY, dry_run=True) == 0
    for age in (400, 100, 50, 30):
        await record(db, TODAY - age * DAY)
    assert await db.purge(TODAY - 30 * DAY, dry_run=True) == 3
    assert backend.purges == []
    await db.purge(TODAY - 60 * DAY)
    assert await db.purge(TODAY - 30 * DAY, dry_run=True) == 1


async def test_in_an_empty_store_only_the_rest_of_an_interrupted_purge_is_deleted(
    db: LLMDatabase, backend: Watched
) -> None:
    assert await db.purge(TODAY - 30 * DAY) == 0
    assert backend.purges == [EARLIEST]
    assert await db.purge(TODAY - 30 * DAY, force=True) == 0
    with pytest.raises(RecordRejectedError):
        await record(db, TODAY - 31 * DAY)


async def test_no_purge_reaches_more_than_a_day_beyond_the_newest_call_unless_it_is_forced(
    db: LLMDatabase, backend: Watched
) -> None:
    await record(db, TODAY - 32 * DAY + timedelta(hours=1))
    said = rf"the newest call is of {(TODAY - 32 * DAY).date()}\. .* pass force=True"
    for dry_run in (True, False):
        with pytest.raises(ValueError, match=said):
            await db.purge(TODAY - 30 * DAY, dry_run=dry_run)
    assert backend.purges == []
    assert await db.purge(TODAY - 31 * DAY) == 1
    assert await db.purge(TODAY - 30 * DAY, force=True) == 0


async def test_the_clock_of_the_database_says_what_time_it_is(
    db: LLMDatabase, backend: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def clock() -> datetime:
        return TODAY - 50 * DAY

    monkeypatch.setattr(backend, "clock", clock)
    await record(db, TODAY - 80 * DAY)
    said = rf"and the clock of the database says {(TODAY - 50 * DAY).date()}\. Check the clock of this machine"
    with pytest.raises(ValueError, match=said):
        await db.purge(TODAY - 48 * DAY)
    await record(db, TODAY - DAY)  # by the same wrong clock as that of the purge
    with pytest.raises(ValueError, match=said):
        await db.purge(TODAY - 48 * DAY)
    assert await db.purge(TODAY - 49 * DAY) == 1


@pytest.mark.parametrize("before", [TODAY - 6 * DAY, (TODAY - 6 * DAY).date(), TODAY])
async def test_a_week_is_kept_unless_it_is_forced(db: LLMDatabase, before: datetime | date) -> None:
    await record(db, TODAY - 7 * DAY)
    with pytest.raises(ValueError, match="fewer than 7 need force=True, in a shell --force"):
        await db.purge(before)
    assert await db.purge(TODAY - 7 * DAY) == 0
    assert await db.purge(before, force=True) == 1


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("before", [TODAY + 2 * DAY, (TODAY + 2 * DAY).date(), datetime(9999, 12, 31, tzinfo=UTC)])
async def test_no_purge_reaches_into_days_whose_calls_are_still_to_come(
    db: LLMDatabase, backend: Watched, before: datetime | date, force: bool
) -> None:
    await record(db, TODAY - 30 * DAY)
    with pytest.raises(ValueError, match=r"lies in the future; calls can be purged up to \d{4}-\d\d-\d\d"):
        await db.purge(before, force=force)
    assert backend.purges == []
    await record(db, TODAY)


async def test_the_first_days_of_all_time_are_found(db: LLMDatabase, backend: Watched) -> None:
    for at in (datetime(1, 1, 1, tzinfo=UTC), datetime(1970, 1, 1, tzinfo=UTC), datetime(9999, 12, 30, tzinfo=UTC)):
        await record(db, at)
    assert await db.purge(TODAY, force=True) == 2
    assert backend.pages < 250


async def test_a_name_goes_and_the_sums_stay(db: LLMDatabase) -> None:
    for age in (40, 39, 0):
        await record(db, TODAY - age * DAY, id_at_origin="ann")
    await record(db, TODAY, id_at_origin="ann", origin="back-office")
    await record(db, TODAY, id_at_origin="bob")
    await db.purge(TODAY - 30 * DAY)
    (before,) = await db.usage()

    assert await db.forget("ann", dry_run=True) == [Forgotten("back-office", 1, 0), Forgotten("shop", 3, 0)]
    assert await db.forget("ann") == [Forgotten("back-office", 1, 1), Forgotten("shop", 3, 3)]
    assert await db.forget("ann") == []
    rows = await db.usage(group_by="id_at_origin")
    assert [(row.key["id_at_origin"], row.cost) for row in rows] == [(None, Decimal("0.4")), ("bob", Decimal("0.1"))]
    assert await db.usage() == [before]


async def test_a_name_is_forgotten_at_one_origin(db: LLMDatabase) -> None:
    for origin in ("shop", "back-office"):
        await record(db, TODAY, id_at_origin="ann", origin=origin)
    assert await db.forget("ann", "shop") == [Forgotten("shop", 1, 1)]
    rows = await db.usage(group_by=("origin", "id_at_origin"))
    assert [tuple(row.key.values()) for row in rows] == [("back-office", "ann"), ("shop", None)]


class Slow(MemoryBackend):
    """Takes calls once it `takes` them, and says when it has been asked to; raises its `fault` if it has one."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.target = f"memory:{name}"
        self.asked, self.takes = asyncio.Event(), asyncio.Event()
        self.fault: StorageError | None = None

    async def record_calls(self, calls: Sequence[CallRecord]) -> RecordResult:
        self.asked.set()
        await self.takes.wait()
        if self.fault is not None:
            raise self.fault
        return await super().record_calls(calls)


async def users(db: LLMDatabase) -> dict[str | None, int]:
    return {row.key["id_at_origin"]: row.calls for row in await db.usage(group_by="id_at_origin")}


async def test_a_name_goes_from_calls_that_wait_in_the_spool_too(tmp_path: Path) -> None:
    backend = Slow("waiting")
    spool = Spool("memory:waiting", tmp_path)
    backend.takes.set()
    async with LLMDatabase(backend=backend, spool_dir=tmp_path) as db:
        await record(db, TODAY, id_at_origin="ann")
        backend.fault = StorageError("not now")
        while any(task.get_name() == "llmbridge-replay" for task in asyncio.all_tasks()):
            await asyncio.sleep(0.01)  # it would retry the call that is set aside below
        known = {"origin": "shop", "called_at": TODAY}
        spool.recognize((await backend.schema_status()).identity)
        spool.put([make_call(number, id_at_origin="ann", **known) for number in range(3)])
        spool.put([make_call(3, id_at_origin="ann", **{**known, "origin": "elsewhere"})])
        spool.put([make_call(4, id_at_origin="bob", **known)])
        spool.file.set_aside({1: "refused"})
        assert await db.forget("ann", dry_run=True) == [Forgotten("elsewhere", 1, 0), Forgotten("shop", 4, 0)]
        assert await db.forget("ann", "shop") == [Forgotten("shop", 4, 4)]
        assert await db.forget("ann") == [Forgotten("elsewhere", 1, 1)]
        assert await db.forget("ann") == []
        assert spool.counts() == SpoolCounts(waiting=4, set_aside=1)
    backend.fault = None
    assert spool.retry() == 1
    async with LLMDatabase(backend=backend, spool_dir=tmp_path) as db:
        async with asyncio.timeout(20):
            while spool.counts().waiting:
                await asyncio.sleep(0.01)
        assert await users(db) == {None: 5, "bob": 1}


async def test_a_name_stays_in_the_spool_of_a_database_that_cannot_be_opened(tmp_path: Path) -> None:
    backend = MemoryBackend()
    backend.target = "memory:closed"
    spool = Spool(backend.target, tmp_path)
    spool.put([make_call(id_at_origin="ann", origin="app")])
    db = LLMDatabase(backend=backend, spool_dir=tmp_path)
    await db.close()
    with pytest.raises(StorageClosedError):
        await db.forget("ann")
    assert spool.file.calls_of("ann") == {"app": 1}


async def test_calls_on_their_way_from_the_spool_arrive_before_a_name_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = Slow("way")
    async with MemoryBackend("way") as store:
        await store.apply_migrations()
    Spool("memory:way", tmp_path).put([make_call(id_at_origin="ann")])
    async with LLMDatabase(backend=backend, spool_dir=tmp_path) as db:
        await backend.asked.wait()
        monkeypatch.setattr(erase, "REPLAY_TIMEOUT", 0.0)
        with pytest.raises(StorageUnavailableError, match="has been replaying"):
            await db.forget("ann")
        monkeypatch.setattr(erase, "REPLAY_TIMEOUT", 60.0)
        forgetting = asyncio.create_task(db.forget("ann"))
        await asyncio.wait([forgetting], timeout=0.2)
        backend.takes.set()
        (forgotten,) = await forgetting
        assert forgotten.calls == 1
        assert await users(db) == {None: 1}


async def test_nobody_cannot_be_forgotten(db: LLMDatabase) -> None:
    with pytest.raises(RecordRejectedError, match="empty"):
        await db.forget("")


class Wrong(MemoryBackend):
    """Keeps totals of which two are wrong."""

    async def check_totals(self, repair: bool = False) -> TotalsReport:
        return TotalsReport(checked=10, wrong=2, repaired=2 if repair else 0)


async def test_totals_are_checked_and_repaired_by_the_store() -> None:
    async with LLMDatabase(backend=Wrong()) as db:
        assert await db.check_totals() == TotalsReport(10, 2, 0)
        assert await db.check_totals(repair=True) == TotalsReport(10, 2, 2)


class Unable(MemoryBackend):
    """A store that can only record and read."""

    async def purge_calls(self, before: datetime) -> int:
        raise UnsupportedOperationError("Unable cannot purge calls")


async def test_a_store_that_cannot_purge_says_so() -> None:
    async with LLMDatabase(backend=Unable()) as db:
        with pytest.raises(UnsupportedOperationError, match="cannot purge"):
            await db.purge(TODAY - 30 * DAY)


async def test_purged_detail_is_not_made_up(db: LLMDatabase) -> None:
    await record(db, TODAY - 40 * DAY, metadata={"team": "search"})
    await db.purge(TODAY - 30 * DAY, force=True)
    with pytest.raises(PurgedDetailError):
        await db.usage(tags={"team": "search"})


async def test_without_a_database_there_is_nothing_to_do() -> None:
    none = LLMDatabase()
    assert await none.purge(TODAY - 30 * DAY) == 0
    assert await none.forget("ann") == []
    assert await none.check_totals() == TotalsReport()
