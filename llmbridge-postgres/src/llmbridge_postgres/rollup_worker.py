"""Decides when a writer folds calls into rollups: its own calls, and those that other writers have left."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial

from llmbridge.storage import StorageError

from . import rollups, schema
from .connection import Connection

logger = logging.getLogger("llmbridge.postgres")

#: How many unfolded calls of this writer start a fold, normally and when it closes. Every query sums unfolded calls.
FOLD_AFTER = 8_192
_FOLD_AT_CLOSE = 256
#: Recording waits for the fold if this many times `FOLD_AFTER` calls are unfolded.
_BEHIND = 4
#: About how many calls of other writers are folded at a time, normally and when the writer closes.
_OF_OTHERS = 100_000
_OF_OTHERS_AT_CLOSE = 10_000
#: For how many seconds a fold may hold a connection, delay the closing, and wait for the lock on the rollups.
_SECONDS = 60.0
_CLOSE_SECONDS = 5.0
_LOCK_SECONDS = 1.0

#: Runs an operation on a connection, for at most so many seconds.
Do = Callable[[Callable[[Connection], Awaitable[None]], float], Awaitable[None]]


class RollupWorker:
    """Folds calls of one backend in the background. If a fold fails, the calls are folded later.

    Whenever the backend has opened a lot, it also folds the lots of writers that have ended. Otherwise many processes
    that record a few calls each would leave an unlimited number of unfolded calls.
    """

    def __init__(self, do: Do, fold_after: int, where: str) -> None:
        self.lot = rollups.Lot()
        self._do = do
        self._fold_after = fold_after
        self._where = where
        self._looked_with: int | None = None
        self._running: asyncio.Task[None] | None = None

    async def after_batch(self) -> None:
        """Start a fold if enough calls are unfolded. Wait for it only if folding does not keep up."""
        is_new = self.lot.number != self._looked_with
        if self._running is None and (is_new or self.lot.calls >= self._fold_after):
            self._looked_with = self.lot.number
            self._running = asyncio.create_task(self._fold(self._fold_after, _OF_OTHERS, _SECONDS))
        if self._running is not None and self.lot.calls >= _BEHIND * self._fold_after:
            await asyncio.wait([self._running])  # otherwise the number of unfolded calls would have no bound

    async def before_closing(self) -> None:
        """Fold for at most `_CLOSE_SECONDS`, if there are enough unfolded calls."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_SECONDS):
                if self._running is not None:
                    await self._running
                if self.lot.number is not None:
                    await self._fold(min(self._fold_after, _FOLD_AT_CLOSE), _OF_OTHERS_AT_CLOSE, _CLOSE_SECONDS)
        self.lot, self._looked_with = rollups.Lot(), None

    async def _fold(self, least: int, of_others: int, seconds: float) -> None:
        work = partial(_fold_due, lot=self.lot, least=least, of_others=of_others, where=self._where)
        try:
            await self._do(work, seconds)
        except StorageError as error:
            logger.debug("calls in %s were not folded into rollups, which happens later: %s", self._where, error)
        finally:
            self._running = None


async def _fold_due(connection: Connection, lot: rollups.Lot, least: int, of_others: int, where: str) -> None:
    """Fold the lot of a writer if it has at least `least` calls, and about `of_others` calls of writers that have
    ended. Give up if another process holds the lock for `_LOCK_SECONDS`."""
    idle = await rollups.idle_lots(connection, lot.number, of_others)
    if not idle and lot.calls < least:
        return
    async with connection.rollup_transaction(timeout=_LOCK_SECONDS):
        own: list[int] = []
        if lot.number is not None and lot.calls >= least:
            own, lot.number = [lot.number], None
        await rollups.fold(connection, [*own, *idle])
        await schema.check_writable(connection, where)
