"""When a writer folds calls into totals: its own, and those that others have left."""

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

#: Calls of this writer that wait to be folded, at most, and when it closes. Reading adds them up each time.
FOLD_AFTER = 8_192
_FOLD_AT_CLOSE = 256
#: How many times as many wait before recording waits for folding.
_BEHIND = 4
#: Calls of others that are folded at a time, and when the writer closes.
_OF_OTHERS = 100_000
_OF_OTHERS_AT_CLOSE = 10_000
#: For how many seconds folding may hold a connection, delay the closing, and wait for its turn.
_SECONDS = 60.0
_CLOSE_SECONDS = 5.0
_TURN_SECONDS = 1.0

#: Does a piece of work on a connection within so many seconds.
Do = Callable[[Callable[[Connection], Awaitable[None]], float], Awaitable[None]]


class Folding:
    """Folds beside the callers of one backend, in no turn of theirs. What fails leaves the calls to a later time.

    Who opens a lot looks for those of writers that are gone: processes that record little, each a few calls, would
    otherwise leave a tail without bound.
    """

    def __init__(self, do: Do, fold_after: int, where: str) -> None:
        self.lot = rollups.Lot()
        self._do = do
        self._fold_after = fold_after
        self._where = where
        self._looked_with: int | None = None
        self._running: asyncio.Task[None] | None = None

    async def after_batch(self) -> None:
        """Begin to fold if it is time. Waits only for folding that does not keep up."""
        is_new = self.lot.number != self._looked_with
        if self._running is None and (is_new or self.lot.calls >= self._fold_after):
            self._looked_with = self.lot.number
            self._running = asyncio.create_task(self._fold(self._fold_after, _OF_OTHERS, _SECONDS))
        if self._running is not None and self.lot.calls >= _BEHIND * self._fold_after:
            await asyncio.wait([self._running])  # or the tail, which every answer adds up, would grow without bound

    async def before_closing(self) -> None:
        """Fold what is worth it, for a moment."""
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
            logger.debug("calls in %s wait to be folded into totals: %s", self._where, error)
        finally:
            self._running = None


async def _fold_due(connection: Connection, lot: rollups.Lot, least: int, of_others: int, where: str) -> None:
    """Fold the lot of a writer, if it has at least so many calls, and about `of_others` calls of writers that are gone,
    unless another has the turn for long."""
    idle = await rollups.idle_lots(connection, lot.number, of_others)
    if not idle and lot.calls < least:
        return
    async with connection.turn(timeout=_TURN_SECONDS):
        own: list[int] = []
        if lot.number is not None and lot.calls >= least:
            own, lot.number = [lot.number], None
        await rollups.fold(connection, [*own, *idle])
        await schema.check_writable(connection, where)
