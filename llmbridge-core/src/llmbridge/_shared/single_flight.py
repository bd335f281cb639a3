"""Books close once at a time, and to the end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from .._recording.metrics import CloseReport


class Closing:
    """One closing, however many ask for it. Who is cancelled while he waits for it changes nothing."""

    def __init__(self) -> None:
        self._task: asyncio.Task[CloseReport] | None = None

    @property
    def goes_on(self) -> bool:
        """Whether the books are being closed, by the event loop that runs."""
        task = self._task
        return task is not None and not task.done() and task.get_loop() is asyncio.get_running_loop()

    async def run(self, close: Callable[[], Coroutine[Any, Any, CloseReport]]) -> CloseReport:
        """What `close` reports, or the closing that goes on already."""
        if self._task is None or not self.goes_on:
            self._task = asyncio.create_task(close(), name="llmbridge-close")
        return await asyncio.shield(self._task)

    async def over(self) -> None:
        """Wait until no closing goes on."""
        while self._task is not None and self.goes_on:
            await asyncio.wait([self._task])
