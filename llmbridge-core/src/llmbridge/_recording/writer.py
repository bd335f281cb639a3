"""The way of a call onto the books: complete it, wait for its commit, say what became of it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from .._models.registry import ModelRegistry
from .._shared.redaction import redact
from .._store.session import Session
from ..errors import RecordRejectedError, StorageClosedError, StorageError, StorageUnavailableError, WrongLoopError
from ..schemas import CallRecord, RecordStatus
from .batch_writer import Recorder
from .desk import LEAST_SPOOLING, Desk
from .metrics import CloseReport, Counters
from .record_builder import complete

if TYPE_CHECKING:
    from .spool import Spool

logger = logging.getLogger("llmbridge.journal")


class Journal:
    """Records calls in one store, each within `timeout` seconds; what the store does not take by then waits in the
    `spool` (None: it is lost). Without `spools` it is lost too, and what waits from an earlier run is moved."""

    def __init__(
        self, session: Session, registry: ModelRegistry, spool: Spool | None, *, timeout: float, spools: bool
    ) -> None:
        self._session = session
        self._registry = registry
        self._spool = spool if spools else None
        self._replayed = spool
        self._timeout = timeout
        self._counters = Counters()
        self._desk: Desk | None = None
        self._is_closed = False
        self._arriving = 0
        self._all_arrived: asyncio.Event | None = None
        self._opening: set[asyncio.Timeout] = set()
        self._is_checked = False
        self._last_error: str | None = None
        self._away_since = 0.0
        self._before_outage = Counters()

    async def record(
        self, given: Mapping[str, Any], priced_as: str | None = None, *, kept: bool = False
    ) -> tuple[CallRecord, RecordStatus]:
        """The complete record of a call and what became of it, once it is committed or spooled; one that is to be
        `kept` is spooled also after the books were closed.

        :raises RecordRejectedError: it can never be stored
        :raises StorageError: it is not known to be stored
        """
        since = None
        self._arriving += 1
        try:
            self._check_open()
            desk = self._desk or self._open_desk()
            if not self._registry.is_fresh:
                await self._registry.refresh()
            if self._session.started:
                self._session.check_owner()
            else:
                since = asyncio.get_running_loop().time()
                await self._reach_store(desk.recorder)
            record = self._accepted(given, priced_as)
            outcome = desk.recorder.record(record, since)
        except asyncio.CancelledError:  # the caller leaves, and the call does not
            self._abandon(given, priced_as)
            raise
        except (StorageClosedError, WrongLoopError):
            late = await self._spool_late(given, priced_as) if kept else None
            if late is None:
                self._counters.calls_lost += 1
                raise
            return late, "spooled"
        finally:
            self._arriving -= 1
            if self._all_arrived is not None and not self._arriving:
                self._all_arrived.set()
        return record, await outcome

    async def keep(
        self, given: Mapping[str, Any], priced_as: str | None = None
    ) -> tuple[CallRecord | None, RecordStatus]:
        """The complete record of a call and what became of it, whatever the store does.

        The record is None where it can never be stored.
        """
        try:
            return await self.record(given, priced_as, kept=True)
        except StorageError as error:
            failure: Exception = error
        except Exception as error:  # whatever it is, the caller has paid for the answer and gets it
            self._counters.calls_lost += 1
            failure = error
        record = None
        with contextlib.suppress(Exception):
            record = self._completed(given, priced_as)
        self._tell_loss(given, failure)
        return record, "lost"

    def admit(self) -> None:
        """Take calls again after `close`."""
        self._is_closed = False

    async def check_spool(self) -> None:
        """Warn, once, if there is no place where calls could wait while the store is away. A place that takes longer
        than the timeout to look at keeps nobody."""
        if (checking := self._check_spool_soon()) is not None:
            await asyncio.wait([checking], timeout=self._timeout)

    def store_is_open(self) -> None:
        """Begin to move what waits in the spool, unless the start has ended after the closing began."""
        if self._is_closed:
            return
        replay = self._open_desk().replay
        if replay is not None:
            replay.begin()

    def store_is_away(self, error: StorageError) -> None:
        """Take it from whoever found out, and look for the store until it is back."""
        self._open_desk().recorder.give_up(error)

    def metrics(self) -> dict[str, int]:
        """The counters, and how many calls wait for a commit now."""
        return {**asdict(self._counters), "calls_waiting": self._waiting()}

    async def health(self, timeout: float) -> dict[str, Any]:
        """Whether the store answers within `timeout` seconds and takes calls; how many wait; what the spool holds."""
        spool, store = await asyncio.gather(self._look_into_spool(timeout), self._ask_store(timeout))
        return {
            **store,
            "target": self._session.backend.target,
            "spool": spool,
            "queue": self._waiting(),
            "last_error": self._last_error,
        }

    def turn_away(self) -> None:
        """Take no more calls.

        :raises WrongLoopError: another event loop or process has calls that wait
        """
        if self._desk is not None:
            self._session.check_owner()
        self._is_closed = True

    async def close(self, timeout: float) -> CloseReport:
        """After `turn_away`, write what waits for at most `timeout` seconds, then spool the rest. Idempotent, but to be
        called again only when it has ended."""
        if self._desk is None:
            return CloseReport()
        until = time.monotonic() + timeout
        before = replace(self._counters)
        await self._let_all_arrive(timeout)
        await self._desk.close(max(until - time.monotonic(), 0))
        self._desk = None
        report = CloseReport(
            committed=self._counters.calls_committed - before.calls_committed,
            spooled=self._counters.calls_spooled - before.calls_spooled,
            lost=self._counters.calls_lost - before.calls_lost,
        )
        if report.lost:
            logger.error("%d calls are not known to be on the books: the store did not take them", report.lost)
        return report

    def away(self, error: StorageError) -> None:
        """Say, once per outage, that it began."""
        self._counters.outages += 1
        self._last_error = redact(f"{type(error).__name__}: {error}")
        self._away_since = time.monotonic()
        self._before_outage = replace(self._counters)
        what = f"wait in {self._spool.path}" if self._spool is not None and self._spool.has_place else "are lost"
        logger.warning("%s is away, calls %s until it is back: %s", self._store, what, self._last_error)

    def back(self) -> None:
        """Say that the outage is over, and move what waited."""
        logger.warning(
            "%s is back after %.1f s; meanwhile %d calls were spooled and %d lost",
            self._store,
            time.monotonic() - self._away_since,
            self._counters.calls_spooled - self._before_outage.calls_spooled,
            self._counters.calls_lost - self._before_outage.calls_lost,
        )
        if self._desk is not None and self._desk.replay is not None:
            self._desk.replay.begin()

    @property
    def _store(self) -> str:
        return f"the store {self._session.backend.target}" if self._session.backend.target else "the store"

    async def _reach_store(self, recorder: Recorder) -> None:
        """Open the store. If that fails, and calls can wait, it is away."""
        try:
            self._check_spool_soon()
            if recorder.yields:
                return
            await self._open_store()
        except TimeoutError:
            error: StorageError = StorageUnavailableError("the store was not open in time")
        except (StorageClosedError, WrongLoopError):
            raise
        except StorageError as refused:
            error = refused
        else:
            return
        if self._spool is None:
            self._last_error = redact(f"{type(error).__name__}: {error}")
            self._counters.calls_lost += 1
            raise error
        recorder.give_up(error)

    async def _open_store(self) -> None:
        """Wait for the store as long as a call may, or until the books have no more time to close."""
        async with asyncio.timeout(self._timeout) as patience:
            self._opening.add(patience)
            try:
                await self._session.start()
            finally:
                self._opening.discard(patience)

    async def _let_all_arrive(self, timeout: float) -> None:
        """Wait for callers whose calls are not in the queue yet. After `timeout` seconds the store is taken to be away
        by those who wait for it to open."""
        self._all_arrived = asyncio.Event()
        if self._arriving:
            hurry = asyncio.get_running_loop().call_later(timeout, self._open_no_longer)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout + LEAST_SPOOLING):
                    await self._all_arrived.wait()
            hurry.cancel()
        self._all_arrived = None

    def _open_no_longer(self) -> None:
        for patience in self._opening:
            if not patience.expired():
                patience.reschedule(asyncio.get_running_loop().time())

    def _accepted(self, given: Mapping[str, Any], priced_as: str | None) -> CallRecord:
        try:
            return self._completed(given, priced_as)
        except RecordRejectedError:
            self._counters.calls_rejected += 1
            raise

    def _check_open(self) -> None:
        if self._is_closed:
            raise StorageClosedError("the books are closed")

    def _completed(self, given: Mapping[str, Any], priced_as: str | None = None) -> CallRecord:
        return complete(given, self._registry.prices, priced_as)

    def _abandon(self, given: Mapping[str, Any], priced_as: str | None) -> None:
        """Put a call in the queue although its caller has left; that it is lost is logged."""
        try:
            self._open_desk().recorder.leave(self._accepted(given, priced_as)).cancel()
        except RecordRejectedError as error:
            self._tell_loss(given, error)
        except Exception as error:
            self._counters.calls_lost += 1
            self._tell_loss(given, error)

    async def _spool_late(self, given: Mapping[str, Any], priced_as: str | None) -> CallRecord | None:
        """The record of a call that came too late, once it waits for the next start; None where it cannot."""
        if self._spool is None:
            return None
        try:
            record = self._completed(given, priced_as)
            await asyncio.to_thread(self._spool.put, [record])
        except StorageError:
            return None
        self._counters.calls_spooled += 1
        return record

    def _tell_loss(self, given: Mapping[str, Any], error: Exception) -> None:
        told = error if isinstance(error, StorageError) else f"recording it raised {type(error).__name__}"
        logger.error("call %s is not known to be on the books: %s", given.get("id"), told)

    def _open_desk(self) -> Desk:
        if self._desk is None:
            self._session.check_owner()
            self._check_open()
            self._desk = Desk(
                self._session,
                self._replayed,
                self._counters,
                self,
                self._timeout,
                spools=self._spool is not None,
            )
        return self._desk

    def _waiting(self) -> int:
        return self._desk.waiting if self._desk is not None else 0

    def _check_spool_soon(self) -> asyncio.Future[None] | None:
        """Look, the first time, whether calls could wait; None the next times."""
        if self._spool is None or self._is_checked:
            return None
        self._is_checked = True
        checking = self._open_desk().on_thread(self._spool.check)
        checking.add_done_callback(_tell_check)
        return checking

    async def _ask_store(self, timeout: float) -> dict[str, Any]:
        try:
            async with asyncio.timeout(timeout):
                await self._session.start()
                with self._session.guard():
                    await self._session.backend.ping()
        except TimeoutError:
            return {"status": "unhealthy", "error": _late(timeout)}
        except Exception as error:
            return {"status": "unhealthy", "error": f"{type(error).__name__}: {redact(str(error))}"}
        recorder = self._desk.recorder if self._desk is not None else None
        if recorder is not None and recorder.yields:  # which looks for it, and will find out when it does again
            return {"status": "unhealthy", "error": f"it answers, and takes no calls: {self._last_error}"}
        return {"status": "healthy"}

    async def _look_into_spool(self, timeout: float) -> dict[str, Any] | None:
        spool = self._replayed
        if spool is None:
            return None
        seen = {"path": str(spool.path) if spool.has_place else None, "waiting": None, "set_aside": None}
        try:
            async with asyncio.timeout(timeout):
                desk = self._open_desk()
                if self._spool is None and not await desk.on_thread(spool.is_there):
                    return None
                await desk.on_thread(spool.check)
                return {**seen, **asdict(await desk.on_thread(spool.counts)), "error": None}
        except TimeoutError:
            return {**seen, "error": _late(timeout)}
        except Exception as error:
            return {**seen, "error": redact(str(error))}


def _tell_check(checking: asyncio.Future[None]) -> None:
    if not checking.cancelled() and (error := checking.exception()) is not None:
        logger.warning("%s; calls are lost while the store is away", error)


def _late(timeout: float) -> str:
    return f"no answer within {timeout:g} s"


def make_spool(target: str | None, spool_dir: str | os.PathLike[str] | None) -> Spool | None:
    """Where calls of that store wait; None for one that has no name to find them by."""
    if target is None:
        return None
    from .spool import Spool

    return Spool(target, spool_dir)
