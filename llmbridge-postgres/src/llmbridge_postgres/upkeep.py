"""What a store does with calls after they were recorded: fold, purge, reprice, copy, erase, check."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from datetime import datetime
from functools import partial
from typing import Any, TypeVar

from llmbridge.storage import CostChange, StorageBackend, TotalsPage, TotalsReport, TotalsRow
from llmbridge.storage.toolkit.shielded import Tasks

from . import erase, purge, reprice, rollups, totals_check, totals_copy
from .connection import Session

T = TypeVar("T")


class Upkeep(StorageBackend):
    """These methods of a backend, over a connection for one piece of work at a time."""

    _where: str
    #: What takes several pieces of work.
    _errands: Tasks

    @abstractmethod
    async def _write(self, work: Callable[[Session], Awaitable[T]]) -> T:
        """Do `work` on the connection that writes."""

    @abstractmethod
    async def _read(self, work: Callable[[Session], Awaitable[T]]) -> T:
        """Do `work` on a connection that reads."""

    async def purge_calls(self, before: datetime) -> int:
        midnight = before.replace(hour=0, minute=0, second=0, microsecond=0)

        async def purged() -> int:
            await self.fold_totals()  # ahead, so that what is left for the transaction that purges is little
            await self._write(partial(purge.purge, to=midnight, where=self._where))
            deleted = 0
            last: purge.Place | None = purge.BEFORE_ALL
            while last is not None:
                more, last = await self._write(partial(purge.delete, after=last, where=self._where))
                deleted += more
            return deleted

        return await self._errands.to_its_end(purged())

    async def reprice_calls(self, changes: Sequence[CostChange]) -> int:
        return await self._write(partial(reprice.reprice, changes=changes, where=self._where))

    async def read_totals(self, cursor: str | None = None) -> TotalsPage:
        return await self._read(partial(totals_copy.read_totals, cursor=cursor))

    async def write_totals(self, rows: Sequence[TotalsRow], watermark: datetime | None) -> None:
        await self._write(partial(totals_copy.write_totals, rows=rows, watermark=watermark, where=self._where))

    async def erase_user(self, origin: str, id_at_origin: str) -> int:
        async def erased() -> int:
            changed, may_go_on = 0, True
            while may_go_on:
                more, may_go_on = await self._write(
                    partial(erase.erase, origin=origin, user=id_at_origin, where=self._where)
                )
                changed += more
            return changed

        return await self._errands.to_its_end(erased())

    async def check_totals(self, repair: bool = False) -> TotalsReport:
        """As the contract says, a day at a time: the calls of a day that are folded, against its totals."""
        run: Callable[[Callable[[Session], Awaitable[TotalsReport]]], Coroutine[Any, Any, TotalsReport]]
        run = self._write if repair else self._read
        report, day = TotalsReport(), totals_check.FIRST
        while (found := await self._read(partial(totals_check.next_day, start=day))) is not None:
            one = await run(partial(totals_check.check_day, day=found, repair=repair, where=self._where))
            report = TotalsReport(
                report.checked + one.checked, report.wrong + one.wrong, report.repaired + one.repaired
            )
            day = found + totals_check.DAY
        return report

    async def fold_totals(self) -> None:
        """Fold all calls that are in no total yet. It happens by itself and changes no answer."""
        for lots in await self._read(rollups.lots_by_slices):
            await self._write(partial(rollups.fold_lots, lots=lots, where=self._where))
