"""Closing waits for running calls and for their recording."""

from __future__ import annotations

import asyncio

import pytest

from llmbridge._calls.in_flight import InFlight


async def test_it_waits_for_a_call() -> None:
    in_flight, may_end = InFlight(), asyncio.Event()

    async def call() -> None:
        with in_flight.call():
            await may_end.wait()

    calling = asyncio.create_task(call())
    await asyncio.sleep(0)
    waiting = asyncio.create_task(in_flight.wait(60))
    await asyncio.sleep(0)
    assert not waiting.done()
    may_end.set()
    await asyncio.gather(waiting, calling)


async def test_it_waits_for_what_the_end_of_a_call_starts() -> None:
    in_flight, recorded = InFlight(), []

    async def record() -> None:
        await asyncio.sleep(0.01)
        recorded.append(1)

    async def call() -> None:
        with in_flight.call():
            await asyncio.sleep(0)
            keeping.append(in_flight.shielded(record()))

    keeping: list[asyncio.Future[None]] = []
    calling = asyncio.create_task(call())
    await asyncio.sleep(0)
    await in_flight.wait(60)
    assert recorded == [1]
    await calling


async def test_it_gives_up_after_the_timeout() -> None:
    in_flight = InFlight()
    with in_flight.call():
        await in_flight.wait(0.01)


async def test_recording_goes_on_when_its_caller_is_cancelled() -> None:
    in_flight, may_end, recorded = InFlight(), asyncio.Event(), []

    async def record() -> None:
        await may_end.wait()
        recorded.append(1)

    async def call() -> None:
        await in_flight.shielded(record())

    calling = asyncio.create_task(call())
    await asyncio.sleep(0)
    calling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await calling
    may_end.set()
    await in_flight.wait(60)
    assert recorded == [1]
