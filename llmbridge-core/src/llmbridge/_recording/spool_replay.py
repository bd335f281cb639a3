"""From the spool into the store: what waited goes onto the books, oldest first, under the ids that it has."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractContextManager, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from .._shared.redaction import redact
from ..errors import (
    RecordRejectedError,
    SchemaOutdatedError,
    SchemaTooNewError,
    StorageError,
    StorageRefusedError,
    StorageUnavailableError,
)
from ..storage.types import MAX_BATCH, RecordResult
from .batch_writer import Write
from .metrics import Counters

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
    spool; one that fails for another reason stays and is tried again later, behind the others. One that this release
    cannot read stays for a release that can. `on_thread` runs what blocks.
    """

    def __init__(self, spool: Spool, write: Write, *, on_thread: OnThread, counters: Counters) -> None:
        self._spool = spool
        self._write = write
        self._on_thread = on_thread
        self._counters = counters
        self._running: asyncio.Task[None] | None = None
        self._woken = asyncio.Event()
        self._is_over = False
        self._told: set[str] = set()

    def begin(self) -> None:
        """Move what waits, in the background."""
        self._woken.set()
        if not self._is_over and (self._running is None or self._running.done()):
            self._running = asyncio.create_task(self._run(), name="llmbridge-replay")
            self._running.add_done_callback(_tell_failure)

    async def end(self, timeout: float) -> None:
        """Let what waits be moved for at most `timeout` seconds, as long as any moves, and nothing after that."""
        self._is_over = True
        self._woken.set()
        if self._running is not None and timeout > 0:
            await asyncio.wait([self._running], timeout=timeout)
        if self._running is not None:
            self._running.cancel()
            await asyncio.wait([self._running], timeout=_LEAST_PATIENCE)

    async def _run(self) -> None:
        pause = _FIRST_PAUSE
        while True:
            self._woken.clear()
            moved, left = False, True
            try:
                left = (await self._on_thread(self._spool.counts)).waiting > 0
                if left:
                    moved, left = await self._take_turn()
            except StorageError as error:
                logger.debug("spooled calls stay where they are: %s", redact(str(error)))
            if moved:
                pause = _FIRST_PAUSE
                continue
            if (not left or self._is_over) and not self._woken.is_set():
                return
            try:
                async with asyncio.timeout(pause):
                    await self._woken.wait()
            except TimeoutError:
                pause = min(2 * pause, _LONGEST_PAUSE)

    async def _take_turn(self) -> tuple[bool, bool]:
        """Whether something was moved, and whether something is left that this process can try again."""
        async with _turn(self._spool, self._on_thread) as is_ours:
            if not is_ours:
                return False, True
            before, left = self._moved(), False
            try:
                after = 0
                while found := await self._on_thread(self._spool.oldest, MAX_BATCH, after):
                    after = found[-1].position
                    self._tell_unreadable([call.problem for call in found if call.problem is not None])
                    left |= await self._move([call for call in found if call.record is not None])
            finally:
                self._tell(before)
        return sum(self._moved()) > sum(before), left

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

    def _tell_unreadable(self, problems: Sequence[str]) -> None:
        if problems:
            self._tell_once(
                "unreadable",
                f"calls in {self._spool.path} that this release of llmbridge cannot read stay there for one that can; "
                f"the first: {problems[0]}",
            )

    def _tell_once(self, what: str, text: str) -> None:
        if what not in self._told:
            self._told.add(what)
            logger.warning("%s", text)

    async def _move(self, found: list[Spooled]) -> bool:
        """Move calls; where the store rejects some, those are found by halving. Whether any is to be tried again."""
        parts = [found] if found else []
        left = False
        while parts:
            part = parts.pop()
            try:
                result = await self._write([call.record for call in part if call.record is not None])
            except _AWAY:
                raise
            except RecordRejectedError as error:
                named = {call.position: _reason(error) for call in part if call.record and call.record.id in error.ids}
                if not named and len(part) == 1:
                    named = {part[0].position: _reason(error)}
                if named:
                    left |= not await self._set_aside(named)
                parts += _halves([call for call in part if call.position not in named], whole=bool(named))
            except StorageError:
                left |= len(part) == 1
                parts += _halves(part, whole=False) if len(part) > 1 else []
            else:
                left |= not await self._remove(part, result)
        return left

    async def _remove(self, part: Sequence[Spooled], result: RecordResult) -> bool:
        if not await self._change(self._spool.remove, [call.position for call in part]):
            return False
        self._counters.calls_expired += len(result.expired)
        self._counters.calls_duplicate += result.duplicates
        self._counters.calls_replayed += len(part) - len(result.expired)
        return True

    async def _set_aside(self, reasons: dict[int, str]) -> bool:
        if not await self._change(self._spool.set_aside, reasons):
            return False
        self._counters.calls_set_aside += len(reasons)
        return True

    async def _change(self, change: Callable[..., Any], what: Any) -> bool:
        """Whether the spool could be changed. Calls in one that cannot be are tried again; those behind them go on."""
        try:
            await self._on_thread(change, what)
        except StorageUnavailableError as error:
            self._tell_once(
                "unchangeable", f"calls that the store has taken or refused stay in the spool: {redact(str(error))}"
            )
            return False
        return True


@asynccontextmanager
async def alone(spool: Spool, patience: float) -> AsyncIterator[None]:
    """Nobody moves calls of that spool into the store while this lasts.

    :raises StorageUnavailableError: somebody else does, for longer than `patience` seconds
    """
    until = time.monotonic() + patience
    while True:
        async with _turn(spool, asyncio.to_thread) as is_ours:
            if is_ours:
                yield
                return
        if time.monotonic() > until:
            raise StorageUnavailableError(
                f"the calls of {spool.path} have been on their way into the store for {patience:g} s; try again later"
            )
        await asyncio.sleep(_FIRST_PAUSE)


@asynccontextmanager
async def _turn(spool: Spool, on_thread: OnThread) -> AsyncIterator[bool]:
    """Whether it is our turn, until this ends. Who is cancelled while a thread still takes it does not keep it."""
    turn = spool.turn()
    taking = asyncio.ensure_future(on_thread(turn.__enter__))
    try:
        yield await asyncio.shield(taking)
    finally:
        if taking.done():
            _leave(turn, taking)
        else:
            taking.add_done_callback(partial(_leave, turn))


def _leave(turn: AbstractContextManager[bool], taking: asyncio.Future[bool]) -> None:
    if not taking.cancelled() and taking.exception() is None:
        turn.__exit__(None, None, None)


def _tell_failure(running: asyncio.Task[None]) -> None:
    if not running.cancelled() and (error := running.exception()) is not None:
        logger.error("moving spooled calls into the store ended: %s", redact(f"{type(error).__name__}: {error}"))


def _halves(part: list[Spooled], *, whole: bool) -> list[list[Spooled]]:
    if whole or len(part) < 2:
        return [part] if part else []
    middle = len(part) // 2
    return [part[middle:], part[:middle]]


def _reason(error: StorageError) -> str:
    return redact(str(error))[:500]
