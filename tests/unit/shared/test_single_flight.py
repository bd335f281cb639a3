"""Callers that ask at the same time share one run."""

from __future__ import annotations

import asyncio

import pytest

from llmbridge._shared.single_flight import SingleFlight


class Work:
    """Work that ends when the test lets it, and counts its runs."""

    def __init__(self) -> None:
        self.runs = 0
        self.started = asyncio.Event()
        self.may_end = asyncio.Event()

    async def __call__(self) -> int:
        self.runs += 1
        self.started.set()
        await self.may_end.wait()
        return self.runs


async def test_callers_share_one_run_and_its_result() -> None:
    work, flight = Work(), SingleFlight[int]("test")
    callers = [asyncio.create_task(flight.run(work)) for _ in range(3)]
    await work.started.wait()
    assert flight.is_running
    work.may_end.set()
    assert await asyncio.gather(*callers) == [1, 1, 1]
    assert not flight.is_running


async def test_a_cancelled_caller_does_not_cancel_the_run() -> None:
    work, flight = Work(), SingleFlight[int]("test")
    leaving, staying = (asyncio.create_task(flight.run(work)) for _ in range(2))
    await work.started.wait()
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    work.may_end.set()
    assert await staying == 1


async def test_a_caller_after_the_end_starts_another_run() -> None:
    work, flight = Work(), SingleFlight[int]("test")
    work.may_end.set()
    assert [await flight.run(work), await flight.run(work)] == [1, 2]


async def test_waiting_ends_with_the_run() -> None:
    work, flight = Work(), SingleFlight[int]("test")
    await flight.wait()
    running = asyncio.create_task(flight.run(work))
    await work.started.wait()
    waiting = asyncio.create_task(flight.wait())
    await asyncio.sleep(0)
    assert not waiting.done()
    work.may_end.set()
    await asyncio.gather(waiting, running)


def test_a_run_of_an_event_loop_that_ended_is_over() -> None:
    flight = SingleFlight[int]("test")

    async def main() -> int:
        work = Work()
        work.may_end.set()
        return await flight.run(work)

    assert [asyncio.run(main()), asyncio.run(main())] == [1, 1]
