"""Work in tasks of the backend's own, which a caller's cancellation cannot cut in the middle."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from llmbridge.storage.tasks import ended

T = TypeVar("T")

#: What a piece of work calls right before it does what cannot be undone.
Commit = Callable[[], None]


class Jobs:
    """The running work of one backend."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[Any]] = set()

    async def run(self, work: Callable[[Commit], Awaitable[T]]) -> T:
        """Do `work` and give what it gives.

        When a cancelled caller gets its CancelledError, the work has ended: abandoned if it had not called
        `commit` yet, else done as if nobody had been cancelled.
        """
        committed = False

        def commit() -> None:
            nonlocal committed
            committed = True

        task = asyncio.ensure_future(work(commit))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if not committed:
                task.cancel()
            await ended(task)
            raise

    async def drain(self) -> None:
        """Wait until no work is running."""
        while self._running:
            await asyncio.wait(self._running)
