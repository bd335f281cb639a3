"""The storage contract: what a database must do to keep the books."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from datetime import datetime
from types import TracebackType
from typing import Any, Self

from ..errors import UnsupportedOperationError
from ..schemas import CallRecord, LLMModel
from .types import (
    CallPage,
    CallQuery,
    CostChange,
    MigrationReport,
    ModelPrice,
    RecordResult,
    SchemaStatus,
    TotalsPage,
    TotalsReport,
    TotalsRow,
    UpsertResult,
    UsageQuery,
    UsageRow,
)


class StorageBackend(ABC):
    """A store of calls, models and prices. It stores and sums; ids, time, money and calendars are core's.

    **What comes in** is in canonical form: times are aware, in UTC, to the microsecond; money is a `Decimal` of
    at most 12 decimal places whose units of 1e-12 dollar fit 64 bits; integers fit 64 bits; text has no NUL and
    no lone surrogate; questions were checked when they were made.

    **What goes out** equals what came in: every field of every record, money to the last digit, None as None.

    **Order.** Text compares and sorts by code point, None before any text.

    **Atomicity.** Each method happens wholly or not at all, also when its task is cancelled or, but for what
    `purge_calls` and `erase_user` say, the process dies, and is durable when it returns. A cancelled method leaves the
    backend usable.

    **Concurrency.** Methods may run at the same time on one event loop. Several backend objects, and several
    processes where the plugin declares `multiprocess`, may use one store and lose nothing.

    **The law of sums.** `summarize_usage` equals a scan of every call ever recorded, exactly, for any filter,
    grouping and edges: `storage.reference.summarize` is that law as code.

    **Errors.** A driver's exception never leaves a method. What could succeed later is
    `StorageUnavailableError`, what will not mend by itself `StorageRefusedError`, a value that can never be
    stored `RecordRejectedError`, use before `connect` or after `disconnect` `StorageClosedError`, use from
    another event loop or a forked child `WrongLoopError`. No text shows a password.
    """

    #: Which store this is, for people and for what core keeps per store: scheme, host, port, database and schema
    #: or a resolved path; never user, password or options. None: in memory, or made by hand. Core sets it.
    target: str | None = None

    @abstractmethod
    async def connect(self) -> None:
        """Open the store, creating it if needed; never migrate. Idempotent, also after `disconnect`.

        :raises StorageUnavailableError: it cannot be reached now
        :raises StorageRefusedError: it is not ours, corrupt, or not open to us; nothing was written
        """

    @abstractmethod
    async def disconnect(self) -> None:
        """Wait for running calls, then release every connection, thread and file. Idempotent."""

    async def __aenter__(self) -> Self:
        await self.connect()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.disconnect()

    @abstractmethod
    async def apply_migrations(self) -> MigrationReport:
        """Bring the schema to this release's head, each migration in one transaction with its record.

        Safe to call from many processes at once: one migrates, the others wait and then skip. A store without a
        schema keeps one version mark.

        :raises MigrationError: one failed (it left nothing), or an applied one is not the one we ship
        :raises SchemaTooNewError: a newer release says that this one may not write the store
        """

    @abstractmethod
    async def schema_status(self) -> SchemaStatus:
        """How far the store is migrated. Writes nothing."""

    @abstractmethod
    async def upsert_models(self, models: Sequence[LLMModel]) -> UpsertResult:
        """Insert or replace by (provider, model_name); all but `created_at` is replaced, which stays as first
        stored. Of several models with one key the last wins and counts once."""

    @abstractmethod
    async def list_models(
        self, provider: str | None = None, model_name: str | None = None, active_only: bool = True
    ) -> list[LLMModel]:
        """Models in order of (provider, model_name). None does not filter; `active_only` leaves out retired ones."""

    @abstractmethod
    async def retire_models(self, keys: Sequence[tuple[str, str]], at: datetime) -> int:
        """Set `inactive_from` and `updated_at` to `at` on the active models among the (provider, model_name)
        `keys`, and return how many there were. Unknown keys and models already retired are left alone."""

    @abstractmethod
    async def set_prices(self, prices: Sequence[ModelPrice]) -> None:
        """Insert or replace own prices by (provider, model_name, effective_from); the last of a key wins."""

    @abstractmethod
    async def list_prices(self, provider: str | None = None, model_name: str | None = None) -> list[ModelPrice]:
        """Own prices in order of (provider, model_name, effective_from). None does not filter."""

    @abstractmethod
    async def record_calls(self, calls: Sequence[CallRecord]) -> RecordResult:
        """Store at most `MAX_BATCH` calls, all or none.

        Idempotent by id, within the batch and against the store: the first of an id stays as it is, every
        further one counts as a duplicate and touches no sum. A call before the watermark of a purged store is
        not stored; its id is returned in `expired`.

        :raises RecordRejectedError: one of them can never be stored; none was
        :raises ValueError: more than `MAX_BATCH` calls; the text names that number
        """

    @abstractmethod
    async def list_calls(self, query: CallQuery) -> CallPage:
        """Stored calls by (called_at, id), both descending; ids compare as their 128-bit numbers. Pages by
        keyset: calls recorded meanwhile neither repeat nor hide one."""

    @abstractmethod
    async def summarize_usage(self, query: UsageQuery) -> list[UsageRow]:
        """The sums of the query, per the law. Ungrouped: exactly one row, zeros if nothing matches. Grouped: no
        row without calls, ordered by the fields of `group_by` as given, None first.

        :raises PurgedDetailError: the answer needs finer detail than the totals of purged days have: its edges cut
            matching cells, the last of which ends at `earliest`, or it is about tags or types of errors of purged
            calls, and `earliest` is the watermark
        """

    @abstractmethod
    async def ping(self) -> None:
        """Make one round trip to the store.

        :raises StorageUnavailableError: it cannot be reached now
        """

    async def purge_calls(self, before: datetime) -> int:
        """Delete the calls before `before`, rounded down to a UTC day, and return how many; sums over them stay,
        at the grains of `TotalsRow`, and the watermark moves to that day. It never moves back. Purged calls are gone
        for whoever asks at once; they may be deleted in several transactions, and after a failure by the next purge.
        [purge]

        :raises UnsupportedOperationError: the backend lacks the capability
        """
        raise UnsupportedOperationError(f"{type(self).__name__} cannot purge calls")

    async def reprice_calls(self, changes: Sequence[CostChange]) -> int:
        """Give calls new costs, in one transaction, and return how many were stored. The cost and reason that
        stood before move to `previous_cost` and `previous_cost_reason`, `repriced_at` becomes `at`, and sums
        follow. Ids that are not stored are left out; of one id the last change wins. Left out as well is a change
        to what stands already (cost, cost_source, cost_reason and price_version): two who decide the same at the
        same time lose no former cost. [reprice]

        :raises UnsupportedOperationError: the backend lacks the capability
        """
        raise UnsupportedOperationError(f"{type(self).__name__} cannot reprice calls")

    async def read_totals(self, cursor: str | None = None) -> TotalsPage:
        """Totals of purged days, ordered by (grain, start, key), from `cursor` on (None: from the start). [copy]

        :raises UnsupportedOperationError: the backend lacks the capability
        """
        raise UnsupportedOperationError(f"{type(self).__name__} cannot read totals")

    async def write_totals(self, rows: Sequence[TotalsRow], watermark: datetime | None) -> None:
        """Replace totals of purged days by (grain, start, key), and move the watermark forward to `watermark`
        (None leaves it). [copy]

        :raises UnsupportedOperationError: the backend lacks the capability
        """
        raise UnsupportedOperationError(f"{type(self).__name__} cannot write totals")

    async def erase_user(self, origin: str, id_at_origin: str) -> int:
        """Make `id_at_origin` None wherever it stands with this origin, in calls and in totals; the sums stay.
        Return how many changed: calls, and rows of purged days' totals with the grain of a day, as `read_totals`
        gives them. May take several transactions, between which the sums are exact: what a failure has left the next
        time takes. [erase]

        :raises UnsupportedOperationError: the backend lacks the capability
        """
        raise UnsupportedOperationError(f"{type(self).__name__} cannot erase users")

    async def check_totals(self, repair: bool = False) -> TotalsReport:
        """Count every kept total anew from the stored calls, and with `repair` put right what is wrong. A store
        that keeps no totals of stored calls has nothing to check."""
        return TotalsReport()


class SQLAccess(ABC):
    """Plain SQL on the store, for people; a separate promise of backends that speak SQL (capability `sql`).

    Parameters are `$1`, `$2`, …: numbered, reusable in any order. `{{tables.NAME}}` is the qualified name of a
    table and `{{schema}}` the schema; inside string literals, quoted names and comments nothing is touched.
    Statements run on the write connection, each committed by itself and never inside a batch. Statements that
    begin or end a transaction are refused with ValueError.
    """

    @abstractmethod
    async def execute(self, query: str, *args: Any) -> None:
        """Run one statement and commit it."""

    @abstractmethod
    async def fetch_one(self, query: str, *args: Any) -> dict[str, Any] | None:
        """The first row, by column name; None when there is none."""

    @abstractmethod
    async def fetch_all(self, query: str, *args: Any) -> list[dict[str, Any]]:
        """All rows, by column name."""

    @abstractmethod
    async def fetch_value(self, query: str, *args: Any) -> Any:
        """The first column of the first row; None when there is none."""

    @abstractmethod
    async def execute_and_return_id(self, query: str, *args: Any) -> int:
        """Run one INSERT, commit it, and return the `id` of the new row."""
