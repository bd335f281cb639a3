"""Many callers, one writer: calls are written in batches, and each caller is released by its commit."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import weakref
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Protocol
from uuid import UUID

from ..errors import (
    LLMBridgeError,
    RecordRejectedError,
    StorageClosedError,
    StorageError,
    StorageUnavailableError,
    WrongLoopError,
)
from ..schemas import CallRecord, RecordStatus
from ..storage.types import MAX_BATCH, RecordResult
from .bounded_queue import Entry, Queue
from .metrics import Counters

#: By how many seconds a timer may be late in an event loop that nobody holds up.
_PUNCTUAL = 0.1
_FIRST_PAUSE = 0.05
_LONGEST_PAUSE = 1.0

logger = logging.getLogger("llmbridge.recorder")

Write = Callable[[Sequence[CallRecord]], Awaitable[RecordResult]]
Rescue = Callable[[Sequence[CallRecord]], None]


class Watcher(Protocol):
    """Who wants to know how the store is."""

    def away(self, error: StorageError) -> None:
        """The store does not take calls."""

    def back(self) -> None:
        """It does again."""


class Recorder:
    """Writes calls through `write`, one batch at a time, and answers `outcome`.

    There is no linger: while one batch is committed the next one forms. `patience` is for how many seconds a call
    may wait; a batch that fails meanwhile is tried again with the same ids, unless `retries` is False. Calls that are
    given up go to the `fallback`, and so do new ones for as long as the store is known to be away, which the writer
    finds out by writing one of them. `rescue` keeps calls whose writer was stopped, and `on_rescue` hears of it.
    """

    def __init__(
        self,
        write: Write,
        *,
        patience: float,
        counters: Counters | None = None,
        outcome: RecordStatus = "committed",
        retries: bool = True,
        fallback: Recorder | None = None,
        rescue: Rescue | None = None,
        on_rescue: Callable[[], None] | None = None,
        watcher: Watcher | None = None,
    ) -> None:
        self._write = write
        self._patience = patience
        self._counters = counters or Counters()
        self._outcome: RecordStatus = outcome
        self._retries = retries
        self._fallback = fallback
        self._rescue = rescue
        self._on_rescue = on_rescue
        self._watcher = watcher
        self._waiting = Queue()
        self._writing: list[list[Entry]] = []
        self._writer: asyncio.Task[None] | None = None
        self._alarm: asyncio.TimerHandle | None = None
        self._is_forgiving = False
        self._closed = False
        self._trouble: StorageError | None = None
        self._sample: CallRecord | None = None
        self._wanting_room = 0
        self._process = os.getpid()
        left = (self._waiting, self._writing, rescue, self._process)
        self._forgotten = weakref.finalize(self, _save_what_is_left, *left)

    @property
    def trouble(self) -> StorageError | None:
        """Why the store does not take calls; None: as far as is known it does."""
        return self._trouble

    @property
    def pending(self) -> int:
        """How many calls wait for a commit."""
        return len(self._waiting) + sum(map(len, self._writing))

    @property
    def yields(self) -> bool:
        """Whether calls go to the fallback at once, because the store is away and the fallback is not."""
        return self._trouble is not None and self._fallback is not None and self._fallback.trouble is None

    def record(self, call: CallRecord, since: float | None = None) -> Awaitable[RecordStatus]:
        """What became of `call`, once it is committed. A caller that is cancelled leaves its call in the queue.

        Its patience began at `since`, by the clock of the event loop (None: now).

        :raises RecordRejectedError: the store can never hold this call
        :raises StorageError: the call is not known to be stored
        """
        self._check_open()
        if self._trouble is None and not self._waiting.is_full:
            return self._enqueue(call, since)
        return self._record_with_room(call, since)

    async def _record_with_room(self, call: CallRecord, since: float | None) -> RecordStatus:
        self._wanting_room += 1
        try:
            await self._room()
        except asyncio.CancelledError:
            self._enqueue(call, since).cancel()
            raise
        finally:
            self._wanting_room -= 1
        if self.yields and self._fallback is not None:
            self._start_writer()
            return await self._fallback.record(call)
        return await self._enqueue(call, since)

    def leave(self, call: CallRecord, since: float | None = None) -> asyncio.Future[RecordStatus]:
        """Put `call` in the queue, whether or not there is room. The future is that of `record`."""
        self._check_open()
        return self._enqueue(call, since)

    def adopt(self, entries: Iterable[Entry]) -> None:
        """Take over calls that another recorder has given up."""
        now = asyncio.get_running_loop().time()
        for call, settled, _, bytes_taken in entries:
            self._add((call, settled, now, bytes_taken))

    def give_up(self, error: StorageError) -> None:
        """Take the store to be away, and write nothing that waits."""
        entries = self._unsettled()
        if entries:
            self._sample = entries[0][0]
        self._note(error)
        self._hand_on(error)

    async def close(self, timeout: float | None = None) -> None:
        """Take no more calls, write what waits for at most `timeout` seconds (None: as long as it takes), and give up
        the rest. Those that wait for room come in all the same."""
        self._closed = True
        while self._wanting_room:
            self._waiting.look_again()
            await asyncio.sleep(0)
        if self._writer is not None and self.pending:
            await asyncio.wait([self._writer], timeout=timeout)
        if self.pending:
            self._hand_on(self._trouble or StorageUnavailableError("the books were closed before the store answered"))
        if self._writer is not None:
            self._writer.cancel()
        self._drop_alarm()
        self._forgotten.detach()

    def _check_open(self) -> None:
        if self._closed:
            raise StorageClosedError("the books are closed")

    def _enqueue(self, call: CallRecord, since: float | None) -> asyncio.Future[RecordStatus]:
        loop = asyncio.get_running_loop()
        settled: asyncio.Future[RecordStatus] = loop.create_future()
        self._add((call, settled, since or loop.time(), self._waiting.size(call)))
        return settled

    def _add(self, entry: Entry) -> None:
        self._waiting.add(entry)
        self._start_writer()
        if self._alarm is None or entry[2] + self._patience < self._alarm.when():
            self._set_alarm(entry[2] + self._patience)

    def _start_writer(self) -> None:
        if self._writer is None and not (self._closed and not self._waiting):
            self._drop_alarm()  # nothing waited until now, and it may be of an event loop that is gone
            self._writer = asyncio.create_task(self._run(), name="llmbridge-recorder")

    def _set_alarm(self, at: float) -> None:
        self._drop_alarm()
        self._alarm = asyncio.get_running_loop().call_at(at, self._look_for_late_calls)

    def _drop_alarm(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    def _unsettled(self) -> list[Entry]:
        return [*(entry for part in self._writing for entry in part), *self._waiting]

    async def _room(self) -> None:
        try:
            async with asyncio.timeout(self._patience):
                await self._waiting.room(lambda: self._closed or self.yields)
        except TimeoutError:
            self._counters.calls_lost += 1
            raise StorageUnavailableError(
                f"the store did not take the calls before this one within {self._patience:g} s"
            ) from None

    async def _run(self) -> None:
        try:
            while self._waiting or self._is_away():
                if not self._waiting:
                    await self._look_for_the_store()
                    continue
                self._writing.append(self._waiting.take(MAX_BATCH))
                while self._writing:
                    await self._settle(self._writing[-1])
        except BaseException as error:
            self._stopped(error)
            raise
        finally:
            self._writer = None

    def _is_away(self) -> bool:
        return self._trouble is not None and self._fallback is not None and not self._closed

    async def _settle(self, part: list[Entry]) -> None:
        """Commit a part of a batch; where the store rejects it, only the callers of the rejected calls fail: those
        that it names, else those that halving finds."""
        try:
            result = await self._commit(part)
        except RecordRejectedError as error:
            if self._is_mine(part):
                self._writing[-1:] = self._without(part, error)
        except (StorageClosedError, WrongLoopError) as error:
            if self._is_mine(part):
                self._writing.pop()
                self._pass_on(part, error)
        except StorageError as error:
            if self._is_mine(part):
                self._lose(error)
        except Exception as error:
            failure = StorageError(f"recording failed: {type(error).__name__}")
            failure.__cause__ = error
            if self._is_mine(part):
                self._lose(failure)
        else:
            self._counters.batches_committed += self._outcome == "committed"
            self._counters.calls_duplicate += result.duplicates
            if self._is_mine(part):
                self._writing.pop()
                self._release(part, frozenset(result.expired))
            self._is_well()

    def _is_mine(self, part: list[Entry]) -> bool:
        """Whether the part was not given up while it was written."""
        return bool(self._writing) and self._writing[-1] is part

    async def _commit(self, part: list[Entry]) -> RecordResult:
        calls = [entry[0] for entry in part]
        deadline = part[-1][2] + self._patience
        pause = _FIRST_PAUSE
        while True:
            try:
                return await self._write(calls)
            except StorageUnavailableError:
                wait = pause * random.uniform(0.5, 1.0)  # noqa: S311  jitter needs no secrecy
                over = asyncio.get_running_loop().time() + wait > deadline
                if not self._retries or self._closed or over or not self._is_mine(part):
                    raise
                await asyncio.sleep(wait)
                self._counters.batches_retried += 1
                pause = min(2 * pause, _LONGEST_PAUSE)

    async def _look_for_the_store(self) -> None:
        """Write one of the calls that were given up, until that succeeds: it counts once."""
        pause = _FIRST_PAUSE
        while self._is_away() and not self._waiting:
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311  jitter needs no secrecy
            pause = min(2 * pause, _LONGEST_PAUSE)
            try:
                await self._write([] if self._sample is None else [self._sample])
            except RecordRejectedError:  # it answers
                self._is_well()
            except Exception:  # noqa: S112  the next look may find it
                continue
            else:
                self._is_well()

    def _look_for_late_calls(self) -> None:
        held_up = self._held_up()
        self._alarm = None
        oldest = min((entry[2] for entry in self._unsettled()), default=None)
        if oldest is None:
            return
        now = asyncio.get_running_loop().time()
        if oldest + self._patience > now:
            self._set_alarm(oldest + self._patience)
            return
        if held_up:
            self._set_alarm(now + held_up)
            return
        late = StorageUnavailableError(
            f"the store did not confirm within {self._patience:g} s; the call may still be written"
        )
        if self._fallback is not None:
            self.give_up(late)
            return
        self._note(late)
        self._fail([one for one in self._unsettled() if one[2] + self._patience <= now and not one[1].done()], late)
        self._set_alarm(now + min(self._patience, _LONGEST_PAUSE))

    def _held_up(self) -> float:
        """For how many seconds somebody kept the event loop from being told what the store did; 0 the second time: no
        call waits more than twice its patience."""
        late = 0.0 if self._alarm is None else asyncio.get_running_loop().time() - self._alarm.when()
        self._is_forgiving = late > _PUNCTUAL and not self._is_forgiving
        return min(late, self._patience) if self._is_forgiving else 0.0

    def _lose(self, error: StorageError) -> None:
        """The store does not take the batch: nor does it take those behind it, where they can go elsewhere."""
        if self._fallback is not None:
            self.give_up(error)
            return
        entries = [entry for part in self._writing for entry in part]
        self._writing.clear()
        self._note(error)
        self._fail(entries, error)

    def _hand_on(self, error: StorageError) -> None:
        """Write nothing that waits here."""
        entries = self._unsettled()
        self._writing.clear()
        self._waiting.clear()
        self._pass_on(entries, error)

    def _pass_on(self, entries: list[Entry], error: StorageError) -> None:
        """To the fallback, without which they are lost."""
        if self._fallback is not None:
            self._fallback.adopt(entries)
        else:
            self._fail(entries, error)

    def _note(self, error: StorageError) -> None:
        was_well = self._trouble is None
        self._trouble = error
        if was_well and self._watcher is not None:
            self._watcher.away(error)
        if self._is_away():
            self._start_writer()

    def _is_well(self) -> None:
        self._sample = None
        if self._trouble is not None:
            self._trouble = None
            self._waiting.look_again()
            if self._watcher is not None:
                self._watcher.back()

    def _stopped(self, error: BaseException) -> None:
        """The writer was stopped in the middle, as at the end of `asyncio.run`: keep what it has in hand."""
        entries = self._unsettled()
        self._writing.clear()
        self._waiting.clear()
        if not entries or self._process != os.getpid():
            return
        try:
            if self._rescue is None:
                raise StorageUnavailableError("there is no other place for them")
            self._rescue([entry[0] for entry in entries])
        except StorageError as unsaved:
            stopped = StorageUnavailableError(f"the recorder was stopped ({type(error).__name__}) before the commit")
            stopped.__cause__ = unsaved
            self._fail(entries, stopped)
        else:
            is_alone = isinstance(error, GeneratorExit)  # the event loop is gone, and nobody waits
            self._counters.calls_spooled += len(entries) if is_alone else _answer(entries, "spooled")
            if not is_alone and self._on_rescue is not None:
                self._on_rescue()

    def _without(self, part: list[Entry], error: RecordRejectedError) -> list[list[Entry]]:
        """Fail the callers of what was rejected, as far as that is known; what is left, to be tried again."""
        named = [entry for entry in part if entry[0].id in error.ids]
        if named:
            self._fail(named, error)
            rest = [entry for entry in part if entry[0].id not in error.ids]
            return [rest] if rest else []
        if len(part) == 1:
            self._fail(part, error)
            return []
        middle = len(part) // 2
        return [part[middle:], part[:middle]]

    def _release(self, part: list[Entry], expired: frozenset[UUID]) -> None:
        if expired:
            late = [entry for entry in part if entry[0].id in expired]
            part = [entry for entry in part if entry[0].id not in expired]
            self._counters.calls_expired += len(late)
            for entry in late:
                id_ = entry[0].id
                self._fail([entry], RecordRejectedError("the call lies in days that were purged", ids=(id_,)))
        answered = _answer(part, self._outcome)
        if self._outcome == "committed":
            self._counters.calls_committed += answered
        else:
            self._counters.calls_spooled += answered

    def _fail(self, entries: Sequence[Entry], error: LLMBridgeError) -> None:
        told = unheard = 0
        for _, settled, _, _ in entries:
            if settled.cancelled():
                unheard += 1
            elif not settled.done():
                told += 1
                settled.set_exception(error)
        if isinstance(error, RecordRejectedError):
            self._counters.calls_rejected += told + unheard
        else:
            self._counters.calls_lost += told + unheard
        if unheard:
            logger.error("%d calls, whose callers have left, are not known to be on the books: %s", unheard, error)


def _answer(entries: Sequence[Entry], outcome: RecordStatus) -> int:
    """Tell the callers who still wait; of how many calls this is the outcome, nobody having been told another."""
    told_otherwise = 0
    for _, settled, _, _ in entries:
        if not settled.done():
            settled.set_result(outcome)
        elif not settled.cancelled():
            told_otherwise += 1
    return len(entries) - told_otherwise


def _save_what_is_left(
    waiting: Iterable[Entry], writing: Iterable[Iterable[Entry]], rescue: Rescue | None, process: int
) -> None:
    """The books were forgotten, or the interpreter ends, before the event loop came to write these."""
    entries = [*(entry for part in writing for entry in part), *waiting]
    if not entries or process != os.getpid():
        return
    try:
        if rescue is None:
            raise StorageUnavailableError("there is no spool")
        rescue([entry[0] for entry in entries])
    except StorageError as error:
        logger.error("%d calls are not known to be on the books: they were never closed, and %s", len(entries), error)
