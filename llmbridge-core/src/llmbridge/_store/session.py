"""Session of one backend: opened once, by one event loop of one process, and opened again after a failed start."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Literal, TypeVar

from ..errors import SchemaOutdatedError, SchemaTooNewError, StorageClosedError, WrongLoopError
from ..storage.base import StorageBackend
from ..storage.types import CallPage, CallQuery, MigrationReport, SchemaStatus
from .translated_backend import translated

T = TypeVar("T")

Migrate = Literal["auto", "check"]

#: Reads or writes what a part of llmbridge needs from a database that has just been opened.
StartStep = Callable[[StorageBackend], Awaitable[None]]

logger = logging.getLogger("llmbridge.session")


class StoreSession:
    """Access to one backend.

    It opens and migrates the database at the first use, however many callers ask at once, and then runs the start
    steps. It alone knows whether the database is open, closing or closed.

    The process that opens the database, or tries to, owns it until it is closed; the event loop owns it while it is
    open or being opened. A forked child of the owner, and any other loop, gets WrongLoopError.

    :param migrate: `auto` migrates at the start, `check` raises SchemaOutdatedError instead
    """

    def __init__(self, backend: StorageBackend, *, migrate: Migrate) -> None:
        if migrate not in ("auto", "check"):
            raise ValueError(f"migrate is {migrate!r}; it must be 'auto' or 'check'")
        self.backend = translated(backend)
        self._migrate = migrate
        self._start_steps: dict[object, StartStep] = {}
        #: The identity of the database when it was opened; None: it has none, or was not opened.
        self.identity: str | None = None
        self._started = False
        self._state: Literal["open", "closing", "closed"] = "open"
        self._starting: asyncio.Task[None] | None = None
        self._owner: object | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def target(self) -> str | None:
        """The name of the database without secrets; None if its backend has none."""
        return self.backend.target

    @property
    def started(self) -> bool:
        """Whether the database is connected, migrated and ready."""
        return self._started

    @property
    def is_closing(self) -> bool:
        """Whether no more calls are accepted: the database is closing or closed."""
        return self._state != "open"

    async def call(self, use: Callable[[StorageBackend], Awaitable[T]]) -> T:
        """Open the database if needed and return what `use` returns for its backend.

        :raises LLMBridgeError: the database cannot be opened, or the backend failed; an exception of the backend that
            is not llmbridge's own becomes a StorageError
        """
        if not self._started:
            await self.start()
        else:
            self.check_owner()
        return await use(self.backend)

    async def call_pages(self, query: CallQuery) -> AsyncIterator[CallPage]:
        """Yield the pages of calls from that of `query` to the last."""
        after = query.after
        while True:
            page = await self._call_page(replace(query, after=after))
            yield page
            if (after := page.next) is None:
                return

    async def _call_page(self, query: CallQuery) -> CallPage:
        return await self.call(lambda backend: backend.list_calls(query))

    def on_start(self, step: StartStep) -> Callable[[], object]:
        """Run `step` each time the database has been opened and migrated, before any other use. If a step raises an
        error, the start fails with it. Return a function that removes the step."""
        key = object()
        self._start_steps[key] = step
        return lambda: self._start_steps.pop(key, None)

    def reopen(self) -> None:
        """Let the database be opened again after it was closed."""
        self._state = "open"

    async def start(self) -> None:
        """Open and migrate the database. All callers share one attempt; after a failure the next call tries again.

        :raises StorageClosedError: it is closed; only `reopen` changes that
        """
        starting = self.start_soon()
        if starting is None:
            return
        try:
            await asyncio.shield(starting)
        except asyncio.CancelledError:
            if not starting.cancelled():
                raise
            raise StorageClosedError("the database was closed while it was being opened") from None

    def start_soon(self) -> asyncio.Task[None] | None:
        """Begin to open the database without waiting for it; return None if it is open."""
        self.check_owner()
        if self._started:
            return None
        if self._starting is None:
            self._bind()
            self._starting = asyncio.create_task(self._start(), name="llmbridge-start")
            self._starting.add_done_callback(self._after_start)
        return self._starting

    async def migrate(self) -> MigrationReport:
        """Connect and bring the schema up to date, also with `migrate="check"`."""
        async with self._connected():
            return await self.backend.apply_migrations()

    async def schema_status(self) -> SchemaStatus:
        """Connect, without migrating, and return the state of the schema."""
        async with self._connected():
            return await self.backend.schema_status()

    def begin_closing(self) -> None:
        """Accept no more calls to record; other uses go on until `stop`.

        :raises WrongLoopError: another event loop or process has it open
        """
        self._check_owner()
        if self._state == "open":
            self._state = "closing"

    async def stop(self, timeout: float) -> None:
        """Disconnect within `timeout` seconds: half of them for a start that goes on, which is then cancelled.

        A backend that takes longer continues in the background. The session can be reopened, also by another loop.
        """
        self._check_owner()
        self._state = "closed"
        if self._loop is None:
            self._owner = None
            return
        loop = asyncio.get_running_loop()
        until = loop.time() + timeout
        starting = self._starting
        if starting is not None:
            await asyncio.wait([starting], timeout=timeout / 2)
            starting.cancel()
            await asyncio.wait([starting], timeout=max(until - loop.time(), 0) / 2)
        self._started = False
        closing = asyncio.ensure_future(self.backend.disconnect())
        await asyncio.wait([closing], timeout=max(until - loop.time(), 0))
        self._owner = self._loop = None
        closing.add_done_callback(_log_failure)
        if not closing.done():
            _disconnecting.add(closing)
            closing.add_done_callback(_disconnecting.discard)
            logger.warning("disconnect() did not finish in time and continues in the background")

    def check_owner(self) -> None:
        """Raise if the running event loop may not use the database.

        :raises StorageClosedError: it is closed
        :raises WrongLoopError: another event loop or process has used it and not closed it
        """
        self._check_owner()
        if self._state == "closed":
            raise StorageClosedError("the database is closed; open it again with `async with` or initialize()")

    def check_accepting(self) -> None:
        """Raise if no more calls are accepted: as `check_owner`, and also while the database is closing."""
        self._check_owner()
        if self._state != "open":
            raise StorageClosedError("the database is closed; open it again with `async with` or initialize()")

    def check_process(self) -> None:
        """Raise WrongLoopError if another process has used the database and not closed it."""
        if self._owner is not None and self._owner is not _process:
            raise _wrong("process")

    def _check_owner(self) -> None:
        self.check_process()  # first, since a forked child of a running loop has no loop to ask for
        if self._loop is not None and self._loop is not asyncio.get_running_loop():
            raise _wrong("event loop")

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[None]:
        self.check_owner()
        self._bind()
        try:
            await self.backend.connect()
            yield
        except BaseException:
            if not self._started and self._starting is None:
                await self.backend.disconnect()
                self._loop = None
            raise

    def _bind(self) -> None:
        self._owner, self._loop = _process, asyncio.get_running_loop()

    async def _start(self) -> None:
        await self.backend.connect()
        try:
            await self._bring_schema_up_to_date()
            for step in list(self._start_steps.values()):
                await step(self.backend)
        except BaseException:
            await self.backend.disconnect()
            raise
        self._started = True

    async def _bring_schema_up_to_date(self) -> None:
        status = await self.backend.schema_status()
        if not status.writable:
            raise SchemaTooNewError(
                f"the database is at {status.current}, which this release (head {status.head}) may not write; "
                "upgrade llmbridge"
            )
        if status.pending and self._migrate == "check":
            raise SchemaOutdatedError(
                f"the database lacks {', '.join(status.pending)}; run: llmbridge storage migrate --db URL"
            )
        if status.pending:
            await self.backend.apply_migrations()
            status = await self.backend.schema_status()
        self.identity = status.identity

    def _after_start(self, starting: asyncio.Task[None]) -> None:
        self._starting = None
        if starting.cancelled() or starting.exception() is not None:
            self._loop = None


#: Disconnections that go on after their timeout; the event loop itself keeps only weak references to tasks.
_disconnecting: set[asyncio.Future[None]] = set()

#: Replaced in a forked child. Comparing process numbers would be a system call for every call.
_process = object()


def _is_forked() -> None:
    global _process  # noqa: PLW0603
    _process = object()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_is_forked)


def _log_failure(closing: asyncio.Future[None]) -> None:
    if not closing.cancelled() and (error := closing.exception()) is not None:
        logger.error("the database could not be closed: %s", error)


def _wrong(what: str) -> WrongLoopError:
    return WrongLoopError(f"this object is used by another {what}: create an LLMBridge or LLMDatabase in this one")
