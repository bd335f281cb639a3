"""Opening and closing of a backend: once for all callers, and never during an operation."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from llmbridge.errors import StorageClosedError, StorageUnavailableError, WrongLoopError
from llmbridge.storage import TotalsReport
from llmbridge.storage.memory import MemoryBackend
from llmbridge.storage.toolkit.lifecycle import LifecycleBackend
from llmbridge.storage.toolkit.maintenance import check_by_day, in_slices


class Probe(LifecycleBackend, MemoryBackend):
    """A backend that writes down what happens to it, and whose opening waits for `may_open`."""

    def __init__(self) -> None:
        super().__init__("the probe")
        self.events: list[str] = []
        self.may_open = asyncio.Event()
        self.fault: Exception | None = None

    async def _open(self) -> None:
        self.events.append("open")
        await self.may_open.wait()
        if self.fault is not None:
            raise self.fault

    async def _finish(self) -> None:
        self.events.append("finish")
        raise RuntimeError("closing goes on")

    async def _close(self) -> None:
        self.events.append("close")

    def use(self) -> None:
        self._check_connected()

    async def work(self, until: asyncio.Event) -> None:
        await self._tasks.to_its_end(until.wait())
        self.events.append("work")


@pytest.fixture
async def probe() -> Probe:
    return Probe()


async def opened(probe: Probe) -> None:
    probe.may_open.set()
    await probe.connect()


async def test_callers_share_one_opening_which_a_cancelled_one_does_not_end(probe):
    callers = [asyncio.create_task(probe.connect()) for _ in range(3)]
    await asyncio.sleep(0)
    callers[0].cancel()
    with pytest.raises(asyncio.CancelledError):
        await callers[0]
    probe.may_open.set()
    await asyncio.gather(*callers[1:])
    await probe.connect()
    probe.use()
    assert probe.events == ["open"]


async def test_after_an_opening_that_failed_the_next_caller_tries_again(probe):
    probe.fault = StorageUnavailableError("not now")
    probe.may_open.set()
    for _ in range(2):
        with pytest.raises(StorageUnavailableError):
            await probe.connect()
    with pytest.raises(StorageClosedError, match="the probe is not connected"):
        probe.use()
    probe.fault = None
    await probe.connect()
    assert probe.events == ["open"] * 3


async def test_what_never_opened_is_not_closed(probe):
    await probe.disconnect()
    probe.fault = StorageUnavailableError("not now")
    opening = asyncio.create_task(probe.connect())
    await asyncio.sleep(0)
    closing = asyncio.create_task(probe.disconnect())
    await asyncio.sleep(0)
    probe.may_open.set()
    await closing
    with pytest.raises(StorageUnavailableError):
        await opening
    assert probe.events == ["open"]
    await probe.disconnect()


async def test_disconnecting_waits_for_work_then_finishes_then_closes(probe):
    await opened(probe)
    done = asyncio.Event()
    working = asyncio.create_task(probe.work(done))
    await asyncio.sleep(0)
    working.cancel()
    closing = [asyncio.create_task(probe.disconnect()) for _ in range(2)]
    await asyncio.sleep(0)
    assert probe.events == ["open"]
    done.set()
    await asyncio.gather(*closing)
    with pytest.raises(asyncio.CancelledError):
        await working
    assert probe.events == ["open", "finish", "close"]
    with pytest.raises(StorageClosedError):
        probe.use()


async def test_a_caller_that_comes_while_it_closes_opens_it_again(probe):
    await opened(probe)
    closing = asyncio.create_task(probe.disconnect())
    await asyncio.sleep(0)
    await probe.connect()
    await closing
    probe.use()
    assert probe.events == ["open", "finish", "close", "open"]
    await probe.disconnect()


async def test_only_the_event_loop_that_connected_may_use_it(probe):
    await opened(probe)

    def elsewhere(use: Any) -> None:
        async def using() -> None:
            found = use()
            if found is not None:
                await found

        asyncio.run(using())

    for use in (probe.use, probe.connect, probe.disconnect):
        with pytest.raises(WrongLoopError, match="make a backend for each of them"):
            await asyncio.to_thread(elsewhere, use)
    probe.use()
    await probe.disconnect()


async def test_slices_run_one_after_the_other_until_there_are_no_more():
    left = [(3, True), (0, True), (4, False), (9, False)]

    async def run() -> tuple[int, bool]:
        return left.pop(0)

    assert await in_slices(run) == 7
    assert left == [(9, False)]


async def test_days_are_checked_one_after_the_other_and_those_without_anything_are_passed_over():
    checked: list[int] = []

    async def next_day(start: int) -> int | None:
        return min((day for day in (10, 20, 50) if day >= start), default=None)

    async def check(day: int) -> TotalsReport:
        checked.append(day)
        return TotalsReport(day, 1, 2)

    assert await check_by_day(next_day, check, first=0, day=10) == TotalsReport(80, 3, 6)
    assert checked == [10, 20, 50]
