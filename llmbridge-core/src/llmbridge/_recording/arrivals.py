"""Arrivals: callers whose calls are not in the queue yet, and for which closing waits."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Arrivals:
    """The callers between `record` and the queue; each is counted while it is in this context."""

    def __init__(self) -> None:
        self._count = 0
        self._none_left: asyncio.Event | None = None
        self._opening: set[asyncio.Timeout] = set()

    def __enter__(self) -> None:
        """Count a caller."""
        self._count += 1

    def __exit__(self, *exc_info: object) -> None:
        """Count the caller no more."""
        self._count -= 1
        if self._none_left is not None and not self._count:
            self._none_left.set()

    @asynccontextmanager
    async def opening(self, timeout: float) -> AsyncIterator[None]:
        """Limit the time for which a caller waits for the database to open.

        :raises TimeoutError: after `timeout` seconds, or when closing has no more time
        """
        async with asyncio.timeout(timeout) as limit:
            self._opening.add(limit)
            try:
                yield
            finally:
                self._opening.discard(limit)

    async def wait(self, timeout: float, grace: float) -> None:
        """Wait until no caller arrives. After `timeout` seconds callers stop waiting for the database to open, and get
        `grace` seconds more."""
        self._none_left = asyncio.Event()
        if self._count:
            hurry = asyncio.get_running_loop().call_later(timeout, self._stop_opening)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout + grace):
                    await self._none_left.wait()
            hurry.cancel()
        self._none_left = None

    def _stop_opening(self) -> None:
        for limit in self._opening:
            if not limit.expired():
                limit.reschedule(asyncio.get_running_loop().time())
