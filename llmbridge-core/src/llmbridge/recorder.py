"""Many callers, one writer: calls are written in batches, and each caller is released by its commit."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple
from uuid import UUID

from .errors import LLMBridgeError, RecordRejectedError, StorageClosedError, StorageError, StorageUnavailableError
from .schemas import CallRecord
from .storage.types import MAX_BATCH, RecordResult

#: Most records that wait for the writer; further callers wait for room.
MAX_PENDING = 10_000

_FIRST_PAUSE = 0.05
_LONGEST_PAUSE = 1.0

Write = Callable[[Sequence[CallRecord]], Awaitable[RecordResult]]


class Waiting(NamedTuple):
    """A call, its caller, who is released by `committed`, and until when he waits (None: for ever), in the event
    loop's time."""

    call: CallRecord
    committed: asyncio.Future[None]
    deadline: float | None


class Recorder:
    """Writes calls through `write`, one batch at a time.

    There is no linger: while one batch is committed the next one forms. `patience` is for how many seconds a
    batch is tried again, with the same ids, while the store is unavailable.
    """

    def __init__(self, write: Write, *, patience: float) -> None:
        self._write = write
        self._patience = patience
        self._waiting: deque[Waiting] = deque()
        self._batch: list[Waiting] = []
        self._timer: asyncio.TimerHandle | None = None
        self._room = asyncio.Semaphore(MAX_PENDING)
        self._writer: asyncio.Task[None] | None = None
        self._closed = False

    async def record(self, call: CallRecord, deadline: float | None = None) -> None:
        """Return when `call` is committed. A caller that is cancelled, or waits until `deadline` (in the event loop's
        time), leaves its call in the queue.

        :raises RecordRejectedError: the store can never hold this call
        :raises StorageError: the call is not known to be stored
        :raises TimeoutError: the call is not stored yet
        """
        if self._room.locked():
            async with asyncio.timeout_at(deadline):
                await self._room.acquire()
        else:
            await self._room.acquire()
        if self._closed:
            self._room.release()
            raise StorageClosedError("the books are closed")
        loop = asyncio.get_running_loop()
        committed: asyncio.Future[None] = loop.create_future()
        self._waiting.append(Waiting(call, committed, deadline))
        if self._writer is None:
            self._writer = loop.create_task(self._run(), name="llmbridge-recorder")
        if deadline is not None and (self._timer is None or deadline < self._timer.when()):
            self._wake_at(deadline)
        await committed

    async def close(self) -> None:
        """Take no more calls and wait until all that were taken are committed or given up."""
        self._closed = True
        while self._writer is not None:
            await asyncio.wait([self._writer])
        if self._timer is not None:
            self._timer.cancel()

    def abandon(self) -> int:
        """Stop writing, tell every caller that still waits, and return how many there were."""
        left = len(self._batch) + len(self._waiting)
        if self._writer is not None:
            self._writer.cancel()
        return left

    def _wake_at(self, deadline: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_at(deadline, self._tell_the_late)

    def _tell_the_late(self) -> None:
        """Release those whose time has passed. One timer does for all, since it seldom finds anybody: it is left
        running when its caller is released in time."""
        now, self._timer = asyncio.get_running_loop().time(), None
        still: list[float] = []
        for _, committed, deadline in (*self._batch, *self._waiting):
            if deadline is None or committed.done():
                continue
            if deadline <= now:
                committed.set_exception(TimeoutError())
            else:
                still.append(deadline)
        if still:
            self._wake_at(min(still))

    async def _run(self) -> None:
        try:
            while self._waiting:
                self._batch = [self._waiting.popleft() for _ in range(min(MAX_BATCH, len(self._waiting)))]
                for _ in self._batch:
                    self._room.release()
                await self._settle(self._batch, asyncio.get_running_loop().time() + self._patience)
        except BaseException as error:
            stopped = StorageUnavailableError(f"the recorder was stopped ({type(error).__name__}) before the commit")
            _fail([*self._batch, *self._waiting], stopped)
            for _ in self._waiting:
                self._room.release()
            self._waiting.clear()
            raise
        finally:
            self._batch = []
            self._writer = None

    async def _settle(self, batch: list[Waiting], deadline: float) -> None:
        """Commit a batch; where the store rejects it, only the callers of the rejected calls fail: those that it
        names, else those that halving finds."""
        try:
            result = await self._commit([waiting.call for waiting in batch], deadline)
        except RecordRejectedError as error:
            for part in _without(batch, error):
                await self._settle(part, deadline)
        except LLMBridgeError as error:
            _fail(batch, error)
        except Exception as error:
            failure = StorageError(f"recording failed: {type(error).__name__}")
            failure.__cause__ = error
            _fail(batch, failure)
        else:
            _release(batch, frozenset(result.expired))

    async def _commit(self, calls: Sequence[CallRecord], deadline: float) -> RecordResult:
        pause = _FIRST_PAUSE
        while True:
            try:
                return await self._write(calls)
            except StorageUnavailableError:
                wait = pause * random.uniform(0.5, 1.0)  # noqa: S311  jitter needs no secrecy
                if self._closed or asyncio.get_running_loop().time() + wait > deadline:
                    raise
                await asyncio.sleep(wait)
                pause = min(2 * pause, _LONGEST_PAUSE)


def _without(batch: list[Waiting], error: RecordRejectedError) -> list[list[Waiting]]:
    """Fail the callers of what was rejected, as far as that is known; what is left, to be tried again."""
    named = [waiting for waiting in batch if waiting.call.id in error.ids]
    if named:
        _fail(named, error)
        rest = [waiting for waiting in batch if waiting.call.id not in error.ids]
        return [rest] if rest else []
    if len(batch) == 1:
        _fail(batch, error)
        return []
    middle = len(batch) // 2
    return [batch[:middle], batch[middle:]]


def _release(batch: Sequence[Waiting], expired: frozenset[UUID]) -> None:
    for waiting in batch:
        id_ = waiting.call.id
        if expired and id_ in expired:
            _fail([waiting], RecordRejectedError("the call lies in days that were purged", ids=(id_,)))
        elif not waiting.committed.done():
            waiting.committed.set_result(None)


def _fail(batch: Sequence[Waiting], error: LLMBridgeError) -> None:
    for waiting in batch:
        if not waiting.committed.done():
            waiting.committed.set_exception(error)
