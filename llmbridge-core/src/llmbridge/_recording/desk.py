"""What works between the first record and the closing of the books."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

from .._store.session import Session
from ..schemas import CallRecord
from ..storage.types import RecordResult
from .batch_writer import Recorder, Watcher
from .metrics import Counters
from .spool_replay import Replay

if TYPE_CHECKING:
    from .spool import Spool

T = TypeVar("T")

#: Seconds until calls that were saved from a writer that was stopped are moved: its event loop may be ending, too.
_AFTER_RESCUE = 1.0
#: Seconds that writing to the spool gets at the closing, however little of the timeout is left.
LEAST_SPOOLING = 2.0


class Desk:
    """One recorder that writes to the store, one that writes to the `spool`, and what moves calls from there.

    Without `spools` nothing is written to the spool, and what is there already is moved.
    """

    def __init__(
        self,
        session: Session,
        spool: Spool | None,
        counters: Counters,
        watcher: Watcher,
        patience: float,
        *,
        spools: bool,
    ) -> None:
        self._session = session
        self._spool = spool
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="llmbridge-spool")
        self._spooler: Recorder | None = None
        self.replay: Replay | None = None
        rescue = spool.put if spool is not None and spools else None
        if rescue is not None:
            self._spooler = Recorder(
                self._put,
                patience=patience,
                counters=counters,
                outcome="spooled",
                retries=False,
                rescue=rescue,
                on_rescue=self._move_later,
            )
        if spool is not None:
            self.replay = Replay(spool, self._write, on_thread=self.on_thread, counters=counters)
        self.recorder = Recorder(
            self._write,
            patience=patience,
            counters=counters,
            fallback=self._spooler,
            rescue=rescue,
            on_rescue=self._move_later,
            watcher=watcher,
        )

    @property
    def waiting(self) -> int:
        """How many calls wait for a commit, to the store or to the spool."""
        return self.recorder.pending + (self._spooler.pending if self._spooler is not None else 0)

    def on_thread(self, work: Callable[..., T], *args: Any) -> asyncio.Future[T]:
        """Do what blocks on a thread that nothing else blocks."""
        return asyncio.get_running_loop().run_in_executor(self._thread, work, *args)

    async def close(self, timeout: float) -> None:
        """Write what waits for at most `timeout` seconds, to the store and then to the spool, and end the thread."""
        until = time.monotonic() + timeout
        await self.recorder.close(timeout)
        if self._spooler is not None:
            await self._spooler.close(max(until - time.monotonic(), LEAST_SPOOLING))
        if self.replay is not None:
            await self.replay.end(until - time.monotonic() if self.recorder.trouble is None else 0)
        self._thread.shutdown(wait=False)

    async def _write(self, calls: Sequence[CallRecord]) -> RecordResult:
        await self._session.start()
        with self._session.guard():
            if calls:
                return await self._session.backend.record_calls(calls)
            await self._session.backend.ping()
            return RecordResult(0, 0)

    async def _put(self, calls: Sequence[CallRecord]) -> RecordResult:
        assert self._spool is not None  # noqa: S101
        await self.on_thread(self._spool.put, calls)
        self._move_what_waits()
        return RecordResult(len(calls), 0)

    def _move_later(self) -> None:
        asyncio.get_running_loop().call_later(_AFTER_RESCUE, self._move_what_waits)

    def _move_what_waits(self) -> None:
        """Unless the store is away: whoever finds it again does it then."""
        if self.replay is not None and self.recorder.trouble is None:
            self.replay.begin()
