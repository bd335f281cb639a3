"""Lifecycle of a backend: connect and disconnect once for all callers, by one event loop of one process."""

from __future__ import annotations

import asyncio
import os
from abc import abstractmethod
from contextlib import suppress

from ...errors import StorageClosedError, WrongLoopError
from ..base import StorageBackend
from .shielded import Tasks


class LifecycleBackend(StorageBackend):
    """A backend whose subclass says how to open and to close its connections.

    **connect.** Concurrent callers share one opening, which a cancelled caller does not cancel. After a failure the
    next caller tries again. A caller that comes while the backend closes waits, then opens it again.

    **disconnect.** Concurrent callers share one closing. It waits for the opening and for `_tasks`, then
    runs `_finish` and `_close`.

    **Owner.** The event loop and the process that connected own the backend until it is closed.

    :param where: the database in words for error texts, without secrets: "the SQLite database calls.db"
    """

    def __init__(self, where: str) -> None:
        self._where = where
        #: Work of several transactions that a cancelled caller must not cut; `disconnect` waits for it.
        self._tasks = Tasks()
        self._owner: tuple[int, asyncio.AbstractEventLoop] | None = None
        self._opening: asyncio.Task[None] | None = None
        self._closing: asyncio.Task[None] | None = None
        self._is_open = False

    @abstractmethod
    async def _open(self) -> None:
        """Open the connections. If it raises it leaves nothing open."""

    async def _finish(self) -> None:
        """Do what is worth doing before the connections close, which still are open. Failures are ignored."""

    @abstractmethod
    async def _close(self) -> None:
        """Wait for running calls and close the connections, which no new call gets. If it raises it closes them all the
        same."""

    async def connect(self) -> None:
        """Open the connections, as the contract says."""
        self._check_owner()
        while self._closing is not None:
            await asyncio.shield(self._closing)
        if self._opening is None:
            self._owner = (os.getpid(), asyncio.get_running_loop())
            self._opening = asyncio.create_task(self._run_open())
            self._opening.add_done_callback(_retrieve)
        await asyncio.shield(self._opening)

    async def disconnect(self) -> None:
        """Wait for running work and close the connections, as the contract says."""
        self._check_owner()
        if self._opening is None:
            return
        if self._closing is None:
            self._closing = asyncio.create_task(self._run_close(self._opening))
        await asyncio.shield(self._closing)

    def _check_connected(self) -> None:
        """Raise if the running event loop may not use the connections.

        :raises StorageClosedError: the backend is not connected
        :raises WrongLoopError: another event loop or process connected it
        """
        self._check_owner()
        if not self._is_open:
            raise StorageClosedError(f"{self._where} is not connected; await connect() first")

    def _check_owner(self) -> None:
        if self._owner is None:
            return
        process, loop = self._owner
        # The process first: a forked child of a running loop has no loop to ask for.
        if process != os.getpid() or loop is not asyncio.get_running_loop():
            raise WrongLoopError(
                f"{self._where} was opened by another event loop or process; make a backend for each of them"
            )

    async def _run_open(self) -> None:
        try:
            await self._open()
        except BaseException:
            self._opening = self._owner = None
            raise
        self._is_open = True

    async def _run_close(self, opening: asyncio.Task[None]) -> None:
        try:
            with suppress(Exception):  # the caller that awaits the opening gets it
                await opening
            if self._is_open:
                await self._finish_and_close()
        finally:
            self._opening = self._closing = self._owner = None

    async def _finish_and_close(self) -> None:
        try:
            await self._tasks.drain()
            with suppress(Exception):
                await self._finish()
        finally:
            self._is_open = False
            await self._close()


def _retrieve(opening: asyncio.Task[None]) -> None:
    """Retrieve the exception, since the caller that would get it may have been cancelled."""
    if not opening.cancelled():
        opening.exception()
