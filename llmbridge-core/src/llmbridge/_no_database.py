"""Null objects of an LLMDatabase without a database: the backend, its session and its writer.

Nothing is stored, every read returns an empty result, and calls are priced but not recorded.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar

from ._pricing.own_prices import OwnPrices
from ._recording.metrics import CloseReport
from ._recording.record_builder import complete
from ._store.session import StoreSession
from .errors import StorageError
from .schemas import CallRecord, LLMModel, RecordStatus
from .storage.base import StorageBackend
from .storage.types import (
    CallPage,
    CallQuery,
    CostChange,
    MigrationReport,
    ModelPrice,
    RecordResult,
    SchemaStatus,
    TotalsPage,
    TotalsRow,
    UpsertResult,
    UsageQuery,
    UsageRow,
)

if TYPE_CHECKING:
    from ._recording.bulk import Given, RecordReport

T = TypeVar("T")


class NoBackend(StorageBackend):
    """A backend that stores nothing. Every method returns what an empty database would, or an empty list."""

    async def connect(self) -> None:
        """Do nothing."""

    async def disconnect(self) -> None:
        """Do nothing."""

    async def apply_migrations(self) -> MigrationReport:
        """Return a report without migrations."""
        return MigrationReport([], [], 0)

    async def schema_status(self) -> SchemaStatus:
        """Return the status of a schema without migrations."""
        return SchemaStatus(None, "", [], writable=True)

    async def upsert_models(self, models: Sequence[LLMModel]) -> UpsertResult:
        """Return that no model was inserted or updated."""
        return UpsertResult(0, 0)

    async def list_models(
        self, provider: str | None = None, model_name: str | None = None, active_only: bool = True
    ) -> list[LLMModel]:
        """Return no models."""
        return []

    async def retire_models(self, keys: Sequence[tuple[str, str]], at: datetime) -> int:
        """Return 0."""
        return 0

    async def set_prices(self, prices: Sequence[ModelPrice]) -> None:
        """Do nothing."""

    async def list_prices(self, provider: str | None = None, model_name: str | None = None) -> list[ModelPrice]:
        """Return no prices."""
        return []

    async def record_calls(self, calls: Sequence[CallRecord]) -> RecordResult:
        """Return that no call was stored."""
        return RecordResult(0, 0)

    async def list_calls(self, query: CallQuery) -> CallPage:
        """Return an empty page."""
        return CallPage([], None)

    async def summarize_usage(self, query: UsageQuery) -> list[UsageRow]:
        """Return no rows, not even the row of zeros that a database gives without grouping."""
        return []

    async def ping(self) -> None:
        """Do nothing."""

    async def purge_calls(self, before: datetime) -> int:
        """Return 0."""
        return 0

    async def reprice_calls(self, changes: Sequence[CostChange]) -> int:
        """Return 0."""
        return 0

    async def read_totals(self, cursor: str | None = None) -> TotalsPage:
        """Return an empty page without a watermark."""
        return TotalsPage([], None, None)

    async def write_totals(self, rows: Sequence[TotalsRow], watermark: datetime | None) -> None:
        """Do nothing."""

    async def compact(self) -> int:
        """Return 0."""
        return 0

    async def erase_user(self, origin: str, id_at_origin: str) -> int:
        """Return 0."""
        return 0


class NoSession(StoreSession):
    """A session without a database. Nothing is opened, so any event loop and any process may use it."""

    def __init__(self) -> None:
        super().__init__(NoBackend(), migrate="auto")

    async def call(self, use: Callable[[StorageBackend], Awaitable[T]]) -> T:
        """Return what `use` returns for an empty backend."""
        return await use(self.backend)

    def start_soon(self) -> asyncio.Task[None] | None:
        """Return None: there is nothing to open."""
        return None

    async def migrate(self) -> MigrationReport:
        """Return a report without migrations."""
        return await self.backend.apply_migrations()

    async def schema_status(self) -> SchemaStatus:
        """Return the status of a schema without migrations."""
        return await self.backend.schema_status()

    def begin_closing(self) -> None:
        """Do nothing."""

    async def stop(self, timeout: float) -> None:
        """Do nothing."""

    def check_owner(self) -> None:
        """Do nothing."""


class NoWriter:
    """The writer without a database: it completes records and keeps none."""

    last_error = None

    def __init__(self, prices: OwnPrices) -> None:
        self._prices = prices

    async def record(
        self, given: Mapping[str, Any], priced_as: str | None = None
    ) -> tuple[CallRecord | None, RecordStatus | None]:
        """Return (None, None): nothing is recorded."""
        return None, None

    async def keep(
        self, given: Mapping[str, Any], priced_as: str | None = None
    ) -> tuple[CallRecord | None, RecordStatus | None]:
        """Return the complete, priced record, and None: it is not recorded."""
        await self._prices.refresh()
        return complete(given, self._prices.book, priced_as), None

    async def record_all(
        self,
        calls: Iterable[Given] | AsyncIterable[Given],
        batch: int,
        progress: Callable[[RecordReport], object] | None,
    ) -> RecordReport:
        """Return an empty report: nothing is recorded."""
        from ._recording.bulk import RecordReport

        return RecordReport()

    async def check_spool(self) -> None:
        """Do nothing."""

    def begin_replay(self) -> None:
        """Do nothing."""

    def give_up(self, error: StorageError) -> None:
        """Do nothing."""

    def metrics(self) -> dict[str, int]:
        """Return no counters."""
        return {}

    async def health(self, timeout: float) -> dict[str, Any]:
        """Return the status `disabled`."""
        return {"status": "disabled"}

    async def close(self, timeout: float) -> CloseReport:
        """Return an empty report."""
        return CloseReport()
