"""The clock of the running event loop, set forward by hand: a timeout ends when the test says so."""

from __future__ import annotations

import asyncio


def pass_time(seconds: float) -> None:
    """Let the running event loop believe that it is later: timers that are due by then fire. Other clocks go on."""
    loop = asyncio.get_running_loop()
    clock = loop.time
    loop.time = lambda: clock() + seconds  # type: ignore[method-assign]
