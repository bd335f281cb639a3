"""Replay of the spool: moves spooled calls to the database, oldest first, under their own ids."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractContextManager, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import UUID

from .._shared.redaction import redact
from ..errors import ConstraintError, RecordRejectedError, StorageError, StorageUnavailableError
from ..storage.types import MAX_BATCH, RecordResult
from .batch_writer import Write
from .bisection import divide
from .circuit_breaker import AWAY, CircuitBreaker
from .metrics import Counters
from .settlement import EXPIRED

if TYPE_CHECKING:
    from .spool import Spool
    from .spool_file import OnThread, Spooled, SpoolFile

logger = logging.getLogger("llmbridge.recording")

_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 30.0
#: Seconds that a replay which is stopped gets to end.
_STOP_TIMEOUT = 1.0


class SpoolReplay:
    """Moves the calls of a spool to the database through `write`, in the background, while there are any.

    Only the database that the calls belong to gets them: `identify` asks for its identity before each batch. One
    process at a time does so. A call leaves the spool only when the database has committed it. A call that the database
    rejects, that a constraint of somebody else refuses, or whose day was purged meanwhile, is set aside in the spool
    until the next start. A call that fails for another reason stays and is tried again later, behind the others. A call
    that this release cannot read stays for a release that can. `on_thread` runs blocking work on a thread; `breaker` is
    that of the database.
    """

    def __init__(
        self,
        spool: Spool,
        write: Write,
        identify: Callable[[], Awaitable[str | None]],
        *,
        on_thread: OnThread,
        counters: Counters,
        breaker: CircuitBreaker,
    ) -> None:
        self._spool = spool
        self._write = write
        self._identify = identify
        self._on_thread = on_thread
        self._counters = counters
        self._breaker = breaker
        self._task: asyncio.Task[None] | None = None
        self._woken = asyncio.Event()
        self._ends = False
        self._has_retried = False
        self._warned: set[str] = set()

    def begin(self) -> None:
        """Start the replay, or wake it from its pause."""
        self._woken.set()
        if not self._ends and (self._task is None or self._task.done()):
            self._task = asyncio.create_task(self._run(), name="llmbridge-replay")
            self._task.add_done_callback(_log_failure)

    def begin_if_reachable(self) -> None:
        """Start the replay unless the database is away; the end of the outage starts it then."""
        if not self._breaker.is_open:
            self.begin()

    def begin_later(self, seconds: float) -> None:
        """Start the replay after `seconds`, unless the database is away then."""
        asyncio.get_running_loop().call_later(seconds, self.begin_if_reachable)

    async def end(self, timeout: float) -> None:
        """Let the replay run for at most `timeout` seconds, as long as it moves calls, then stop it for good."""
        self._ends = True
        self._woken.set()
        if self._task is None or self._task.done():  # a task that is done may belong to an event loop that is gone
            return
        if timeout > 0:
            await asyncio.wait([self._task], timeout=timeout)
        self._task.cancel()
        await asyncio.wait([self._task], timeout=_STOP_TIMEOUT)

    async def _run(self) -> None:
        pause = _FIRST_PAUSE
        while True:
            self._woken.clear()
            moved, left = False, True
            try:
                left = any(await self._on_thread(self._spool.backlog))
                if left:
                    moved, left = await self._replay()
            except StorageError as error:
                logger.debug("spooled calls stay where they are: %s", redact(str(error)))
            if moved:
                pause = _FIRST_PAUSE
                continue
            if (not left or self._ends) and not self._woken.is_set():
                return
            try:
                async with asyncio.timeout(pause):
                    await self._woken.wait()
            except TimeoutError:
                pause = min(2 * pause, _LONGEST_PAUSE)

    async def _replay(self) -> tuple[bool, bool]:
        """Move the calls of the database that is reached now, and return whether any were moved, and whether calls are
        left that this process can try again."""
        self._recognize(await self._identify())
        while await self._on_thread(self._spool.bind, MAX_BATCH):
            pass
        file = self._spool.file
        waiting, set_aside = await self._on_thread(file.counts)
        if set_aside and not self._has_retried:
            waiting += await self._on_thread(file.retry)
        self._has_retried = True
        return await self._take_turn(file) if waiting else (False, False)

    def _recognize(self, identity: str | None) -> None:
        before = self._spool.file
        self._spool.recognize(identity)
        if before.identity not in (None, identity):
            logger.warning(
                "another database is at %s now; calls of the one before stay in %s, and `llmbridge storage spool` can "
                "adopt or discard them",
                self._spool.target,
                before.path,
            )

    async def _take_turn(self, file: SpoolFile) -> tuple[bool, bool]:
        async with _turn(file, self._on_thread) as has_turn:
            if not has_turn:
                return False, True
            before, left = self._moved(), False
            try:
                after = 0
                while found := await self._on_thread(file.oldest, MAX_BATCH, after):
                    after = found[-1].position
                    self._warn_unreadable(file, [call.problem for call in found if call.problem is not None])
                    if await self._identify() != file.identity:
                        left = True
                        break
                    left |= await self._move(file, [call for call in found if call.record is not None])
            finally:
                self._log(file, before)
        return sum(self._moved()) > sum(before), left

    def _moved(self) -> tuple[int, int]:
        return self._counters.calls_replayed, self._counters.calls_set_aside

    def _log(self, file: SpoolFile, before: tuple[int, int]) -> None:
        replayed, set_aside = (now - then for now, then in zip(self._moved(), before, strict=True))
        if replayed:
            logger.info("%d calls of %s are in the database now", replayed, file.path)
        if set_aside:
            logger.error("the database does not take %d calls; they are set aside in %s", set_aside, file.path)

    def _warn_unreadable(self, file: SpoolFile, problems: Sequence[str]) -> None:
        if problems:
            self._warn_once(
                "unreadable",
                f"this release of llmbridge cannot read some calls in {file.path}; they stay there for one that "
                f"can; the first: {problems[0]}",
            )

    def _warn_once(self, what: str, text: str) -> None:
        if what not in self._warned:
            self._warned.add(what)
            logger.warning("%s", text)

    async def _move(self, file: SpoolFile, found: list[Spooled]) -> bool:
        """Move calls, find rejected ones by bisection, and return whether any is to be tried again."""
        parts = [found] if found else []
        left = False
        while parts:
            part = parts.pop()
            try:
                result = await self._write([call.record for call in part if call.record is not None])
            except AWAY:
                raise
            except (RecordRejectedError, ConstraintError) as error:
                refused, rest = divide(part, error.ids, _id)
                if refused:
                    left |= not await self._set_aside(file, {call.position: _reason(error) for call in refused})
                parts += rest
            except StorageError:
                failed, rest = divide(part, (), _id)
                left |= bool(failed)
                parts += rest
            else:
                left |= not await self._remove(file, part, result)
        return left

    async def _remove(self, file: SpoolFile, part: Sequence[Spooled], result: RecordResult) -> bool:
        expired = {call.position: EXPIRED for call in part if call.record and call.record.id in result.expired}
        stored = [call.position for call in part if call.position not in expired]
        if not await self._change(file.remove, stored):
            return False
        self._counters.calls_duplicate += result.duplicates
        self._counters.calls_replayed += len(stored)
        return not expired or await self._set_aside(file, expired)

    async def _set_aside(self, file: SpoolFile, reasons: dict[int, str]) -> bool:
        if not await self._change(file.set_aside, reasons):
            return False
        self._counters.calls_set_aside += len(reasons)
        return True

    async def _change(self, change: Callable[..., Any], what: Any) -> bool:
        """Change the spool and return whether that worked. If not, these calls are tried again; later ones go on."""
        try:
            await self._on_thread(change, what)
        except StorageUnavailableError as error:
            self._warn_once(
                "unchangeable",
                f"calls that the database has stored or rejected stay in the spool: {redact(str(error))}",
            )
            return False
        return True


@asynccontextmanager
async def exclusive(file: SpoolFile, timeout: float) -> AsyncIterator[None]:
    """Keep every process from replaying the file while the context lasts.

    :raises StorageUnavailableError: another replay runs for longer than `timeout` seconds
    """
    until = time.monotonic() + timeout
    while True:
        async with _turn(file, asyncio.to_thread) as has_turn:
            if has_turn:
                yield
                return
        if time.monotonic() > until:
            raise StorageUnavailableError(
                f"another process has been replaying {file.path} for {timeout:g} s; try again later"
            )
        await asyncio.sleep(_FIRST_PAUSE)


@asynccontextmanager
async def _turn(file: SpoolFile, on_thread: OnThread) -> AsyncIterator[bool]:
    """Take the turn of the file and yield whether that worked.

    A caller that is cancelled while a thread still takes the turn does not keep it.
    """
    turn = file.turn()
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


def _log_failure(running: asyncio.Task[None]) -> None:
    if not running.cancelled() and (error := running.exception()) is not None:
        logger.error("the replay of the spool ended: %s", redact(f"{type(error).__name__}: {error}"))


def _id(call: Spooled) -> UUID | None:
    return None if call.record is None else call.record.id


def _reason(error: StorageError) -> str:
    return redact(str(error))[:500]
