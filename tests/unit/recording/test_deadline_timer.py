"""The timer fires at the earliest deadline, and reports whether the event loop delayed it."""

from __future__ import annotations

import asyncio
import time

from llmbridge._recording.deadline_timer import DeadlineTimer


class Fired:
    """Counts how often a timer fired."""

    def __init__(self) -> None:
        self.timer = DeadlineTimer(self.note)
        self.blocked: list[float] = []
        self.event = asyncio.Event()

    def note(self) -> None:
        self.blocked.append(self.timer.blocked_for(3600))
        self.event.set()

    async def once(self) -> float:
        await self.event.wait()
        self.event.clear()
        return self.blocked[-1]


async def test_it_fires_at_the_earliest_time_that_was_set() -> None:
    fired, loop = Fired(), asyncio.get_running_loop()
    fired.timer.set(loop.time() + 3600)
    fired.timer.set_earlier(loop.time() + 7200)
    fired.timer.set_earlier(loop.time())
    await fired.once()
    assert len(fired.blocked) == 1


async def test_a_cancelled_timer_does_not_fire() -> None:
    fired, loop = Fired(), asyncio.get_running_loop()
    fired.timer.set(loop.time())
    fired.timer.cancel()
    await asyncio.sleep(0.01)
    assert fired.blocked == []


async def test_a_blocked_event_loop_is_forgiven_the_first_time_in_a_row() -> None:
    fired, loop = Fired(), asyncio.get_running_loop()
    for _ in range(2):
        fired.timer.set(loop.time())
        time.sleep(0.3)
        await fired.once()
    first, second = fired.blocked
    assert first >= 0.3
    assert second == 0


async def test_no_more_is_forgiven_than_asked_for() -> None:
    fired, loop = Fired(), asyncio.get_running_loop()
    fired.timer.set(loop.time())
    time.sleep(0.3)
    await fired.once()
    assert fired.timer.blocked_for(0.1) == 0.1
