"""Many calls are recorded in batches, at the speed of the database, and each call fails individually."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from llmbridge import LLMDatabase, reports
from llmbridge.errors import (
    ConstraintError,
    RecordRejectedError,
    StorageClosedError,
    StorageError,
    StorageUnavailableError,
)
from llmbridge.schemas import CallRecord
from llmbridge.storage import RecordResult
from llmbridge.storage.memory import MemoryBackend
from llmbridge.testing import make_call


class Watched(MemoryBackend):
    """Notes the size of each batch, and fails as it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []
        self.error: Exception | None = None
        self.failures = 0
        self.hostile: frozenset[Any] = frozenset()
        self.names_them = True

    async def record_calls(self, calls: Sequence[CallRecord]) -> RecordResult:
        await asyncio.sleep(0)
        self.sizes.append(len(calls))
        if self.failures:
            self.failures -= 1
            raise StorageUnavailableError("away")
        bad = tuple(call.id for call in calls if call.id in self.hostile)
        if bad and self.error is not None:
            if self.names_them and hasattr(self.error, "ids"):
                self.error.ids = bad
            raise self.error
        return await super().record_calls(calls)


@pytest.fixture
def store() -> Watched:
    return Watched()


@pytest.fixture
async def db(store: Watched) -> AsyncIterator[LLMDatabase]:
    async with LLMDatabase(backend=store, record_timeout=1) as opened:
        yield opened


def fields(number: int) -> dict[str, Any]:
    return make_call(number).model_dump()


async def test_calls_are_stored_in_batches_and_progress_is_told(db: LLMDatabase, store: Watched) -> None:
    told: list[reports.RecordReport] = []
    report = await db.record_api_calls((fields(number) for number in range(2_500)), progress=told.append)
    assert report == reports.RecordReport(committed=2_500)
    assert store.sizes == [1_000, 1_000, 500]
    assert [step.committed for step in told] == [1_000, 2_000, 2_500]
    assert (await db.usage())[0].calls == 2_500
    assert db.metrics()["calls_committed"] == 2_500


async def test_records_and_async_iterables_are_taken(db: LLMDatabase) -> None:
    async def calls() -> AsyncIterator[CallRecord]:
        for number in range(30):
            await asyncio.sleep(0)
            yield make_call(number)

    assert (await db.record_api_calls(calls(), batch=7)).committed == 30
    assert await db.get_call_record(make_call(29).id) == make_call(29)


async def test_it_reads_no_faster_than_the_database_writes(db: LLMDatabase, store: Watched) -> None:
    most = read = 0

    def calls() -> Iterator[dict[str, Any]]:
        nonlocal most, read
        for number in range(1_000):
            read += 1
            most = max(most, read - sum(store.sizes))
            yield fields(number)

    await db.record_api_calls(calls(), batch=10)
    assert most <= 30


async def test_a_call_counts_once_however_often_it_is_given(db: LLMDatabase) -> None:
    calls = [fields(number) for number in range(100)]
    await db.record_api_calls(calls[:60])
    report = await db.record_api_calls([*calls, *calls], batch=50)
    assert (report.committed, report.duplicates, report.rejected) == (40, 160, 0)
    assert (await db.usage())[0].calls == 100


@pytest.mark.parametrize("names_them", [True, False])
@pytest.mark.parametrize("kind", [RecordRejectedError, ConstraintError])
async def test_calls_that_cannot_be_stored_are_reported_and_the_others_stored(
    db: LLMDatabase, store: Watched, kind: type[StorageError], names_them: bool
) -> None:
    store.error, store.names_them = kind("it is refused"), names_them
    store.hostile = frozenset(make_call(number).id for number in (3, 57, 58))
    calls = [fields(number) for number in range(100)]
    calls[20]["metadata"] = {"a": object()}
    report = await db.record_api_calls(calls, batch=50)
    assert (report.committed, report.rejected) == (96, 4)
    assert sorted(rejection.position for rejection in report.rejections) == [3, 20, 57, 58]
    assert db.metrics()["calls_rejected"] == 4


async def test_calls_of_purged_days_are_reported(db: LLMDatabase, store: Watched) -> None:
    await db.usage()
    await store.purge_calls(make_call(0).called_at.replace(year=2099, month=1, day=1, hour=0, minute=0, second=0))
    report = await db.record_api_calls([fields(1)])
    assert (report.committed, report.rejected) == (0, 1)
    assert "purged" in report.rejections[0].reason


async def test_a_database_that_comes_back_is_waited_for(db: LLMDatabase, store: Watched) -> None:
    store.failures = 2
    assert (await db.record_api_calls([fields(number) for number in range(5)])).committed == 5
    assert store.sizes == [5, 5, 5]


async def test_a_database_that_stays_away_is_an_error_and_what_was_stored_stays(
    db: LLMDatabase, store: Watched
) -> None:
    def calls() -> Iterator[dict[str, Any]]:
        for number in range(30):
            if number == 20:
                store.failures = 10**6
            yield fields(number)

    with pytest.raises(StorageUnavailableError):
        await db.record_api_calls(calls(), batch=5)
    store.failures = 0
    report = await db.record_api_calls([fields(number) for number in range(30)])
    assert report.committed + report.duplicates == 30
    assert report.duplicates >= 10
    assert (await db.usage())[0].calls == 30


async def test_wrong_use_is_told(db: LLMDatabase) -> None:
    with pytest.raises(ValueError, match="from 1 to 1000"):
        await db.record_api_calls([], batch=1_001)
    with pytest.raises(TypeError, match="not int"):
        await db.record_api_calls([7])  # type: ignore[list-item]
    with pytest.raises(TypeError, match="colour"):
        await db.record_api_calls([{**fields(1), "colour": "red"}])
    assert await db.record_api_calls([]) == reports.RecordReport()
    await db.close()
    with pytest.raises(StorageClosedError):
        await db.record_api_calls([fields(1)])


async def test_who_is_cancelled_leaves_no_batch_behind(db: LLMDatabase) -> None:
    async def calls() -> AsyncIterator[dict[str, Any]]:
        for number in range(10):
            yield fields(number)
        await asyncio.Event().wait()

    recording = asyncio.create_task(db.record_api_calls(calls(), batch=5))
    await asyncio.sleep(0.05)
    recording.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await recording
    assert not [task for task in asyncio.all_tasks() if task.get_name() == "llmbridge-bulk"]
    assert (await db.record_api_calls(fields(number) for number in range(10))).rejected == 0


async def test_without_a_database_nothing_is_read() -> None:
    db = LLMDatabase()
    assert await db.record_api_calls(iter([7])) == reports.RecordReport()  # type: ignore[list-item]


async def test_it_is_recorded_in_a_file_too(tmp_path: Path) -> None:
    async with LLMDatabase(f"sqlite:///{tmp_path}/calls.db") as db:
        report = await db.record_api_calls(fields(number) for number in range(2_100))
        assert report.committed == 2_100
        assert (await db.usage())[0].calls == 2_100
