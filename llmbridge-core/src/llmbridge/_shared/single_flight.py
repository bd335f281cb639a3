"""Single-flight execution: concurrent callers share one task."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class SingleFlight(Generic[T]):
    """Run one task at a time and give its result to every caller.

    A caller that is cancelled does not cancel the task.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._task: asyncio.Task[T] | None = None

    @property
    def is_running(self) -> bool:
        """Whether the running event loop runs the task now."""
        task = self._task
        return task is not None and not task.done() and task.get_loop() is asyncio.get_running_loop()

    async def run(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Return the result of the running task; start one with `work` if there is none."""
        if self._task is None or not self.is_running:
            self._task = asyncio.create_task(work(), name=self._name)
        return await asyncio.shield(self._task)

    async def wait(self) -> None:
        """Wait until no task runs."""
        while self._task is not None and self.is_running:
            await asyncio.wait([self._task])
