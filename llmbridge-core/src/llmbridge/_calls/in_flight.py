"""Calls in flight and the recording of their outcomes, for which `close()` waits."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

T = TypeVar("T")


class InFlight:
    """Set of everything that must end before a bridge can close."""

    def __init__(self) -> None:
        self._running: set[asyncio.Future[Any]] = set()

    @contextmanager
    def call(self) -> Iterator[None]:
        """Count a call while the context lasts."""
        ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._running.add(ended)
        try:
            yield
        finally:
            self._running.discard(ended)
            ended.set_result(None)

    def shielded(self, work: Coroutine[Any, Any, T]) -> asyncio.Future[T]:
        """Run `work` to its end, even if the caller that awaits it is cancelled."""
        task = asyncio.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return asyncio.shield(task)

    async def wait(self, timeout: float) -> None:
        """Wait at most `timeout` seconds for calls, and then for the recording that their cancellation started."""
        until = time.monotonic() + timeout
        for _ in range(2):
            if self._running:
                await asyncio.wait(self._running, timeout=max(until - time.monotonic(), 0))
