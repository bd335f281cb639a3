"""Operations in tasks of their own, so that the cancellation of a caller cannot interrupt a commit."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from llmbridge.storage.toolkit.shielded import Tasks, ended

T = TypeVar("T")

#: An operation calls this right before the step that cannot be undone.
Commit = Callable[[], None]


class CancellationSafeTasks(Tasks):
    """The running operations of one backend."""

    async def run(self, work: Callable[[Commit], Coroutine[Any, Any, T]]) -> T:
        """Run `work` and return its result.

        When a cancelled caller gets its CancelledError, the operation has ended. It was cancelled too if it had not
        called `commit` yet; otherwise it has run to its end.
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
