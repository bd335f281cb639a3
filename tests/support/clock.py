"""The clock of the running event loop, moved forward by the test, so that a timeout ends when the test says so."""

from __future__ import annotations

import asyncio
import time


def pass_time(seconds: float) -> None:
    """Let the running event loop believe that it is later: timers that are due by then fire. Other clocks go on."""
    loop = asyncio.get_running_loop()
    now, then = loop.time() + seconds, time.monotonic()
    loop.time = lambda: now + time.monotonic() - then  # type: ignore[method-assign]


async def pass_time_until_done(task: asyncio.Future[object], seconds: float) -> None:
    """Let seconds pass, again and again, until the task has ended, however late it sets its timers."""
    while not task.done():
        pass_time(seconds)
        await asyncio.sleep(0.01)
