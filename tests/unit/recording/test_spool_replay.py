"""The replay starts when a call is spooled, and ends when no calls are left or the database is closed."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import pytest

from llmbridge._recording.circuit_breaker import CircuitBreaker
from llmbridge._recording.metrics import Counters
from llmbridge._recording.spool import Spool
from llmbridge._recording.spool_replay import SpoolReplay, exclusive
from llmbridge.errors import ConstraintError
from llmbridge.schemas import CallRecord
from llmbridge.storage import RecordResult
from llmbridge.testing import make_call


class Store:
    """Remembers what it was given."""

    def __init__(self) -> None:
        self.taken: list[CallRecord] = []

    async def write(self, calls: Sequence[CallRecord]) -> RecordResult:
        self.taken += calls
        return RecordResult(len(calls), 0)


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool("memory:replay", tmp_path)


async def identify() -> None:
    """The database has no identity."""


async def run(work: Callable[..., Any], *args: Any) -> Any:
    return work(*args)


async def test_what_comes_during_the_last_look_is_moved_too(spool: Spool) -> None:
    store = Store()

    async def run_and_put(work: Callable[..., Any], *args: Any) -> Any:
        result = work(*args)
        if work == spool.backlog and not spool.is_there():
            spool.put([make_call()])
            replay.begin()
        return result

    replay = SpoolReplay(
        spool, store.write, identify, on_thread=run_and_put, counters=Counters(), breaker=CircuitBreaker()
    )
    replay.begin()
    await replay.end(20)
    assert store.taken == [make_call()]


async def test_nothing_begins_after_the_end(spool: Spool) -> None:
    spool.put([make_call()])
    replay = SpoolReplay(spool, Store().write, identify, on_thread=run, counters=Counters(), breaker=CircuitBreaker())
    await replay.end(0)
    before = asyncio.all_tasks()
    replay.begin()
    assert asyncio.all_tasks() == before


async def test_the_end_does_not_wait_for_what_another_process_moves(spool: Spool) -> None:
    spool.put([make_call()])
    replay = SpoolReplay(spool, Store().write, identify, on_thread=run, counters=Counters(), breaker=CircuitBreaker())
    with spool.file.turn() as is_mine:
        assert is_mine
        replay.begin()
        async with asyncio.timeout(20):
            await replay.end(3600)
    assert spool.counts().waiting == 1


async def test_the_end_does_not_wait_until_it_is_time_for_another_look(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Woken(asyncio.Event):
        async def wait(self) -> Literal[True]:
            pausing.set()
            return await super().wait()

    monkeypatch.setattr("llmbridge._recording.spool_replay._FIRST_PAUSE", 3600)
    pausing = asyncio.Event()
    spool.put([make_call()])
    replay = SpoolReplay(spool, Store().write, identify, on_thread=run, counters=Counters(), breaker=CircuitBreaker())
    replay._woken = Woken()
    with spool.file.turn() as is_mine:
        assert is_mine
        replay.begin()
        await pausing.wait()
        async with asyncio.timeout(20):
            await replay.end(3600)


async def test_the_end_does_not_wait_for_a_spool_that_cannot_be_read(spool: Spool) -> None:
    spool.put([make_call()])
    spool.path.write_bytes(b"no spool" * 1000)
    replay = SpoolReplay(spool, Store().write, identify, on_thread=run, counters=Counters(), breaker=CircuitBreaker())
    replay.begin()
    async with asyncio.timeout(20):
        await replay.end(3600)


async def test_who_is_cancelled_while_a_thread_takes_the_turn_does_not_keep_it(spool: Spool) -> None:
    taking, may_take, taken = threading.Event(), threading.Event(), threading.Event()

    def take_late(enter: Callable[[], bool]) -> bool:
        taking.set()
        assert may_take.wait(20)
        is_ours = enter()
        taken.set()
        return is_ours

    def on_thread(work: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:
        late = (take_late, work) if work.__name__ == "__enter__" else (work, *args)
        return asyncio.get_running_loop().run_in_executor(None, *late)

    spool.put([make_call()])
    replay = SpoolReplay(
        spool, Store().write, identify, on_thread=on_thread, counters=Counters(), breaker=CircuitBreaker()
    )
    replay.begin()
    assert await asyncio.to_thread(taking.wait, 20)
    await replay.end(0)
    may_take.set()
    assert await asyncio.to_thread(taken.wait, 20)
    async with asyncio.timeout(20), exclusive(spool.file, 20):
        assert spool.counts().waiting == 1


async def test_a_call_that_a_constraint_refuses_is_set_aside_and_tried_again_at_the_next_start(spool: Spool) -> None:
    calls = [make_call(number) for number in range(10)]
    spool.put(calls)
    store = Store()

    async def write(given: Sequence[CallRecord]) -> RecordResult:
        if calls[4] in given:
            raise ConstraintError("team_of_calls of llmbridge_calls refuses the row")
        return await store.write(given)

    first = SpoolReplay(spool, write, identify, on_thread=run, counters=Counters(), breaker=CircuitBreaker())
    first.begin()
    await first.end(20)
    assert sorted(one.id for one in store.taken) == sorted(one.id for one in calls if one != calls[4])
    assert spool.refusals(10) == {"team_of_calls of llmbridge_calls refuses the row": 1}
    second = SpoolReplay(spool, store.write, identify, on_thread=run, counters=Counters(), breaker=CircuitBreaker())
    second.begin()
    await second.end(20)
    assert store.taken[-1] == calls[4]
    assert spool.counts().set_aside == spool.counts().waiting == 0


async def test_a_database_that_changes_between_two_batches_gets_only_the_first(tmp_path: Path) -> None:
    spool, store = Spool("memory:replay", tmp_path), Store()
    spool.recognize("first")
    spool.put([make_call(number) for number in range(1200)])

    async def identify() -> str:
        return "second" if store.taken else "first"

    replay = SpoolReplay(spool, store.write, identify, on_thread=run, counters=Counters(), breaker=CircuitBreaker())
    replay.begin()
    await replay.end(20)
    assert store.taken == [make_call(number) for number in range(1000)]
    assert spool.identity == "second"
    assert spool.counts().to_adopt == 200
