"""State machine that reprices, erases, purges and folds calls: every backend must give the same results."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal
from uuid import UUID

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from llmbridge.storage import CostChange, StorageBackend, TotalsRow
from llmbridge_postgres import PostgreSQLBackend
from llmbridge_sqlite import SQLiteBackend

from . import values
from .calls_machine import WHICH, CallsParity


class MaintenanceParity(CallsParity):
    @precondition(lambda self: self.recorded)
    @rule(
        whose=st.lists(st.tuples(WHICH, values.or_none(values.money)), max_size=5),
        unknown=st.booleans(),
        reason=st.sampled_from(values.REASONS),
        at=values.times,
    )
    def reprice(self, whose: list[tuple[int, Decimal | None]], unknown: bool, reason: str, at: datetime) -> None:
        changes = [
            CostChange(self.call(which).id, cost, "caller", None if cost is not None else reason, "2024-05", at)
            for which, cost in whose
        ]
        changes += [CostChange(UUID(int=7), None, None, reason, None, at)] if unknown else []
        self.agree(lambda backend: backend.reprice_calls(changes))

    @precondition(lambda self: self.recorded)
    @rule(which=WHICH, origin=values.or_none(values.names))
    def erase(self, which: int, origin: str | None) -> None:
        """How many rows of totals that changes is each store's own affair."""
        call = self.call(which)
        whose = origin or call.origin, call.id_at_origin or "nobody"
        self.agree(lambda backend: backend.erase_user(*whose), bool)

    @precondition(lambda self: self.recorded)
    @rule(which=WHICH, days=st.integers(-1, 2))
    def purge(self, which: int, days: int) -> None:
        at = self.call(which).called_at
        before = at if not 2 < at.year < 9998 else at + timedelta(days=days)
        self.agree(lambda backend: backend.purge_calls(before))

    @rule()
    def fold(self) -> None:
        self.agree(_folded)

    @rule(repair=st.booleans())
    def check_totals(self, repair: bool) -> None:
        self.agree(lambda backend: backend.check_totals(repair), lambda report: (report.wrong, report.repaired))

    @rule(written=st.booleans())
    def read_totals(self, written: bool) -> None:
        """Read the totals of purged days, and sometimes write them back, which changes nothing."""
        rows, watermark = self.agree(_totals)
        if written:
            self.agree(lambda backend: backend.write_totals(rows, watermark))
            self.agree(_totals)

    def look_closer(self) -> None:
        self.agree(_totals)
        self.agree(lambda backend: backend.check_totals(), lambda report: report.wrong)


async def _folded(backend: StorageBackend) -> None:
    """Fold all totals now, where they are folded some time after the calls were recorded."""
    if isinstance(backend, SQLiteBackend | PostgreSQLBackend):
        await backend.fold_totals()


async def _totals(backend: StorageBackend) -> tuple[list[TotalsRow], datetime | None]:
    page = await backend.read_totals()
    rows = page.rows
    while page.next is not None:
        page = await backend.read_totals(page.next)
        rows += page.rows
    return rows, page.watermark
