"""Call writer: completes the record of a call, writes it to the database or the spool, and returns the outcome.

The path of one call: `record` waits until prices are known and the database is open, `record_builder` makes
the record, the batch writer of the database commits it. If the database does not take it within the timeout, the batch
writer of the spool puts it on the disk, and the replay moves it to the database later.

The order of closing. A call goes from each stage to the next, so each stage ends only when the stages before it have
ended, and no call can arrive at a stage that has ended:

1. The session accepts no more calls (`StoreSession.begin_closing`). Other uses of the database continue.
2. The arrivals end: callers that still wait for prices or for the opening of the database enqueue their calls. After
   the timeout they wait no longer, and their calls are spooled.
3. The batch writer of the database commits its calls for the rest of the timeout, then hands the others over to the
   batch writer of the spool.
4. The batch writer of the spool writes its calls to the disk. It gets `_SPOOL_TIMEOUT` seconds at least.
5. The replay moves spooled calls for the rest of the timeout, unless the database is away.
6. The thread of the spool ends. A call that comes later (`keep`) is spooled on another thread.
7. `LLMDatabase.close` ends the reading of own prices, and the session disconnects.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import AsyncIterable, Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from .._pricing.own_prices import OwnPrices
from .._store.session import StoreSession
from ..errors import (
    RecordRejectedError,
    SchemaOutdatedError,
    StorageClosedError,
    StorageError,
    StorageUnavailableError,
    WrongLoopError,
)
from ..schemas import CallRecord, RecordStatus
from ..storage.base import StorageBackend
from ..storage.types import RecordResult
from . import health
from .arrivals import Arrivals
from .batch_writer import BatchWriter, Probe
from .circuit_breaker import CircuitBreaker, DatabaseBreaker
from .metrics import CloseReport, Counters
from .record_builder import complete
from .rescue import Rescue
from .spool_replay import SpoolReplay

if TYPE_CHECKING:
    from .bulk import Given, RecordReport
    from .spool import Spool

T = TypeVar("T")

#: Seconds that writing to the spool gets at closing, however little of the timeout is left.
_SPOOL_TIMEOUT = 2.0

logger = logging.getLogger("llmbridge.recording")


class Writer(Protocol):
    """Records calls: `CallWriter` with a database, `NoWriter` without one."""

    @property
    def last_error(self) -> str | None:
        """The latest error of the database, without secrets; None: there was none."""

    async def record(
        self, given: Mapping[str, Any], priced_as: str | None = None
    ) -> tuple[CallRecord | None, RecordStatus | None]:
        """Return the record of a call and its status, once it is committed or spooled."""

    async def keep(
        self, given: Mapping[str, Any], priced_as: str | None = None
    ) -> tuple[CallRecord | None, RecordStatus | None]:
        """Return the record of a call and its status, whatever the database does."""

    async def record_all(
        self,
        calls: Iterable[Given] | AsyncIterable[Given],
        batch: int,
        progress: Callable[[RecordReport], object] | None,
    ) -> RecordReport:
        """Record many calls in batches, at the speed of the database."""

    async def check_spool(self) -> None:
        """Warn if calls could not wait anywhere during an outage."""

    def begin_replay(self) -> None:
        """Move the spooled calls to the database, which is open."""

    def give_up(self, error: StorageError) -> None:
        """Regard the database as away, and probe it until it is back."""

    def metrics(self) -> dict[str, int]:
        """Return counters of calls."""

    async def health(self, timeout: float) -> dict[str, Any]:
        """Return the state of the database and the spool."""

    async def close(self, timeout: float) -> CloseReport:
        """Write the pending calls, spool the rest."""


class CallWriter:
    """Records calls in one database from its opening to its closing.

    :param spool: where calls wait for the database (None: nowhere)
    :param spools: whether new calls are spooled; if not, they are lost in an outage, and what an earlier run spooled is
        replayed all the same
    :param timeout: seconds that a call waits for the database
    :param last_error: the latest error of the database before it was closed and opened again
    """

    def __init__(
        self,
        session: StoreSession,
        prices: OwnPrices,
        spool: Spool | None,
        *,
        timeout: float,
        spools: bool,
        counters: Counters,
        last_error: str | None = None,
    ) -> None:
        self._session = session
        self._prices = prices
        self._replayed_spool = spool
        self._spool = spool if spools else None
        self._timeout = timeout
        self._counters = counters
        self._arrivals = Arrivals()
        self._is_spool_checked = False
        self._has_warned_of_spool = False
        self._is_closed = False
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="llmbridge-spool")
        self._breaker = DatabaseBreaker(session.target, self._spool, counters)
        self._breaker.last_error = last_error
        self._replay: SpoolReplay | None = None
        if spool is not None:
            self._replay = SpoolReplay(
                spool,
                self._write,
                self._identify,
                on_thread=self._on_thread,
                counters=counters,
                breaker=self._breaker,
            )
        self._to_spool: BatchWriter | None = None
        if self._spool is not None:
            self._to_spool = self._batch_writer(
                self._put, CircuitBreaker(), destination="the spool", outcome="spooled", retries=False
            )
        self._to_database = self._batch_writer(self._write, self._breaker, fallback=self._to_spool)
        self._remove_start_step = session.on_start(self._on_start)

    @property
    def last_error(self) -> str | None:
        """The latest error of the database, without secrets; None: there was none."""
        return self._breaker.last_error

    async def record(
        self, given: Mapping[str, Any], priced_as: str | None = None, *, also_closed: bool = False
    ) -> tuple[CallRecord, RecordStatus]:
        """Return the complete record of a call and its status, once it is committed or spooled. With `also_closed` a
        call that comes after `close` is spooled.

        :raises RecordRejectedError: it can never be stored
        :raises StorageError: it is not known to be stored
        """
        since = None
        with self._arrivals:
            try:
                self._session.check_accepting()
                if not self._prices.is_fresh:
                    await self._prices.refresh()
                if not self._session.started:
                    since = asyncio.get_running_loop().time()
                    await self._open_database()
                record = self._counted_build(given, priced_as)
                outcome = self._to_database.record(record, since)
            except asyncio.CancelledError:  # the caller leaves, its call stays
                self._leave(given, priced_as)
                raise
            except (StorageClosedError, WrongLoopError):
                late = await self._spool_late(given, priced_as) if also_closed else None
                if late is None:
                    self._counters.calls_lost += 1
                    raise
                return late, "spooled"
        return record, await outcome

    async def keep(
        self, given: Mapping[str, Any], priced_as: str | None = None
    ) -> tuple[CallRecord | None, RecordStatus]:
        """Return the complete record of a call and its status, whatever the database does. It raises no error of the
        database. The record is None if it can never be stored."""
        try:
            return await self.record(given, priced_as, also_closed=True)
        except StorageError as error:
            failure: Exception = error
        except Exception as error:  # whatever it is, the caller has paid for the response and gets it
            self._counters.calls_lost += 1
            failure = error
        record = None
        with contextlib.suppress(Exception):
            record = self._build(given, priced_as)
        _log_loss(given, failure)
        return record, "lost"

    async def record_all(
        self,
        calls: Iterable[Given] | AsyncIterable[Given],
        batch: int,
        progress: Callable[[RecordReport], object] | None,
    ) -> RecordReport:
        """Record many calls in batches, at the speed of the database; none goes into the spool.

        :raises StorageError: the database failed; the calls of the batches before are stored
        """

        async def prepare() -> None:
            self._session.check_accepting()
            await self._session.start()
            if not self._prices.is_fresh:
                await self._prices.refresh()

        def build(given: Mapping[str, Any]) -> CallRecord:
            return self._build(given, None)

        from .bulk import BulkWriter

        writer = BulkWriter(prepare=prepare, build=build, write=self._write, timeout=self._timeout, progress=progress)
        try:
            return await writer.run(calls, batch)
        finally:
            report = writer.report
            self._counters.calls_committed += report.committed + report.duplicates
            self._counters.calls_duplicate += report.duplicates
            self._counters.calls_rejected += report.rejected

    async def check_spool(self) -> None:
        """Warn if calls could not wait anywhere while the database is away: once until the database is closed. A disk
        that does not answer delays this for at most the timeout."""
        if (checking := self._begin_spool_check()) is not None:
            await asyncio.wait([checking], timeout=self._timeout)

    def begin_replay(self) -> None:
        """Move the spooled calls to the database, which is open."""
        if self._replay is not None:
            self._replay.begin()

    def give_up(self, error: StorageError) -> None:
        """Regard the database as away because of `error`, and probe it until it is back."""
        self._to_database.give_up(error)

    def metrics(self) -> dict[str, int]:
        """Return the counters, and as `calls_waiting` the number of calls that wait for a commit now."""
        return {**asdict(self._counters), "calls_waiting": self._pending}

    async def health(self, timeout: float) -> dict[str, Any]:
        """Return whether the database answers within `timeout` seconds and takes calls, how many wait, and the state of
        the spool."""
        spool, database = await asyncio.gather(
            health.check_spool(
                self._replayed_spool, timeout, accepts_calls=self._spool is not None, on_thread=self._on_thread
            ),
            health.check_database(self._session, timeout),
        )
        if database["status"] == "healthy" and self._to_database.diverts:
            database = {"status": "unhealthy", "error": f"it answers, but does not take calls: {self.last_error}"}
        return {
            **database,
            "target": self._session.target,
            "spool": spool,
            "queue": self._pending,
            "last_error": self.last_error,
        }

    async def close(self, timeout: float) -> CloseReport:
        """Write the pending calls for at most `timeout` seconds, then spool the rest, and end the thread. The session
        accepts no more calls already. The head of this module explains the order."""
        until = time.monotonic() + timeout
        before = replace(self._counters)
        await self._arrivals.wait(timeout, _SPOOL_TIMEOUT)
        left = max(until - time.monotonic(), 0)
        await self._to_database.close(left)
        if self._to_spool is not None:
            await self._to_spool.close(max(until - time.monotonic(), _SPOOL_TIMEOUT))
        if self._replay is not None:
            await self._replay.end(0 if self._breaker.is_open else until - time.monotonic())
        self._is_closed = True
        self._remove_start_step()
        self._thread.shutdown(wait=False)
        report = CloseReport(
            committed=self._counters.calls_committed - before.calls_committed,
            spooled=self._counters.calls_spooled - before.calls_spooled,
            lost=self._counters.calls_lost - before.calls_lost,
        )
        if report.lost:
            logger.error("%d calls are not known to be recorded: the database did not take them", report.lost)
        return report

    @property
    def _pending(self) -> int:
        return self._to_database.pending + (self._to_spool.pending if self._to_spool is not None else 0)

    def _batch_writer(
        self,
        write: Callable[[Sequence[CallRecord]], Any],
        breaker: CircuitBreaker,
        *,
        destination: str = "the database",
        outcome: RecordStatus = "committed",
        retries: bool = True,
        fallback: BatchWriter | None = None,
    ) -> BatchWriter:
        return BatchWriter(
            write,
            timeout=self._timeout,
            destination=destination,
            counters=self._counters,
            breaker=breaker,
            outcome=outcome,
            retries=retries,
            fallback=fallback,
            make_probe=self._make_probe,
            rescue=Rescue(self._spool.put if self._spool is not None else None),
            replay=self._replay,
        )

    async def _write(self, calls: Sequence[CallRecord]) -> RecordResult:
        async def write(backend: StorageBackend) -> RecordResult:
            if calls:
                return await backend.record_calls(calls)
            await backend.ping()
            return RecordResult(0, 0)

        return await self._session.call(write)

    async def _identify(self) -> str | None:
        """Return the identity of the database that is reached now.

        :raises SchemaOutdatedError: it has none of the tables any more
        """
        status = await self._session.call(lambda backend: backend.schema_status())
        if status.current is None:
            raise SchemaOutdatedError("the database has no schema; run: llmbridge storage migrate --db URL")
        return status.identity

    def _make_probe(self, call: CallRecord) -> Probe:
        """Return the probe of the database with a call that is spooled now. Only the database that it is spooled for
        gets it; another one, or one that was never reached, is asked without a call."""
        file = self._spool.file if self._spool is not None and self._spool.is_recognized else None

        async def probe() -> RecordResult:
            may_get_it = file is not None and await self._identify() == file.identity
            return await self._write([call] if may_get_it else [])

        return probe

    async def _put(self, calls: Sequence[CallRecord]) -> RecordResult:
        assert self._spool is not None  # noqa: S101
        await self._on_thread(self._spool.put, calls)
        if self._replay is not None:
            self._replay.begin_if_reachable()
        return RecordResult(len(calls), 0)

    def _on_thread(self, work: Callable[..., T], *args: Any) -> asyncio.Future[T]:
        """Run what blocks on the thread of the spool, which nothing else blocks.

        :raises StorageClosedError: the writer is closed, and its thread has ended
        :raises WrongLoopError: the thread belongs to another process
        """
        self._session.check_process()
        if self._is_closed:
            raise StorageClosedError("the database is closed; open it again with `async with` or initialize()")
        return asyncio.get_running_loop().run_in_executor(self._thread, work, *args)

    async def _on_start(self, _: StorageBackend) -> None:
        """Check the spool of the database, which has just been opened, and move its calls to the database."""
        if self._replayed_spool is not None:
            self._replayed_spool.recognize(self._session.identity)
        self._is_spool_checked = False  # calls wait in another file now
        self._begin_spool_check()
        self.begin_replay()

    async def _open_database(self) -> None:
        """Open the database. If that fails it is away, and calls are spooled."""
        try:
            self._begin_spool_check()
            if self._to_database.diverts:
                return
            async with self._arrivals.opening(self._timeout):
                await self._session.start()
        except TimeoutError:
            error: StorageError = StorageUnavailableError("the database was not open in time")
        except (StorageClosedError, WrongLoopError):
            raise
        except StorageError as refused:
            error = refused
        except Exception as failure:  # an error of llmbridge itself must not lose a call that can be spooled
            error = StorageError(f"opening the database failed: {type(failure).__name__}")
            error.__cause__ = failure
        else:
            return
        if self._spool is None:
            self._breaker.note(error)
            self._counters.calls_lost += 1
            raise error
        self._to_database.give_up(error)

    def _build(self, given: Mapping[str, Any], priced_as: str | None) -> CallRecord:
        return complete(given, self._prices.book, priced_as)

    def _counted_build(self, given: Mapping[str, Any], priced_as: str | None) -> CallRecord:
        try:
            return self._build(given, priced_as)
        except RecordRejectedError:
            self._counters.calls_rejected += 1
            raise

    def _leave(self, given: Mapping[str, Any], priced_as: str | None) -> None:
        """Enqueue the call of a caller that was cancelled; log it if it is lost."""
        try:
            self._to_database.leave(self._counted_build(given, priced_as)).cancel()
        except RecordRejectedError as error:
            _log_loss(given, error)
        except Exception as error:
            self._counters.calls_lost += 1
            _log_loss(given, error)

    async def _spool_late(self, given: Mapping[str, Any], priced_as: str | None) -> CallRecord | None:
        """Spool a call that came after closing and return its record; None if it cannot be spooled."""
        if self._spool is None:
            return None
        try:
            record = self._build(given, priced_as)
            await asyncio.to_thread(self._spool.put, [record])
        except StorageError:
            return None
        self._counters.calls_spooled += 1
        return record

    def _begin_spool_check(self) -> asyncio.Future[None] | None:
        """Check at the first call of this method for each file whether calls could be spooled. Return None at the next
        calls."""
        if self._spool is None or self._is_spool_checked:
            return None
        self._is_spool_checked = True
        checking = self._on_thread(self._spool.check)
        checking.add_done_callback(self._warn_of_spool)
        return checking

    def _warn_of_spool(self, checking: asyncio.Future[None]) -> None:
        error = None if checking.cancelled() else checking.exception()
        if error is not None and not self._has_warned_of_spool:
            self._has_warned_of_spool = True
            logger.warning("%s; calls are lost while the database is away", error)


def make_spool(target: str | None, spool_dir: str | os.PathLike[str] | None) -> Spool | None:
    """Return the spool of a database; None if the database has no name to find it by."""
    if target is None:
        return None
    from .spool import Spool

    return Spool(target, spool_dir)


def _log_loss(given: Mapping[str, Any], error: Exception) -> None:
    told = error if isinstance(error, StorageError) else f"recording it raised {type(error).__name__}"
    logger.error("call %s is not known to be recorded: %s", given.get("id"), told)
