"""Timer for the earliest deadline of pending calls, which tells a slow database from a blocked event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

#: Seconds by which a timer may fire late in an event loop that is not blocked.
_PUNCTUAL = 0.1


class DeadlineTimer:
    """Calls `expire` at the time that was set last, by the clock of the running event loop."""

    def __init__(self, expire: Callable[[], None]) -> None:
        self._expire = expire
        self._handle: asyncio.TimerHandle | None = None
        self._late = 0.0
        self._forgives = False

    def set(self, at: float) -> None:
        """Fire at `at`, and at no other time."""
        self.cancel()
        self._handle = asyncio.get_running_loop().call_at(at, self._fire)

    def set_earlier(self, at: float) -> None:
        """Fire at `at`, unless it fires before that anyway."""
        if self._handle is None or at < self._handle.when():
            self.set(at)

    def cancel(self) -> None:
        """Do not fire."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def blocked_for(self, most: float) -> float:
        """Return the seconds by which the timer fired late because the event loop was blocked, at most `most`.

        The second time in a row it returns 0, so that a call waits at most twice its timeout.
        """
        return min(self._late, most) if self._forgives else 0.0

    def _fire(self) -> None:
        handle, self._handle = self._handle, None
        self._late = 0.0 if handle is None else asyncio.get_running_loop().time() - handle.when()
        self._forgives = self._late > _PUNCTUAL and not self._forgives
        self._expire()
