"""Work in tasks of the backend's own, which a caller's cancellation cannot cut in the middle."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from llmbridge.storage.toolkit.shielded import Tasks, ended

T = TypeVar("T")

#: What a piece of work calls right before it does what cannot be undone.
Commit = Callable[[], None]


class Jobs(Tasks):
    """The running work of one backend, each on a connection."""

    async def run(self, work: Callable[[Commit], Coroutine[Any, Any, T]]) -> T:
        """Do `work` and give what it gives.

        When a cancelled caller gets its CancelledError, the work has ended: abandoned if it had not called
        `commit` yet, else done as if nobody had been cancelled.
        """
        committed = False

        def commit() -> None:
            nonlocal committed
            committed = True

        task = self.begin(work(commit))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if not committed:
                task.cancel()
            await ended(task)
            raise
