"""Storage contract: the abstract methods that a backend implements, and the guarantees that core relies on."""

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
    """Interface to a store of calls, models and prices.

    A backend stores and sums. Core makes ids, reads the clock, computes costs and knows calendars.

    **Input** is in canonical form: times are aware, in UTC, to the microsecond; money is a `Decimal` of at most 12
    decimal places whose units of 1e-12 dollar fit 64 bits; integers fit 64 bits; text has no NUL and no lone
    surrogate. Queries are checked when they are constructed.

    **Output** equals the input: every field of every record, money to the last digit, None as None.

    **Order.** Text compares and sorts by code point, None before any text.

    **Atomicity.** Each method takes effect completely or not at all, also if its task is cancelled. The same holds if
    the process dies, except for what `purge_calls` and `erase_user` say. The effect is durable when the method
    returns. A cancelled method leaves the backend usable.

    **Concurrency.** Methods may run at the same time on one event loop. Several backend objects may use one store and
    lose nothing, and so may several processes if the plugin declares `multiprocess`.

    **Sums.** `summarize_usage` equals a scan of every call ever recorded, exactly, for any filter, grouping and edges.
    `storage.reference.summarize` defines the sums as code.

    **Errors.** A driver's exception never leaves a method. `StorageUnavailableError`: the same call may succeed later.
    `StorageRefusedError`: it will fail again until somebody changes something. `RecordRejectedError`: the value can
    never be stored. `StorageClosedError`: use before `connect` or after `disconnect`. `WrongLoopError`: use from
    another event loop or a forked child. No text shows a password.
    """

    #: The text that identifies the store, for people and for the files that core keeps per store: scheme, host, port,
    #: database and schema, or a resolved path; never user, password or options. Core sets it. None: the store is in
    #: memory, or the backend object was not created by core.
    target: str | None = None

    @abstractmethod
    async def connect(self) -> None:
        """Open the store, creating it if needed; never migrate. Idempotent, also after `disconnect`.

        :raises StorageUnavailableError: it cannot be reached now
        :raises StorageRefusedError: it is not a store of llmbridge, corrupt, or access is denied; nothing was written
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
        """Migrate the schema to this release's head, each migration in one transaction with its record.

        Safe to call from many processes at once: one migrates, the others wait and then skip. A store without a
        schema keeps one version mark. The first migration gives the store its identity, `new_identity()`, which never
        changes (see `SchemaStatus`).

        :raises MigrationError: a migration failed and was rolled back, or an applied one differs from the shipped one
        :raises SchemaTooNewError: a newer release migrated the store, and this release may not write it
        """

    @abstractmethod
    async def schema_status(self) -> SchemaStatus:
        """Return which migrations are applied and pending. Write nothing."""

    @abstractmethod
    async def upsert_models(self, models: Sequence[LLMModel]) -> UpsertResult:
        """Insert or replace models by (provider, model_name).

        `created_at` stays as first stored; every other field is replaced. Of several models with one key the last one
        wins and counts once.
        """

    @abstractmethod
    async def list_models(
        self, provider: str | None = None, model_name: str | None = None, active_only: bool = True
    ) -> list[LLMModel]:
        """Return models in order of (provider, model_name). None does not filter; `active_only` omits retired ones."""

    @abstractmethod
    async def retire_models(self, keys: Sequence[tuple[str, str]], at: datetime) -> int:
        """Retire models: set `inactive_from` and `updated_at` to `at`, and return how many models changed.

        :param keys: (provider, model_name) of the models; unknown keys and retired models are ignored
        """

    @abstractmethod
    async def set_prices(self, prices: Sequence[ModelPrice]) -> None:
        """Insert or replace own prices by `ModelPrice.key`. The last one of a key wins."""

    @abstractmethod
    async def list_prices(self, provider: str | None = None, model_name: str | None = None) -> list[ModelPrice]:
        """Return own prices in order of `ModelPrice.key`, text by code point. None does not filter."""

    @abstractmethod
    async def record_calls(self, calls: Sequence[CallRecord]) -> RecordResult:
        """Store at most `MAX_BATCH` calls, all or none.

        Idempotent by id, within the batch and against the store: the first record of an id stays as it is, every
        further one counts as a duplicate and changes no sum. A call before the watermark is not stored; its id is
        returned in `expired`.

        :raises RecordRejectedError: one of the calls can never be stored; none was stored
        :raises ValueError: more than `MAX_BATCH` calls; the text names that number
        """

    @abstractmethod
    async def list_calls(self, query: CallQuery) -> CallPage:
        """Return stored calls by (called_at, id), both descending; ids compare as 128-bit numbers.

        The cursor is a key, not an offset: calls recorded between two pages neither repeat nor hide a call.
        """

    @abstractmethod
    async def summarize_usage(self, query: UsageQuery) -> list[UsageRow]:
        """Return the sums of the query (see **Sums**).

        Without `group_by`: exactly one row, with zeros if nothing matches. With it: no row without calls, ordered by
        the fields of `group_by` as given, None first.

        :raises PurgedDetailError: the result needs finer detail than the totals of purged days have. Either an edge
            cuts matching cells, and `earliest` is the end of the last one; or the query needs tags or error types of
            purged calls, and `earliest` is the watermark
        """

    @abstractmethod
    async def ping(self) -> None:
        """Make one round trip to the store.

        :raises StorageUnavailableError: it cannot be reached now
        """

    async def clock(self) -> datetime | None:
        """Return the current time (UTC) by the clock of the store; None: it has no clock but that of this process."""
        return None

    async def purge_calls(self, before: datetime) -> int:
        """Delete the calls before `before`, rounded down to a UTC day, and return how many. [purge]

        Their sums stay, at the grains of `TotalsRow`. The watermark moves to that day; a purge never moves it back. No
        query returns purged calls from then on. The rows may be deleted in several transactions, and after a failure by
        the next purge.

        :raises UnsupportedOperationError: the backend lacks the capability
        """
        raise UnsupportedOperationError(f"{type(self).__name__} cannot purge calls")

    async def reprice_calls(self, changes: Sequence[CostChange]) -> int:
        """Replace the costs of calls, in one transaction, and return how many changed. [reprice]

        The old cost and reason move to `previous_cost` and `previous_cost_reason`, `repriced_at` becomes `at`, and the
        sums follow. Ids that are not stored are ignored; of several changes of one id the last one wins. A change to
        the values that are stored already (cost, cost_source, cost_reason, price_version, price_factor) is ignored too,
        so that two processes that decide the same at the same time do not overwrite the previous cost.

        :raises UnsupportedOperationError: the backend lacks the capability
        """
        raise UnsupportedOperationError(f"{type(self).__name__} cannot reprice calls")

    async def read_totals(self, cursor: str | None = None) -> TotalsPage:
        """Return totals of purged days, ordered by (grain, start, key), from `cursor` on (None: the start). [copy]

        :raises UnsupportedOperationError: the backend lacks the capability
        """
        raise UnsupportedOperationError(f"{type(self).__name__} cannot read totals")

    async def write_totals(self, rows: Sequence[TotalsRow], watermark: datetime | None) -> None:
        """Insert or replace totals of purged days by (grain, start, key). [copy]

        The watermark moves forward to `watermark`; None leaves it as it is.

        :raises UnsupportedOperationError: the backend lacks the capability
        """
        raise UnsupportedOperationError(f"{type(self).__name__} cannot write totals")

    async def erase_user(self, origin: str, id_at_origin: str) -> int:
        """Replace `id_at_origin` by None in all calls and totals of this origin. The sums stay. [erase]

        Return how many calls, and rows of `read_totals` with the grain `day`, changed. The work may take several
        transactions; the sums are exact between them. After a failure, calling it again does the rest.

        :raises UnsupportedOperationError: the backend lacks the capability
        """
        raise UnsupportedOperationError(f"{type(self).__name__} cannot erase users")

    async def compact(self) -> int:
        """Give the space of deleted rows back to the file system, and return how many bytes it was. [compact]

        Nothing else changes. Writers may have to wait until it is done.

        :raises UnsupportedOperationError: the backend lacks the capability; the text says what becomes of the space
        """
        raise UnsupportedOperationError(f"{type(self).__name__} cannot give space back to the file system")

    async def check_totals(self, repair: bool = False) -> TotalsReport:
        """Compare every kept total with the stored calls, and correct wrong ones if `repair` is True.

        A store that keeps no totals of stored calls has none to check. If the watermark is more than a day ahead of the
        clock of the store, report it; with `repair`, move it back to the end of the last day that has totals of purged
        calls, or to None if there is none. [purge]
        """
        return TotalsReport()


class SQLAccess(ABC):
    """User-written SQL on the store, for backends with the capability `sql`.

    Parameters are `$1`, `$2`, …: numbered, reusable in any order. `{{tables.NAME}}` is the qualified name of a
    table and `{{schema}}` the schema; templates inside string literals, quoted names and comments are not replaced.
    Each statement runs on the write connection, in its own transaction and never inside a batch. A statement that
    begins or ends a transaction raises ValueError.
    """

    @abstractmethod
    async def execute(self, query: str, *args: Any) -> None:
        """Run one statement and commit it."""

    @abstractmethod
    async def fetch_one(self, query: str, *args: Any) -> dict[str, Any] | None:
        """Return the first row, by column name; None if there is none."""

    @abstractmethod
    async def fetch_all(self, query: str, *args: Any) -> list[dict[str, Any]]:
        """Return all rows, by column name."""

    @abstractmethod
    async def fetch_value(self, query: str, *args: Any) -> Any:
        """Return the first column of the first row; None if there is none."""

    @abstractmethod
    async def execute_and_return_id(self, query: str, *args: Any) -> int:
        """Run one INSERT, commit it, and return the `id` of the new row."""
