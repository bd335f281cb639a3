"""Work in tasks of the backend's own, which a caller's cancellation cannot cut in the middle."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any, TypeVar

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
            while not task.done():
                with suppress(asyncio.CancelledError):
                    await asyncio.wait([task])
            if not task.cancelled():
                task.exception()
            raise

    async def run_to_its_end(self, work: Coroutine[Any, Any, T]) -> T:
        """Do `work`, all of it, also when the caller is cancelled."""
        task = asyncio.ensure_future(work)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            while not task.done():
                with suppress(asyncio.CancelledError):
                    await asyncio.wait([task])
            if not task.cancelled():
                task.exception()
            raise

    async def drain(self) -> None:
        """Wait until no work is running."""
        while self._running:
            await asyncio.wait(self._running)
