"""One open store: started once, by one event loop of one process, and started again after a failed start."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Literal

from .._shared.redaction import redact
from ..errors import (
    LLMBridgeError,
    SchemaOutdatedError,
    SchemaTooNewError,
    StorageClosedError,
    StorageError,
    WrongLoopError,
)
from ..storage.base import StorageBackend
from ..storage.types import MigrationReport, SchemaStatus

Migrate = Literal["auto", "check"]

logger = logging.getLogger("llmbridge.session")


class Session:
    """The way from core to a backend: who may use it, when it is opened, what may come out of it."""

    def __init__(self, backend: StorageBackend, *, migrate: Migrate, on_start: Callable[[], Awaitable[None]]) -> None:
        if migrate not in ("auto", "check"):
            raise ValueError(f"migrate is {migrate!r}; it must be 'auto' or 'check'")
        self.backend = backend
        self._migrate = migrate
        self._on_start = on_start
        self._started = False
        self._closed = False
        self._starting: asyncio.Task[None] | None = None
        self._owner: tuple[object, asyncio.AbstractEventLoop] | None = None
        self._left: asyncio.Future[None] | None = None

    @property
    def started(self) -> bool:
        """Whether the store is open, migrated and ready."""
        return self._started

    def admit(self) -> None:
        """Let the store be opened again after it was closed."""
        self._closed = False

    async def start(self) -> None:
        """Open and migrate the store once, however many ask at the same time; after a failure the next call tries
        again.

        :raises StorageClosedError: it was closed, which only `admit` undoes
        """
        starting = self.start_soon()
        if starting is None:
            return
        try:
            await asyncio.shield(starting)
        except asyncio.CancelledError:
            if not starting.cancelled():
                raise
            raise StorageClosedError("these books were closed while they were being opened") from None

    def start_soon(self) -> asyncio.Task[None] | None:
        """Begin to open the store without waiting for it; None: it is open."""
        self.check_owner()
        if self._started:
            return None
        if self._starting is None:
            self._bind()
            self._starting = asyncio.create_task(self._start(), name="llmbridge-start")
            self._starting.add_done_callback(self._after_start)
        return self._starting

    async def migrate(self) -> MigrationReport:
        """Open the store and bring its schema up to date, whatever `migrate` says of the start."""
        async with self._opened():
            return await self.backend.apply_migrations()

    async def schema_status(self) -> SchemaStatus:
        """Open the store, without migrating it, and ask how far it is."""
        async with self._opened():
            return await self.backend.schema_status()

    async def stop(self, patience: float) -> None:
        """Close the store, giving up a start that takes longer than `patience` seconds, and leaving behind a backend
        that takes as long to close. It can be opened again, then also by another event loop."""
        if self._owner is None:
            self._closed = True
            return
        self.check_owner()
        self._closed = True
        loop = asyncio.get_running_loop()
        until = loop.time() + patience
        starting = self._starting
        if starting is not None:
            await asyncio.wait([starting], timeout=patience / 2)
            starting.cancel()
            await asyncio.wait([starting], timeout=max(until - loop.time(), 0) / 2)
        self._started = False
        closing = asyncio.ensure_future(self.backend.disconnect())
        await asyncio.wait([closing], timeout=max(until - loop.time(), 0))
        self._owner = None
        closing.add_done_callback(_tell_failure)
        if not closing.done():
            self._left = closing
            logger.warning("the store still works on what it was given; it closes when it is done")

    def check_owner(self) -> None:
        """Raise what keeps the running loop from using the store.

        :raises StorageClosedError: it was closed, or is being closed
        :raises WrongLoopError: another loop or another process opened it
        """
        if self._owner is not None:
            if self._owner[0] is not _process:
                raise _wrong("process")  # told first: a forked child of a running loop has no loop to ask for
            if self._owner[1] is not asyncio.get_running_loop():
                raise _wrong("event loop")
        if self._closed:
            raise StorageClosedError("these books are closed; open them again with `async with` or initialize()")

    @contextmanager
    def guard(self) -> Iterator[None]:
        """Let nothing but llmbridge's own errors out of a backend, and no password in their texts."""
        try:
            yield
        except LLMBridgeError as error:
            error.args = tuple(redact(told) if isinstance(told, str) else told for told in error.args)
            raise
        except Exception as error:
            backend = type(self.backend)
            raise StorageError(
                f"the storage backend {backend.__module__}.{backend.__qualname__} let a {type(error).__name__} "
                "through; please report it to its authors"
            ) from error

    @asynccontextmanager
    async def _opened(self) -> AsyncIterator[None]:
        self.check_owner()
        self._bind()
        try:
            with self.guard():
                await self.backend.connect()
                yield
        except BaseException:
            if not self._started and self._starting is None:
                await self.backend.disconnect()
                self._owner = None
            raise

    def _bind(self) -> None:
        self._owner = (_process, asyncio.get_running_loop())

    async def _start(self) -> None:
        with self.guard():
            await self.backend.connect()
            try:
                await self._bring_schema_up_to_date()
                await self._on_start()
            except BaseException:
                await self.backend.disconnect()
                raise
        self._started = True

    async def _bring_schema_up_to_date(self) -> None:
        status = await self.backend.schema_status()
        if not status.writable:
            raise SchemaTooNewError(
                f"the store is at {status.current}, which this release (head {status.head}) may not write; upgrade it"
            )
        if status.pending and self._migrate == "check":
            raise SchemaOutdatedError(
                f"the store lacks {', '.join(status.pending)}; run: llmbridge storage migrate --db URL"
            )
        if status.pending:
            await self.backend.apply_migrations()

    def _after_start(self, starting: asyncio.Task[None]) -> None:
        self._starting = None
        if starting.cancelled() or starting.exception() is not None:
            self._owner = None


#: Another one in a forked child. Asking for the process's number would be a system call for every call.
_process = object()


def _is_forked() -> None:
    global _process  # noqa: PLW0603
    _process = object()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_is_forked)


def _tell_failure(closing: asyncio.Future[None]) -> None:
    if not closing.cancelled() and (error := closing.exception()) is not None:
        logger.error("closing the store raised %s", type(error).__name__)


def _wrong(what: str) -> WrongLoopError:
    return WrongLoopError(f"these books were opened in another {what}; make an LLMBridge of its own for this one")
