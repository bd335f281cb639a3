"""Batch writer: writes the calls of many callers in batches and releases each caller when its call is committed."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Protocol
from uuid import UUID

from ..errors import (
    ConstraintError,
    RecordRejectedError,
    StorageClosedError,
    StorageError,
    StorageUnavailableError,
    WrongLoopError,
)
from ..schemas import CallRecord, RecordStatus
from ..storage.types import MAX_BATCH, RecordResult
from .bisection import divide
from .bounded_queue import BoundedQueue, PendingCall
from .circuit_breaker import AWAY, CircuitBreaker
from .deadline_timer import DeadlineTimer
from .metrics import Counters
from .rescue import Rescue
from .settlement import Settlement

#: Seconds between two attempts at a batch, doubled from the first to the last.
_FIRST_PAUSE = 0.05
_LONGEST_PAUSE = 1.0
#: Seconds from a rescue to the replay of the rescued calls: their event loop may be ending, too.
_AFTER_RESCUE = 1.0
#: After this many calls in a row that fail for reasons of their own, the destination counts as away.
_FAILURES_OF_AN_OUTAGE = 4

#: Write a batch; an empty one only asks whether the destination answers.
Write = Callable[[Sequence[CallRecord]], Awaitable[RecordResult]]
#: Ask whether the destination takes calls, by writing one that was given up, if that may be written there.
Probe = Callable[[], Awaitable[object]]


class Replayer(Protocol):
    """Moves spooled calls to the database in the background."""

    def begin_if_reachable(self) -> None:
        """Start now, unless the database is away."""

    def begin_later(self, seconds: float) -> None:
        """Start after `seconds`, unless the database is away then."""


class BatchWriter:
    """Writes calls through `write`, one batch at a time, and answers each caller with `outcome`.

    There is no linger: while one batch is committed the next one forms. A caller waits at most `timeout` seconds, twice
    that if the event loop was blocked; until then a batch that fails is retried with the same ids, unless `retries` is
    False. An error that may concern single calls is traced to them by bisection. A call that times out, fails or finds
    no room in time goes to `fallback`, and so do new calls while `breaker` is open; the writer then probes its
    destination by writing one call that it gave up, or with what `make_probe` returns for this call. `rescue` saves
    pending calls when the writer's task is stopped, and `replay` starts when the breaker closes and after a rescue.
    Error texts call the destination `destination`.
    """

    def __init__(
        self,
        write: Write,
        *,
        timeout: float,
        destination: str = "the database",
        counters: Counters | None = None,
        breaker: CircuitBreaker | None = None,
        outcome: RecordStatus = "committed",
        retries: bool = True,
        fallback: BatchWriter | None = None,
        make_probe: Callable[[CallRecord], Probe] | None = None,
        rescue: Rescue | None = None,
        replay: Replayer | None = None,
    ) -> None:
        self._write = write
        self._timeout = timeout
        self._destination = destination
        self._counters = counters or Counters()
        self._settlement = Settlement(self._counters)
        self._breaker = breaker or CircuitBreaker()
        self._outcome: RecordStatus = outcome
        self._retries = retries
        self._fallback = fallback
        self._make_probe = make_probe or (lambda call: lambda: write([call]))
        self._rescue = rescue or Rescue(None)
        self._replay = replay
        self._queue = BoundedQueue()
        #: The batch that is being written, as the parts it was divided into; the last part is written first.
        self._batch: list[list[PendingCall]] = []
        self._task: asyncio.Task[None] | None = None
        #: Not the same as having a task: an eager one runs inside `create_task`, before it is known here.
        self._is_running = False
        self._timer = DeadlineTimer(self._on_deadline)
        self._draining = False
        #: Probes the destination with a call that was given up.
        self._probe: Probe | None = None
        self._failures_in_a_row = 0
        self._callers_without_room = 0
        self._rescue_at_exit = self._rescue.watch(self, self._queue, self._batch)

    @property
    def pending(self) -> int:
        """The number of calls that wait for a commit."""
        return len(self._queue) + sum(map(len, self._batch))

    @property
    def is_away(self) -> bool:
        """Whether the destination does not take calls, as far as is known."""
        return self._breaker.is_open

    @property
    def diverts(self) -> bool:
        """Whether new calls go to the fallback at once: this destination is away, and that of the fallback is not."""
        return self._breaker.is_open and self._fallback is not None and not self._fallback.is_away

    def record(self, call: CallRecord, since: float | None = None) -> Awaitable[RecordStatus]:
        """Return the outcome of `call` once it is committed. A caller that is cancelled leaves its call in the queue.

        Its timeout counts from `since`, by the clock of the event loop (None: now).

        :raises RecordRejectedError: the destination can never store this call
        :raises StorageError: the call is not known to be stored
        """
        self._check_open()
        if not self._breaker.is_open and not self._queue.is_full:
            return self._enqueue(call, since)
        return self._record_with_room(call, since)

    def leave(self, call: CallRecord, since: float | None = None) -> asyncio.Future[RecordStatus]:
        """Enqueue `call` whether or not there is room, and return the future that `record` awaits."""
        self._check_open()
        return self._enqueue(call, since)

    def adopt(self, pending: Iterable[PendingCall]) -> None:
        """Take over calls that another batch writer gave up; their timeout starts again."""
        now = asyncio.get_running_loop().time()
        for one in pending:
            self._add(one._replace(since=now))

    def give_up(self, error: StorageError) -> None:
        """Open the breaker and hand every pending call to the fallback."""
        pending = self._unsettled()
        if pending:
            self._probe = self._make_probe(pending[0].call)
        self._trip(error)
        self._hand_over_all(error)

    async def close(self, timeout: float | None = None) -> None:
        """Accept no more calls, write the pending ones for at most `timeout` seconds (None: unbounded), and hand over
        the rest. Callers that wait for room are accepted still."""
        self._draining = True
        while self._callers_without_room:
            self._queue.wake()
            await asyncio.sleep(0)
        if self._task is not None and self.pending:
            await asyncio.wait([self._task], timeout=timeout)
        if self.pending:
            closed = StorageUnavailableError(f"{self._destination} did not confirm the calls before the closing ended")
            self._hand_over_all(self._breaker.error or closed)
        if self._task is not None:
            self._task.cancel()
        self._timer.cancel()
        self._rescue_at_exit.detach()

    def _check_open(self) -> None:
        if self._draining:
            raise StorageClosedError("the database is closed; open it again with `async with` or initialize()")

    async def _record_with_room(self, call: CallRecord, since: float | None) -> RecordStatus:
        self._callers_without_room += 1
        try:
            has_room = await self._wait_for_room()
        except asyncio.CancelledError:
            self._enqueue(call, since).cancel()
            raise
        finally:
            self._callers_without_room -= 1
        if self._fallback is not None and (self.diverts or not has_room):
            self._start_task()
            return await self._fallback.record(call)
        if not has_room:
            self._counters.calls_lost += 1
            raise StorageUnavailableError(
                f"the queue is full: {self._destination} did not take the previous calls within {self._timeout:g} s"
            )
        return await self._enqueue(call, since)

    async def _wait_for_room(self) -> bool:
        """Wait until the call may be enqueued or diverted; return whether that was so in time."""
        try:
            async with asyncio.timeout(self._timeout):
                while self._queue.is_full and not self._draining and not self.diverts:
                    await self._queue.changed()
        except TimeoutError:
            return False
        return True

    def _enqueue(self, call: CallRecord, since: float | None) -> asyncio.Future[RecordStatus]:
        loop = asyncio.get_running_loop()
        settled: asyncio.Future[RecordStatus] = loop.create_future()
        self._add(PendingCall(call, settled, since or loop.time(), self._queue.size(call)))
        return settled

    def _add(self, pending: PendingCall) -> None:
        self._queue.add(pending)
        self._start_task()
        self._timer.set_earlier(pending.since + self._timeout)

    def _start_task(self) -> None:
        if not self._is_running and not (self._draining and not self._queue):
            self._is_running = True
            self._timer.cancel()  # nothing was pending until now, and it may belong to an event loop that is gone
            self._rescue.accept()
            task = asyncio.create_task(self._run(), name="llmbridge-batch-writer")
            if not task.done():
                self._task = task

    def _unsettled(self) -> list[PendingCall]:
        return [*(one for part in self._batch for one in part), *self._queue]

    async def _run(self) -> None:
        try:
            while self._queue or self._must_probe:
                if not self._queue:
                    await self._probe_until_back()
                    continue
                self._batch.append(self._queue.take(MAX_BATCH))
                while self._batch:
                    await self._write_part(self._batch[-1])
        except BaseException as error:
            self._on_stop(error)
            raise
        finally:
            self._task = None
            self._is_running = False

    @property
    def _must_probe(self) -> bool:
        return self._breaker.is_open and self._fallback is not None and not self._draining

    async def _write_part(self, part: list[PendingCall]) -> None:
        """Commit a part of a batch.

        If the destination rejects it, only the callers of the rejected calls fail: those that the error names, else
        those that bisection finds.
        """
        try:
            result = await self._commit(part)
        except RecordRejectedError as error:
            if self._still_holds(part):
                rejected, self._batch[-1:] = divide(part, error.ids, _id)
                self._settlement.fail(rejected, error)
        except (StorageClosedError, WrongLoopError) as error:
            if self._still_holds(part):
                self._batch.pop()
                self._hand_over(part, error)
        except AWAY as error:
            if self._still_holds(part):
                self._on_failure(error)
        except Exception as error:
            if self._still_holds(part):
                self._on_failure_of_calls(part, error)
        else:
            self._failures_in_a_row = 0
            self._counters.batches_committed += self._outcome == "committed"
            self._counters.calls_duplicate += result.duplicates
            if self._still_holds(part):
                self._batch.pop()
                self._release(part, frozenset(result.expired))
            self._on_success()

    def _still_holds(self, part: list[PendingCall]) -> bool:
        """Return whether the part was not given up while it was written."""
        return bool(self._batch) and self._batch[-1] is part

    async def _commit(self, part: list[PendingCall]) -> RecordResult:
        """Write a part, retrying with backoff while its youngest call has time."""
        calls = [one.call for one in part]
        deadline = part[-1].since + self._timeout
        pause = _FIRST_PAUSE
        while True:
            try:
                return await self._write(calls)
            except StorageUnavailableError:
                wait = _jittered(pause)
                too_late = asyncio.get_running_loop().time() + wait > deadline
                if not self._retries or self._draining or too_late or not self._still_holds(part):
                    raise
                await asyncio.sleep(wait)
                self._counters.batches_retried += 1
                pause = min(2 * pause, _LONGEST_PAUSE)

    async def _probe_until_back(self) -> None:
        """Write one of the calls that were given up, with backoff, until that succeeds. Its id makes it count once."""
        pause = _FIRST_PAUSE
        while self._must_probe and not self._queue:
            await asyncio.sleep(_jittered(pause))
            pause = min(2 * pause, _LONGEST_PAUSE)
            try:
                await (self._write([]) if self._probe is None else self._probe())
            except RecordRejectedError:  # the database answers
                self._on_success()
            except AWAY:
                continue
            except Exception:  # it may concern this call alone: the next probe only asks whether the database answers
                self._probe = None
            else:
                self._on_success()

    def _on_deadline(self) -> None:
        """Give up the calls whose timeout has passed."""
        pending = self._unsettled()
        if not pending:
            return
        now = asyncio.get_running_loop().time()
        first = min(one.since for one in pending) + self._timeout
        if first > now:
            self._timer.set(first)
            return
        if blocked := self._timer.blocked_for(self._timeout):
            self._timer.set(now + blocked)
            return
        late = StorageUnavailableError(
            f"{self._destination} did not confirm within {self._timeout:g} s; the call may still be written"
        )
        if self._fallback is not None:
            self.give_up(late)
            return
        self._trip(late)
        self._settlement.fail(
            [one for one in pending if one.since + self._timeout <= now and not one.settled.done()], late
        )
        self._timer.set(now + min(self._timeout, _LONGEST_PAUSE))

    def _on_failure(self, error: StorageError) -> None:
        """The destination does not take the batch; it would not take the calls behind it either."""
        if self._fallback is not None:
            self.give_up(error)
            return
        pending = [one for part in self._batch for one in part]
        self._batch.clear()
        self._trip(error)
        self._settlement.fail(pending, error)

    def _on_failure_of_calls(self, part: list[PendingCall], error: Exception) -> None:
        """Find the calls of a part that fail, and hand over each by itself. Several in a row are an outage, unless a
        constraint refuses them."""
        if isinstance(error, ConstraintError):
            refused, self._batch[-1:] = divide(part, error.ids, _id)
            self._hand_over(refused, error)
            return
        if len(part) > 1:
            _, self._batch[-1:] = divide(part, (), _id)
            return
        failure = error
        if not isinstance(failure, StorageError):
            failure = StorageError(f"recording failed: {type(error).__name__}")
            failure.__cause__ = error
        self._failures_in_a_row += 1
        if self._failures_in_a_row >= _FAILURES_OF_AN_OUTAGE:
            self._on_failure(failure)
            return
        self._batch.pop()
        self._hand_over(part, failure)

    def _on_success(self) -> None:
        self._probe = None
        if self._breaker.reset():
            self._queue.wake()
            if self._replay is not None:
                self._replay.begin_if_reachable()

    def _trip(self, error: StorageError) -> None:
        self._breaker.trip(error)
        if self._must_probe:
            self._start_task()

    def _hand_over_all(self, error: StorageError) -> None:
        pending = self._unsettled()
        self._batch.clear()
        self._queue.clear()
        self._hand_over(pending, error)

    def _hand_over(self, pending: list[PendingCall], error: StorageError) -> None:
        """Give calls to the fallback; without one their callers get `error`."""
        if self._fallback is not None:
            self._fallback.adopt(pending)
        else:
            self._settlement.fail(pending, error)

    def _on_stop(self, error: BaseException) -> None:
        """Rescue the pending calls when the task was stopped in the middle, as at the end of `asyncio.run`."""
        pending = self._unsettled()
        self._batch.clear()
        self._queue.clear()
        if not pending or self._rescue.is_foreign:
            return
        stopped = StorageUnavailableError(f"the batch writer was stopped ({type(error).__name__}) before the commit")
        try:
            unsaved = self._rescue.save(pending)
        except StorageError as failure:
            stopped.__cause__ = failure
            self._settlement.fail(pending, stopped)
            return
        if unsaved:
            self._settlement.fail(unsaved, stopped)
            lost = {one.call.id for one in unsaved}
            pending = [one for one in pending if one.call.id not in lost]
        if isinstance(error, GeneratorExit):  # the event loop is gone, and no caller waits
            self._counters.calls_spooled += len(pending)
            return
        self._settlement.settle(pending, "spooled")
        if self._replay is not None:
            self._replay.begin_later(_AFTER_RESCUE)

    def _release(self, part: list[PendingCall], expired: frozenset[UUID]) -> None:
        if expired:
            self._settlement.expire([one for one in part if one.call.id in expired])
            part = [one for one in part if one.call.id not in expired]
        self._settlement.settle(part, self._outcome)


def _id(pending: PendingCall) -> UUID:
    return pending.call.id


def _jittered(pause: float) -> float:
    return pause * random.uniform(0.5, 1.0)  # noqa: S311  jitter needs no secrecy
