"""Tasks that the caller's cancellation does not interrupt."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, TypeVar

T = TypeVar("T")


class Tasks:
    """Background tasks of one backend."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[Any]] = set()

    def begin(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Start `work` as a task; `drain` waits for it."""
        task = asyncio.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    async def to_its_end(self, work: Coroutine[Any, Any, T]) -> T:
        """Run `work` to its end and return its result. If the caller is cancelled, raise CancelledError afterwards."""
        task = self.begin(work)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            await ended(task)
            raise

    async def drain(self) -> None:
        """Wait until no task is running."""
        while self._running:
            await asyncio.wait(self._running)


async def ended(task: asyncio.Future[Any]) -> None:
    """Wait until `task` has ended, even if the caller is cancelled; do not raise or log the task's exception."""
    while not task.done():
        with suppress(asyncio.CancelledError):
            await asyncio.wait([task])
    if not task.cancelled():
        task.exception()
