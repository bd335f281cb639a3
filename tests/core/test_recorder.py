"""Callers are released by the commit of their call, and share commits."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime

import pytest

from llmbridge import recorder as recorder_module
from llmbridge.errors import RecordRejectedError, StorageClosedError, StorageError, StorageUnavailableError
from llmbridge.recorder import Recorder
from llmbridge.records import build, new_id
from llmbridge.schemas import CallRecord
from llmbridge.storage import MAX_BATCH, RecordResult


def call(origin: str = "app") -> CallRecord:
    return build({"id": new_id(), "origin": origin, "provider": "p", "model_name": "m", "called_at": datetime.now(UTC)})


class Store:
    """A store that commits when told to, rejects poison, and fails as often as asked."""

    def __init__(self, failures: int = 0) -> None:
        self.batches: list[list[CallRecord]] = []
        self.stored: set[object] = set()
        self.gate = asyncio.Event()
        self.gate.set()
        self.failures = failures
        self.error: BaseException = StorageUnavailableError("away")

    async def write(self, calls: Sequence[CallRecord]) -> RecordResult:
        self.batches.append(list(calls))
        await self.gate.wait()
        if self.failures:
            self.failures -= 1
            raise self.error
        if any(c.origin == "poison" for c in calls):
            raise RecordRejectedError("poison")
        self.stored |= {c.id for c in calls if c.origin != "late"}
        return RecordResult(len(calls), 0, tuple(c.id for c in calls if c.origin == "late"))


async def test_a_thousand_callers_at_once_share_few_commits() -> None:
    store = Store()
    recorder = Recorder(store.write, patience=1)
    calls = [call() for _ in range(1000)]
    await asyncio.gather(*map(recorder.record, calls))
    assert store.stored == {c.id for c in calls}
    assert len(store.batches) <= 2


async def test_the_next_batch_forms_while_one_is_committed() -> None:
    store = Store()
    store.gate.clear()
    recorder = Recorder(store.write, patience=1)
    first = asyncio.create_task(recorder.record(call()))
    while not store.batches:
        await asyncio.sleep(0)
    others = [asyncio.create_task(recorder.record(call())) for _ in range(20)]
    await asyncio.sleep(0)
    store.gate.set()
    await asyncio.gather(first, *others)
    assert [len(batch) for batch in store.batches] == [1, 20]


async def test_no_caller_is_released_before_its_commit() -> None:
    store = Store()
    store.gate.clear()
    recorder = Recorder(store.write, patience=1)
    waiting = asyncio.create_task(recorder.record(call()))
    done, _ = await asyncio.wait([waiting], timeout=0.05)
    assert not done
    store.gate.set()
    await waiting


async def test_a_batch_never_exceeds_what_a_store_takes() -> None:
    store = Store()
    recorder = Recorder(store.write, patience=1)
    await asyncio.gather(*(recorder.record(call()) for _ in range(MAX_BATCH + 1)))
    assert max(map(len, store.batches)) == MAX_BATCH


async def test_a_cancelled_caller_leaves_its_call_and_the_others_alone() -> None:
    store = Store()
    store.gate.clear()
    recorder = Recorder(store.write, patience=1)
    calls = [call() for _ in range(3)]
    tasks = [asyncio.create_task(recorder.record(c)) for c in calls]
    while not store.batches:
        await asyncio.sleep(0)
    tasks[1].cancel()
    store.gate.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(r) for r in results] == [type(None), asyncio.CancelledError, type(None)]
    await recorder.close()
    assert store.stored == {c.id for c in calls}


async def test_only_the_callers_of_rejected_calls_fail() -> None:
    store = Store()
    recorder = Recorder(store.write, patience=1)
    calls = [call("poison" if n in (3, 57) else "app") for n in range(100)]
    results = await asyncio.gather(*map(recorder.record, calls), return_exceptions=True)
    assert [n for n, r in enumerate(results) if isinstance(r, RecordRejectedError)] == [3, 57]
    assert [n for n, r in enumerate(results) if r is not None] == [3, 57]
    assert len(store.stored) == 98


async def test_a_call_before_the_watermark_fails_alone() -> None:
    store = Store()
    recorder = Recorder(store.write, patience=1)
    results = await asyncio.gather(recorder.record(call("late")), recorder.record(call()), return_exceptions=True)
    assert isinstance(results[0], RecordRejectedError)
    assert results[1] is None


async def test_what_could_succeed_later_is_tried_again_with_the_same_ids() -> None:
    store = Store(failures=2)
    recorder = Recorder(store.write, patience=5)
    await recorder.record(call())
    assert len(store.batches) == 3
    assert store.batches[0] == store.batches[1] == store.batches[2]


async def test_patience_ends() -> None:
    store = Store(failures=10**6)
    recorder = Recorder(store.write, patience=0.1)
    with pytest.raises(StorageUnavailableError, match="away"):
        await recorder.record(call())
    store.failures = 0
    await recorder.record(call())


async def test_a_foreign_exception_becomes_a_storage_error() -> None:
    store = Store(failures=1)
    store.error = ZeroDivisionError("secret")
    recorder = Recorder(store.write, patience=1)
    with pytest.raises(StorageError) as failed:
        await recorder.record(call())
    assert isinstance(failed.value.__cause__, ZeroDivisionError)
    await recorder.record(call())


async def test_callers_beyond_the_bound_wait_for_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder_module, "MAX_PENDING", 5)
    store = Store()
    recorder = Recorder(store.write, patience=1)
    await asyncio.gather(*(recorder.record(call()) for _ in range(50)))
    assert len(store.stored) == 50
    assert max(map(len, store.batches)) <= 5


async def test_close_writes_what_waits_and_takes_no_more() -> None:
    store = Store()
    store.gate.clear()
    recorder = Recorder(store.write, patience=1)
    tasks = [asyncio.create_task(recorder.record(call())) for _ in range(10)]
    while not store.batches:
        await asyncio.sleep(0)
    closing = asyncio.create_task(recorder.close())
    await asyncio.sleep(0)
    with pytest.raises(StorageClosedError):
        await recorder.record(call())
    store.gate.set()
    await asyncio.gather(closing, *tasks)
    assert len(store.stored) == 10


async def test_a_stopped_writer_tells_everyone_who_waits() -> None:
    store = Store()
    store.gate.clear()
    recorder = Recorder(store.write, patience=1)
    tasks = [asyncio.create_task(recorder.record(call())) for _ in range(2)]
    while not store.batches:
        await asyncio.sleep(0)
    (writer,) = [task for task in asyncio.all_tasks() if task.get_name() == "llmbridge-recorder"]
    writer.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(r, StorageUnavailableError) for r in results)


async def test_closing_ends_the_retries() -> None:
    store = Store(failures=10**6)
    recorder = Recorder(store.write, patience=3600)
    waiting = asyncio.create_task(recorder.record(call()))
    while not store.batches:
        await asyncio.sleep(0)
    await recorder.close()
    with pytest.raises(StorageUnavailableError):
        await waiting


async def test_closing_tells_callers_that_wait_for_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder_module, "MAX_PENDING", 1)
    store = Store()
    store.gate.clear()
    recorder = Recorder(store.write, patience=1)
    tasks = [asyncio.create_task(recorder.record(call())) for _ in range(4)]
    while not store.batches:
        await asyncio.sleep(0)
    closing = asyncio.create_task(recorder.close())
    await asyncio.sleep(0)
    store.gate.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    await closing
    assert results[0] is None
    assert any(isinstance(result, StorageClosedError) for result in results)


async def test_calls_that_a_store_names_are_not_searched_for() -> None:
    poison = call()
    store = Store(failures=1)
    store.error = RecordRejectedError("poison", ids=(poison.id,))
    recorder = Recorder(store.write, patience=1)
    calls = [call(), poison, call()]
    results = await asyncio.gather(*map(recorder.record, calls), return_exceptions=True)
    assert [type(result) for result in results] == [type(None), RecordRejectedError, type(None)]
    assert len(store.batches) == 2


async def test_what_is_abandoned_is_counted_and_told() -> None:
    store = Store()
    store.gate.clear()
    recorder = Recorder(store.write, patience=1)
    tasks = [asyncio.create_task(recorder.record(call())) for _ in range(3)]
    while not store.batches:
        await asyncio.sleep(0)
    assert recorder.abandon() == 3
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(result, StorageUnavailableError) for result in results)


async def test_a_caller_waits_no_longer_than_until_its_deadline_and_leaves_its_call() -> None:
    store = Store()
    store.gate.clear()
    recorder = Recorder(store.write, patience=60)
    loop = asyncio.get_running_loop()
    calls = [call() for _ in range(3)]
    patient = asyncio.create_task(recorder.record(calls[0], loop.time() + 3600))
    while not store.batches:
        await asyncio.sleep(0)
    hasty = [asyncio.create_task(recorder.record(c, loop.time() + 0.01)) for c in calls[1:]]
    for task in hasty:
        with pytest.raises(TimeoutError):
            await task
    assert not patient.done()
    store.gate.set()
    await patient
    await recorder.close()
    assert store.stored == {c.id for c in calls}


async def test_one_deadline_after_the_other_is_kept() -> None:
    store = Store()
    store.gate.clear()
    recorder = Recorder(store.write, patience=60)
    now = asyncio.get_running_loop().time()
    told: list[int] = []

    async def wait(number: int) -> None:
        with pytest.raises(TimeoutError):
            await recorder.record(call(), now + number / 100)
        told.append(number)

    await asyncio.gather(*map(wait, (3, 1, 2)))
    assert told == [1, 2, 3]
    store.gate.set()
    await recorder.close()


async def test_a_deadline_ends_the_waiting_for_room_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder_module, "MAX_PENDING", 1)
    store = Store()
    store.gate.clear()
    recorder = Recorder(store.write, patience=60)
    tasks = [asyncio.create_task(recorder.record(call())) for _ in range(2)]
    while not store.batches:
        await asyncio.sleep(0)
    with pytest.raises(TimeoutError):
        await recorder.record(call(), asyncio.get_running_loop().time() + 0.01)
    store.gate.set()
    await asyncio.gather(*tasks)
    assert len(store.stored) == 2
