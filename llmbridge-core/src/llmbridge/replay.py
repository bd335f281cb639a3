"""From the spool into the store: what waited goes onto the books, oldest first, under the ids that it has."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any

from .errors import (
    RecordRejectedError,
    SchemaOutdatedError,
    SchemaTooNewError,
    StorageError,
    StorageRefusedError,
    StorageUnavailableError,
)
from .metrics import Counters
from .recorder import Write
from .records import redact
from .storage.types import MAX_BATCH

if TYPE_CHECKING:
    from .spool import Spool, Spooled

logger = logging.getLogger("llmbridge.spool")

_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 30.0
#: Seconds that a store which hangs gets to end what it was given.
_LEAST_PATIENCE = 1.0
#: What keeps the store from taking any call, not this one alone.
_AWAY = (StorageUnavailableError, StorageRefusedError, SchemaOutdatedError, SchemaTooNewError)

OnThread = Callable[..., Awaitable[Any]]


class Replay:
    """Moves the calls of a spool through `write` into the store, while there are any and it is this process's turn.

    A call leaves the spool only when the store has committed it. One that the store refuses is set aside in the
    spool; one that fails for another reason stays and is tried again later, behind the others. `on_thread` runs what
    blocks.
    """

    def __init__(self, spool: Spool, write: Write, *, on_thread: OnThread, counters: Counters) -> None:
        self._spool = spool
        self._write = write
        self._on_thread = on_thread
        self._counters = counters
        self._running: asyncio.Task[None] | None = None
        self._woken = asyncio.Event()

    def begin(self) -> None:
        """Move what waits, in the background."""
        self._woken.set()
        if self._running is None and self._spool.is_there():
            self._running = asyncio.create_task(self._run(), name="llmbridge-replay")
            self._running.add_done_callback(self._ended)

    async def end(self, timeout: float) -> None:
        """Let what waits be moved for at most `timeout` seconds."""
        if self._running is not None and timeout > 0:
            await asyncio.wait([self._running], timeout=timeout)
        if self._running is not None:
            self._running.cancel()
            await asyncio.wait([self._running], timeout=_LEAST_PATIENCE)

    def _ended(self, running: asyncio.Task[None]) -> None:
        self._running = None
        if not running.cancelled() and (error := running.exception()) is not None:
            logger.error("moving spooled calls into the store ended: %s", redact(f"{type(error).__name__}: {error}"))

    async def _run(self) -> None:
        pause = _FIRST_PAUSE
        while True:
            self._woken.clear()
            moved = False
            try:
                if not (await self._on_thread(self._spool.counts)).waiting:
                    return
                moved = await self._take_turn()
            except StorageError as error:
                logger.debug("spooled calls stay where they are: %s", redact(str(error)))
            if moved:
                pause = _FIRST_PAUSE
                continue
            try:
                async with asyncio.timeout(pause):
                    await self._woken.wait()
            except TimeoutError:
                pause = min(2 * pause, _LONGEST_PAUSE)

    async def _take_turn(self) -> bool:
        """Whether something was moved."""
        turn = self._spool.turn()
        if not await self._on_thread(turn.__enter__):
            turn.__exit__(None, None, None)
            return False
        before = self._moved()
        try:
            after = 0
            while found := await self._on_thread(self._spool.oldest, MAX_BATCH, after):
                after = found[-1].position
                await self._move(found)
        finally:
            turn.__exit__(None, None, None)
            self._tell(before)
        return sum(self._moved()) > sum(before)

    def _moved(self) -> tuple[int, int, int]:
        return self._counters.calls_replayed, self._counters.calls_expired, self._counters.calls_set_aside

    def _tell(self, before: tuple[int, int, int]) -> None:
        replayed, expired, set_aside = (now - then for now, then in zip(self._moved(), before, strict=True))
        if replayed:
            logger.info("%d calls that waited in %s are in the store now", replayed, self._spool.path)
        if expired:
            logger.warning("%d calls that waited in %s lay in days that were purged", expired, self._spool.path)
        if set_aside:
            logger.error("the store refuses %d calls; they are set aside in %s", set_aside, self._spool.path)

    async def _move(self, found: Sequence[Spooled]) -> None:
        """Move calls; where the store rejects some, those are found by halving."""
        unreadable = {call.position: call.problem or "" for call in found if call.record is None}
        await self._set_aside(unreadable)
        parts = [[call for call in found if call.record is not None]]
        while parts:
            part = parts.pop()
            if not part:
                continue
            try:
                result = await self._write([call.record for call in part if call.record is not None])
            except _AWAY:
                raise
            except RecordRejectedError as error:
                named = {call.position: _reason(error) for call in part if call.record and call.record.id in error.ids}
                if not named and len(part) == 1:
                    named = {part[0].position: _reason(error)}
                await self._set_aside(named)
                parts += _halves([call for call in part if call.position not in named], whole=bool(named))
            except StorageError:
                if len(part) > 1:
                    parts += _halves(part, whole=False)
            else:
                await self._on_thread(self._spool.remove, [call.position for call in part])
                self._counters.calls_expired += len(result.expired)
                self._counters.calls_duplicate += result.duplicates
                self._counters.calls_replayed += len(part) - len(result.expired)

    async def _set_aside(self, reasons: dict[int, str]) -> None:
        if reasons:
            await self._on_thread(self._spool.set_aside, reasons)
            self._counters.calls_set_aside += len(reasons)


def _halves(part: list[Spooled], *, whole: bool) -> list[list[Spooled]]:
    if whole or len(part) < 2:
        return [part] if part else []
    middle = len(part) // 2
    return [part[middle:], part[:middle]]


def _reason(error: StorageError) -> str:
    return redact(str(error))[:500]
