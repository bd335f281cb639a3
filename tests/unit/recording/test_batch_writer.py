"""Callers are released when their call is committed, and share commits."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from llmbridge._recording import bounded_queue
from llmbridge._recording.batch_writer import BatchWriter
from llmbridge._recording.circuit_breaker import CircuitBreaker
from llmbridge._recording.metrics import Counters
from llmbridge._recording.rescue import Rescue
from llmbridge._shared.ids import new_id
from llmbridge.errors import (
    ConstraintError,
    RecordRejectedError,
    StorageClosedError,
    StorageError,
    StorageRefusedError,
    StorageUnavailableError,
)
from llmbridge.schemas import CallRecord, RecordStatus
from llmbridge.storage import MAX_BATCH, RecordResult


def call(origin: str = "app") -> CallRecord:
    return CallRecord(id=new_id(), origin=origin, provider="p", model_name="m", called_at=datetime.now(UTC))


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


async def in_hand(
    recorder: BatchWriter, store: Store, calls: Sequence[CallRecord]
) -> list[asyncio.Future[RecordStatus]]:
    """Those who wait for these calls, once the store has the first batch in hand."""
    waiting = [asyncio.ensure_future(recorder.record(c)) for c in calls]
    while not store.batches:
        await asyncio.sleep(0)
    return waiting


async def test_a_thousand_callers_at_once_share_few_commits() -> None:
    store = Store()
    recorder = BatchWriter(store.write, timeout=1)
    calls = [call() for _ in range(1000)]
    await asyncio.gather(*map(recorder.record, calls))
    assert store.stored == {c.id for c in calls}
    assert len(store.batches) <= 2


async def test_the_next_batch_forms_while_one_is_committed() -> None:
    store = Store()
    store.gate.clear()
    recorder = BatchWriter(store.write, timeout=1)
    (first,) = await in_hand(recorder, store, [call()])
    others = [asyncio.ensure_future(recorder.record(call())) for _ in range(20)]
    await asyncio.sleep(0)
    store.gate.set()
    await asyncio.gather(first, *others)
    assert [len(batch) for batch in store.batches] == [1, 20]


async def test_no_caller_is_released_before_its_commit() -> None:
    store = Store()
    store.gate.clear()
    recorder = BatchWriter(store.write, timeout=1)
    waiting = asyncio.ensure_future(recorder.record(call()))
    done, _ = await asyncio.wait([waiting], timeout=0.05)
    assert not done
    store.gate.set()
    await waiting


async def test_a_batch_never_exceeds_what_a_store_takes() -> None:
    store = Store()
    recorder = BatchWriter(store.write, timeout=1)
    await asyncio.gather(*(recorder.record(call()) for _ in range(MAX_BATCH + 1)))
    assert max(map(len, store.batches)) == MAX_BATCH


async def test_a_cancelled_caller_leaves_its_call_and_the_others_alone() -> None:
    store = Store()
    store.gate.clear()
    recorder = BatchWriter(store.write, timeout=1)
    calls = [call() for _ in range(3)]
    tasks = await in_hand(recorder, store, calls)
    tasks[1].cancel()
    store.gate.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(r) for r in results] == [str, asyncio.CancelledError, str]
    await recorder.close()
    assert store.stored == {c.id for c in calls}


async def test_only_the_callers_of_rejected_calls_fail() -> None:
    store = Store()
    recorder = BatchWriter(store.write, timeout=1)
    calls = [call("poison" if n in (3, 57) else "app") for n in range(100)]
    results = await asyncio.gather(*map(recorder.record, calls), return_exceptions=True)
    assert [n for n, r in enumerate(results) if isinstance(r, RecordRejectedError)] == [3, 57]
    assert [n for n, r in enumerate(results) if r != "committed"] == [3, 57]
    assert len(store.stored) == 98


async def test_a_call_before_the_watermark_fails_alone() -> None:
    store = Store()
    recorder = BatchWriter(store.write, timeout=1)
    results = await asyncio.gather(recorder.record(call("late")), recorder.record(call()), return_exceptions=True)
    assert isinstance(results[0], RecordRejectedError)
    assert results[1] == "committed"


async def test_an_error_that_may_pass_is_retried_with_the_same_ids() -> None:
    store = Store(failures=2)
    recorder = BatchWriter(store.write, timeout=5)
    await recorder.record(call())
    assert len(store.batches) == 3
    assert store.batches[0] == store.batches[1] == store.batches[2]


async def test_a_call_is_not_retried_after_its_timeout() -> None:
    store = Store(failures=10**6)
    recorder = BatchWriter(store.write, timeout=0.1)
    with pytest.raises(StorageUnavailableError):
        await recorder.record(call())
    store.failures = 0
    await recorder.record(call())


async def test_a_foreign_exception_becomes_a_storage_error() -> None:
    store = Store(failures=1)
    store.error = ZeroDivisionError("secret")
    recorder = BatchWriter(store.write, timeout=1)
    with pytest.raises(StorageError) as failed:
        await recorder.record(call())
    assert isinstance(failed.value.__cause__, ZeroDivisionError)
    await recorder.record(call())


async def test_callers_beyond_the_bound_wait_for_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded_queue, "MAX_PENDING", 5)
    store = Store()
    recorder = BatchWriter(store.write, timeout=1)
    await asyncio.gather(*(recorder.record(call()) for _ in range(50)))
    assert len(store.stored) == 50
    assert max(map(len, store.batches)) <= 5


async def test_a_caller_cancelled_while_it_waits_for_room_leaves_its_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded_queue, "MAX_PENDING", 1)
    store = Store()
    store.gate.clear()
    recorder = BatchWriter(store.write, timeout=20)
    calls = [call() for _ in range(4)]
    tasks = await in_hand(recorder, store, calls)
    tasks[3].cancel()
    store.gate.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(r) for r in results] == [str, str, str, asyncio.CancelledError]
    await recorder.close()
    assert store.stored == {c.id for c in calls}


async def test_close_writes_pending_calls_and_accepts_no_more() -> None:
    store = Store()
    store.gate.clear()
    recorder = BatchWriter(store.write, timeout=1)
    tasks = await in_hand(recorder, store, [call() for _ in range(10)])
    closing = asyncio.create_task(recorder.close())
    await asyncio.sleep(0)
    with pytest.raises(StorageClosedError):
        await recorder.record(call())
    store.gate.set()
    await asyncio.gather(closing, *tasks)
    assert len(store.stored) == 10


async def test_a_stopped_writer_fails_all_waiting_callers() -> None:
    store = Store()
    store.gate.clear()
    recorder = BatchWriter(store.write, timeout=1)
    tasks = await in_hand(recorder, store, [call() for _ in range(2)])
    (writer,) = [task for task in asyncio.all_tasks() if task.get_name() == "llmbridge-batch-writer"]
    writer.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(r, StorageUnavailableError) for r in results)


async def test_closing_ends_the_retries() -> None:
    store = Store(failures=10**6)
    recorder = BatchWriter(store.write, timeout=3600)
    (waiting,) = await in_hand(recorder, store, [call()])
    await recorder.close()
    with pytest.raises(StorageUnavailableError):
        await waiting


async def test_closing_accepts_callers_that_wait_for_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded_queue, "MAX_PENDING", 1)
    store = Store()
    store.gate.clear()
    recorder = BatchWriter(store.write, timeout=1)
    tasks = await in_hand(recorder, store, [call() for _ in range(4)])
    closing = asyncio.create_task(recorder.close())
    await asyncio.sleep(0)
    store.gate.set()
    assert await asyncio.gather(*tasks) == ["committed"] * 4
    await closing


async def test_closing_without_time_hands_over_callers_that_wait_for_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded_queue, "MAX_PENDING", 1)
    store, other = Store(), Store()
    store.gate.clear()
    fallback = BatchWriter(other.write, timeout=20, outcome="spooled")
    recorder = BatchWriter(store.write, timeout=20, fallback=fallback)
    tasks = await in_hand(recorder, store, [call() for _ in range(4)])
    await recorder.close(timeout=0)
    await fallback.close()
    assert await asyncio.gather(*tasks) == ["spooled"] * 4
    assert len(other.stored) == 4


async def test_closing_waits_for_a_caller_that_is_about_to_enqueue_its_call(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bounded_queue, "MAX_PENDING", 1)
    store = Store()
    store.gate.clear()
    recorder = BatchWriter(store.write, timeout=20)
    tasks = await in_hand(recorder, store, [call() for _ in range(3)])
    store.gate.set()  # the writer goes on, and ends, in the turn of the event loop in which the closing begins
    await asyncio.create_task(recorder.close(timeout=20))
    assert len(store.stored) == 3
    assert await asyncio.gather(*tasks) == ["committed"] * 3


async def test_closing_a_slow_store_is_no_outage() -> None:
    store, log = Store(), Log()
    store.gate.clear()
    recorder = BatchWriter(store.write, timeout=20, breaker=log)
    (waiting,) = await in_hand(recorder, store, [call()])
    await recorder.close(timeout=0)
    with pytest.raises(StorageUnavailableError):
        await waiting
    assert log.told == []


async def test_a_call_counts_by_the_outcome_that_its_caller_got() -> None:
    store, counters = Store(), Counters()
    store.gate.clear()
    recorder = BatchWriter(store.write, timeout=0.05, counters=counters)
    with pytest.raises(StorageUnavailableError):
        await recorder.record(call())
    store.gate.set()
    await recorder.close()
    assert len(store.stored) == 1
    assert (counters.calls_lost, counters.calls_committed) == (1, 0)


async def test_a_call_whose_caller_was_cancelled_counts_once(caplog: pytest.LogCaptureFixture) -> None:
    store, counters = Store(), Counters()
    store.gate.clear()
    recorder = BatchWriter(store.write, timeout=0.02, counters=counters)
    (leaving,) = await in_hand(recorder, store, [call()])
    leaving.cancel()
    for _ in range(3):
        with pytest.raises(StorageUnavailableError):
            await recorder.record(call())
    assert (counters.calls_lost, counters.calls_committed) == (3, 0)
    assert "whose callers were cancelled" not in caplog.text
    store.gate.set()
    await recorder.close()
    assert (counters.calls_lost, counters.calls_committed) == (3, 1)


def test_timeouts_count_by_the_clock_of_the_running_event_loop() -> None:
    hangs = False

    async def write(calls: Sequence[CallRecord]) -> RecordResult:
        await asyncio.sleep(60 if hangs else 0)
        return RecordResult(len(calls), 0)

    recorder = BatchWriter(write, timeout=0.05)

    async def record() -> object:
        async with asyncio.timeout(20):
            return await recorder.record(call())

    assert asyncio.run(record()) == "committed"
    hangs = True
    with pytest.raises(StorageUnavailableError):
        asyncio.run(record())


async def test_calls_that_a_store_names_are_not_searched_for() -> None:
    poison = call()
    store = Store(failures=1)
    store.error = RecordRejectedError("poison", ids=(poison.id,))
    recorder = BatchWriter(store.write, timeout=1)
    calls = [call(), poison, call()]
    results = await asyncio.gather(*map(recorder.record, calls), return_exceptions=True)
    assert [type(result) for result in results] == [str, RecordRejectedError, str]
    assert len(store.batches) == 2


async def test_calls_that_are_not_confirmed_before_the_closing_fail() -> None:
    store = Store()
    store.gate.clear()
    counters = Counters()
    recorder = BatchWriter(store.write, timeout=60, counters=counters)
    tasks = await in_hand(recorder, store, [call() for _ in range(3)])
    await recorder.close(timeout=0.01)
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(result, StorageUnavailableError) for result in results)
    assert counters.calls_lost == 3


async def test_a_caller_waits_for_a_backend_that_hangs_no_longer_than_the_timeout() -> None:
    store = Store()
    store.gate.clear()
    recorder = BatchWriter(store.write, timeout=0.05)
    late = call()
    with pytest.raises(StorageUnavailableError, match="may still be written"):
        await recorder.record(late)
    store.gate.set()
    await recorder.record(call())
    assert late.id in store.stored


async def test_the_time_for_which_the_event_loop_is_blocked_does_not_count() -> None:
    store = Store()

    async def write(calls: Sequence[CallRecord]) -> RecordResult:
        result = await store.write(calls)
        for _ in range(10):  # as many steps as from a thread to a caller
            await asyncio.sleep(0)
        return result

    recorder = BatchWriter(write, timeout=0.05)
    waiting = await in_hand(recorder, store, [call() for _ in range(3)])
    time.sleep(0.3)
    assert await asyncio.gather(*waiting) == ["committed"] * 3
    await recorder.close()


class Shelf:
    """Where calls go that a store does not take."""

    def __init__(self) -> None:
        self.kept: list[CallRecord] = []
        self.error: StorageError | None = None

    async def write(self, calls: Sequence[CallRecord]) -> RecordResult:
        self.put(calls)
        return RecordResult(len(calls), 0)

    def put(self, calls: Sequence[CallRecord]) -> None:
        if self.error is not None:
            raise self.error
        self.kept += calls

    def recorder(self, store: Store, timeout: float = 0.05, **options: Any) -> BatchWriter:
        spooler = BatchWriter(self.write, timeout=timeout, outcome="spooled", retries=False)
        return BatchWriter(store.write, timeout=timeout, fallback=spooler, rescue=Rescue(self.put), **options)


class Log(CircuitBreaker):
    """A circuit breaker that notes when it opens and closes."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[str] = []
        self.over = asyncio.Event()

    def trip(self, error: StorageError) -> None:
        if not self.is_open:
            self.told.append(str(error))
        super().trip(error)

    def reset(self) -> bool:
        was_open = super().reset()
        if was_open:
            self.told.append("back")
            self.over.set()
        return was_open


async def test_calls_of_an_outage_go_to_the_fallback_at_once_until_it_is_over() -> None:
    store, shelf, log = Store(failures=10**6), Shelf(), Log()
    recorder = shelf.recorder(store, timeout=3600, breaker=log)
    store.error = StorageRefusedError("not mended by waiting")
    first, second = call(), call()
    assert await recorder.record(first) == "spooled"
    assert await recorder.record(second) == "spooled"
    assert shelf.kept == [first, second]
    store.failures = 0
    await log.over.wait()
    assert await recorder.record(call()) == "committed"
    assert log.told == ["not mended by waiting", "back"]
    assert store.batches[-2] == [first]
    await recorder.close()


async def test_a_call_whose_commit_is_not_confirmed_goes_to_the_fallback_too() -> None:
    store, shelf, log = Store(), Shelf(), Log()
    store.gate.clear()
    recorder = shelf.recorder(store, breaker=log)
    slow = call()
    assert await recorder.record(slow) == "spooled"
    store.gate.set()
    await log.over.wait()
    assert slow.id in store.stored
    assert shelf.kept == [slow]
    await recorder.close()


async def test_without_a_fallback_a_call_waits_for_its_destination() -> None:
    store, shelf = Store(failures=10**6), Shelf()
    shelf.error = StorageUnavailableError("the disk is full")
    recorder = shelf.recorder(store, timeout=0.5)
    for _ in range(2):
        with pytest.raises(StorageUnavailableError, match="disk is full"):
            await recorder.record(call())
    store.failures = 1
    assert await recorder.record(call()) == "committed"
    await recorder.close()


async def test_closing_hands_the_batch_of_a_destination_that_hangs_to_the_fallback() -> None:
    store, shelf = Store(), Shelf()
    store.gate.clear()
    recorder = shelf.recorder(store, timeout=3600)
    calls = [call() for _ in range(5)]
    tasks = await in_hand(recorder, store, calls)
    await recorder.close(timeout=0.01)
    assert await asyncio.gather(*tasks) == ["spooled"] * 5
    assert shelf.kept == calls


async def test_a_stopped_writer_rescues_its_batch() -> None:
    store, shelf = Store(), Shelf()
    store.gate.clear()
    recorder = shelf.recorder(store, timeout=3600)
    calls = [call() for _ in range(5)]
    tasks = await in_hand(recorder, store, calls)
    (writer,) = [task for task in asyncio.all_tasks() if task.get_name() == "llmbridge-batch-writer"]
    writer.cancel()
    assert await asyncio.gather(*tasks) == ["spooled"] * 5
    assert shelf.kept == calls
    store.gate.set()
    assert await recorder.record(call()) == "committed"


async def test_the_loss_of_a_call_whose_caller_was_cancelled_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    store, counters = Store(failures=10**6), Counters()
    recorder = BatchWriter(store.write, timeout=60, counters=counters)
    (leaving,) = await in_hand(recorder, store, [call()])
    leaving.cancel()
    await recorder.close(timeout=0)
    assert counters.calls_lost == 1
    assert "1 calls whose callers were cancelled" in caplog.text


async def test_callers_beyond_the_bound_of_bytes_wait_for_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded_queue, "MAX_PENDING_BYTES", 30_000)
    monkeypatch.setattr(bounded_queue, "UNCOUNTED", 0)
    store = Store()
    recorder = BatchWriter(store.write, timeout=5)
    large = [call().model_copy(update={"metadata": {"text": "x" * 8000}}) for _ in range(20)]
    await asyncio.gather(*map(recorder.record, large))
    assert len(store.stored) == 20
    assert max(map(len, store.batches)) <= 3


async def test_a_caller_does_not_wait_for_room_longer_than_the_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded_queue, "MAX_PENDING", 1)
    store = Store()
    store.gate.clear()
    recorder = BatchWriter(store.write, timeout=0.05)
    results = await asyncio.gather(*(recorder.record(call()) for _ in range(5)), return_exceptions=True)
    assert all(isinstance(result, StorageUnavailableError) for result in results)
    store.gate.set()
    await recorder.close()


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks came with Python 3.12")
async def test_an_eager_task_writes_each_batch_once_and_goes_on_after_a_failure() -> None:
    """A destination that does not wait lets the task end, or fail, inside `create_task`."""
    asyncio.get_running_loop().set_task_factory(getattr(asyncio, "eager_task_factory"))  # noqa: B009
    store, shelf = Store(), Shelf()
    store.failures = 1
    store.error = StorageRefusedError("no rights for a moment")
    recorder = shelf.recorder(store, timeout=60)
    names = lambda: [task.get_name() for task in asyncio.all_tasks()]  # noqa: E731
    assert await recorder.record(call()) == "spooled"
    assert names().count("llmbridge-batch-writer") == 1
    while recorder.is_away:
        await asyncio.sleep(0.01)
    later = [call() for _ in range(5)]
    assert [await recorder.record(one) for one in later] == ["committed"] * 5
    assert store.stored >= {one.id for one in later}
    assert "llmbridge-batch-writer" not in names()
    await recorder.close()


class Picky(Store):
    """A store that raises `reason` for any batch with a hostile call."""

    def __init__(self, reason: Exception) -> None:
        super().__init__()
        self.reason = reason

    async def write(self, calls: Sequence[CallRecord]) -> RecordResult:
        if any(one.origin == "hostile" for one in calls):
            raise self.reason
        return await super().write(calls)


REASONS = [ZeroDivisionError("7 / 0"), RecursionError(), StorageError("unknown"), ConstraintError("CHECK of calls")]


@pytest.mark.parametrize("reason", REASONS, ids=repr)
async def test_a_call_that_fails_for_a_reason_of_its_own_harms_no_other_call(reason: Exception) -> None:
    store, shelf, log = Picky(reason), Shelf(), Log()
    recorder = shelf.recorder(store, timeout=3600, breaker=log)
    calls = [call("hostile" if number in (3, 57, 58) else "app") for number in range(100)]
    outcomes = await asyncio.gather(*map(recorder.record, calls))
    assert [number for number, outcome in enumerate(outcomes) if outcome == "spooled"] == [3, 57, 58]
    assert outcomes.count("committed") == 97
    assert len(store.stored) == 97
    assert log.told == []
    await recorder.close()


async def test_calls_that_a_constraint_refuses_are_found_by_their_names() -> None:
    hostile = [call() for _ in range(50)]
    refused = ConstraintError("CHECK of calls", ids=tuple(one.id for one in hostile))
    store, shelf, log = Store(failures=1), Shelf(), Log()
    store.error = refused
    recorder = shelf.recorder(store, timeout=3600, breaker=log)
    good = [call() for _ in range(50)]
    outcomes = await asyncio.gather(*map(recorder.record, [*hostile, *good]))
    assert outcomes == ["spooled"] * 50 + ["committed"] * 50
    assert len(store.batches) == 2
    await recorder.close()


async def test_calls_that_fail_one_after_the_other_are_an_outage_unless_a_constraint_refuses_them() -> None:
    for reason, told in ((StorageError("unknown"), ["unknown", "back"]), (ConstraintError("CHECK of calls"), [])):
        store, shelf, log = Picky(reason), Shelf(), Log()
        recorder = shelf.recorder(store, timeout=3600, breaker=log)
        outcomes = await asyncio.gather(*(recorder.record(call("hostile")) for _ in range(20)))
        assert outcomes == ["spooled"] * 20
        if told:  # the next probes ask only whether the store answers
            await log.over.wait()
        assert log.told == told
        assert await recorder.record(call()) == "committed"
        await recorder.close()


async def test_a_caller_that_finds_no_room_in_time_has_its_call_spooled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded_queue, "MAX_PENDING", 1)
    store, shelf = Store(), Shelf()
    store.gate.clear()
    counters = Counters()
    recorder = shelf.recorder(store, timeout=0.2, counters=counters)
    outcomes = await asyncio.gather(*(recorder.record(call()) for _ in range(50)))
    assert outcomes == ["spooled"] * 50
    assert len({one.id for one in shelf.kept}) == 50
    assert counters.calls_lost == 0
    store.gate.set()
    await recorder.close()


async def test_a_stopped_writer_rescues_each_call_by_itself() -> None:
    store, shelf, saved = Store(), Shelf(), []

    def save(calls: Sequence[CallRecord]) -> None:
        if any(one.origin == "hostile" for one in calls):
            raise RecordRejectedError("it cannot be written as JSON")
        saved.extend(calls)

    store.gate.clear()
    recorder = BatchWriter(store.write, timeout=3600, rescue=Rescue(save))
    calls = [call("hostile" if number == 2 else "app") for number in range(5)]
    tasks = await in_hand(recorder, store, calls)
    (writer,) = [task for task in asyncio.all_tasks() if task.get_name() == "llmbridge-batch-writer"]
    writer.cancel()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert [outcome for outcome in outcomes if outcome == "spooled"] == ["spooled"] * 4
    assert isinstance(outcomes[2], StorageUnavailableError)
    assert saved == [one for one in calls if one.origin == "app"]
    assert shelf.kept == []
