"""The books: prices and records calls, reads usage, over one storage backend."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Self, cast
from uuid import UUID

from ._maintenance.upkeep import Upkeep
from ._models.model_books import ModelBooks
from ._models.registry import ModelRegistry
from ._pricing.price_book import PriceBook, load_prices
from ._recording.metrics import CloseReport
from ._recording.record_builder import complete
from ._recording.writer import Journal, make_spool
from ._shared.single_flight import Closing
from ._store.session import Migrate, Session
from ._usage import periods, query, statistics
from ._usage.query import Accepted
from .errors import PurgedDetailError, StorageUnavailableError, UnsupportedOperationError
from .plugins import create_backend
from .schemas import CallRecord, DailyAnalytics, RecordStatus, UsageStats
from .storage.base import StorageBackend
from .storage.types import MAX_PAGE, CallPage, CallQuery, MigrationReport, SchemaStatus, UsageRow

if TYPE_CHECKING:
    from ._recording.spool import Spool

OnStorageError = Literal["spool", "log", "raise"]

#: Seconds that a store gets to close, however little of the timeout is left.
LEAST_PATIENCE = 1.0


class LLMDatabase(ModelBooks, Upkeep):
    """The books over one store, opened and migrated at first use.

    :param connection_string: URL or path of the store; None with no `backend` and no `db_manager`: no books are
        kept, reads give None or []
    :param backend: a backend made by hand, instead of a URL
    :param db_manager: a host application's pgdbm manager, whose pool is used and left open, instead of a URL
    :param schema: schema of the tables, where the store has schemas (None: the backend's default)
    :param enable_monitoring: collect query statistics, where the backend can
    :param plugin: distribution that serves the URL's scheme, where several claim it
    :param migrate: `auto` migrates at first use, `check` raises SchemaOutdatedError instead
    :param record_timeout: seconds that a call waits for the store
    :param on_storage_error: what becomes of calls that the store does not take by then. `spool`: they wait in a file
        and go onto the books when the store is back. `log`: they are lost, each with an ERROR line. `raise`: the
        same, and an unreachable store is an error at the start of an LLMBridge
    :param spool_dir: folder of that file (None: `LLMBRIDGE_SPOOL_DIR`, else `llmbridge/spool` in the user's state
        directory). A store in memory, and a backend made by hand without a `target`, has none
    :param options: options of the backend
    :raises InvalidStorageURLError, UnknownStorageError, PluginError: the URL or its plugin is wrong; nothing is
        opened
    """

    def __init__(
        self,
        connection_string: str | None = None,
        *,
        backend: StorageBackend | None = None,
        db_manager: Any = None,
        schema: str | None = None,
        enable_monitoring: bool = False,
        plugin: str | None = None,
        migrate: Migrate = "auto",
        record_timeout: float = 5.0,
        on_storage_error: OnStorageError = "spool",
        spool_dir: str | os.PathLike[str] | None = None,
        **options: Any,
    ) -> None:
        if backend is None:
            backend = create_backend(
                connection_string,
                plugin=plugin,
                db_manager=db_manager,
                schema=schema,
                enable_monitoring=enable_monitoring or None,
                **options,
            )
        elif connection_string or db_manager is not None:
            raise ValueError("give a backend, a connection string or a db_manager, not two of them")
        if on_storage_error not in ("spool", "log", "raise"):
            raise ValueError(f"on_storage_error is {on_storage_error!r}; it must be 'spool', 'log' or 'raise'")
        if not record_timeout > 0:
            raise ValueError(f"record_timeout is {record_timeout}; it must be more than 0 seconds")
        self.backend = backend
        self.record_timeout = record_timeout
        self.on_storage_error = on_storage_error
        self._session = Session(backend, migrate=migrate, on_start=self._prepare) if backend is not None else None
        self._registry = ModelRegistry(self._session) if self._session is not None else None
        self._spool: Spool | None = None
        self._journal: Journal | None = None
        if self._session is not None and self._registry is not None:
            self._spool = make_spool(self._session.backend.target, spool_dir)
            self._journal = Journal(
                self._session,
                self._registry,
                self._spool,
                timeout=record_timeout,
                spools=on_storage_error == "spool",
            )
        self._no_prices = PriceBook()
        self._closing = Closing()

    @classmethod
    def from_manager(cls, db_manager: Any, schema: str | None = None, **options: Any) -> Self:
        """The books in a host application's own database; its pool is used and left open."""
        return cls(db_manager=db_manager, schema=schema, **options)

    @property
    def enabled(self) -> bool:
        """Whether there is a store."""
        return self.backend is not None

    @property
    def prices(self) -> PriceBook:
        """The prices that calls are charged by."""
        return self._registry.prices if self._registry is not None else self._no_prices

    async def initialize(self) -> None:
        """Open and migrate the store. Done by the first use anyway, but after `close()`, which it waits for, only by
        this; a failed start is tried again by the next use.

        :raises StorageError: it cannot be opened
        """
        if self._session is not None and self._journal is not None:
            await self._closing.over()
            self._session.admit()
            self._journal.admit()
            await self._journal.check_spool()
            await self._session.start()

    async def open(self) -> None:
        """Open the store as a service does when it starts: one that is unreachable is an outage, and an error only
        with `on_storage_error="raise"`.

        :raises StorageError: it cannot be opened, and that will not mend by itself
        """
        try:
            await self.initialize()
        except StorageUnavailableError as error:
            if self.on_storage_error == "raise" or self._journal is None:
                raise
            self._journal.store_is_away(error)

    async def close(self, timeout: float | None = None) -> CloseReport:
        """Take no more calls, write what waits for at most `timeout` seconds (None: `record_timeout`), spool the rest,
        then close the store, which gets a second more. Who is cancelled meanwhile, or asks again, changes nothing: one
        closing runs to its end. What comes after raises StorageClosedError until `initialize()`."""
        if self._session is None or self._registry is None or self._journal is None:
            return CloseReport()
        self._journal.turn_away()
        seconds = self.record_timeout if timeout is None else timeout
        return await self._closing.run(partial(self._close, self._session, self._registry, self._journal, seconds))

    async def __aenter__(self) -> Self:
        await self.initialize()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    def check_owner(self) -> None:
        """Raise StorageClosedError after `close()`, WrongLoopError when another event loop or process opened the
        store."""
        if self._session is not None:
            self._session.check_owner()

    # Calls

    async def record_api_call(self, call: CallRecord | None = None, /, **fields: Any) -> UUID | None:
        """Put a call on the books and return its id once it is committed (None: no books are kept).

        Takes a CallRecord, or its fields and upstream's: `system_prompt` is hashed, parameters without a column
        go to `metadata`. What is missing is filled in: id, total_tokens, called_at (now), and the cost from the
        price in force, unless `estimated_cost` (dollars) or a `cost_reason` is given.

        :raises RecordRejectedError: this call can never be stored
        :raises StorageError: it is not known to be stored
        """
        if call is not None and fields:
            raise TypeError("record_api_call() takes a CallRecord or fields, not both")
        if self._journal is None:
            return None
        record, _ = await self._journal.record(call.model_dump(exclude_unset=True) if call is not None else fields)
        return record.id

    async def keep(
        self, fields: Mapping[str, Any], priced_as: str | None = None
    ) -> tuple[CallRecord | None, RecordStatus | None]:
        """Put a call on the books, whatever the store does: the priced record, and what became of it.

        `priced_as` is the vendor whose price list applies, where it is not the one called. The record is None
        where it can never be stored; its status is None where no books are kept.
        """
        if self._journal is not None:
            return await self._journal.keep(fields, priced_as)
        await load_prices()
        return complete(fields, self.prices, priced_as), None

    def start_soon(self) -> None:
        """Begin to open the store without waiting for it."""
        if self._session is not None:
            self._session.start_soon()

    async def get_call_record(self, call_id: UUID) -> CallRecord | None:
        """The record of that id; None when there is none."""
        page = await self.list_calls(CallQuery(ids=(call_id,), limit=1))
        return page.calls[0] if page.calls else None

    async def list_recent_calls(
        self, origin: str | None = None, id_at_origin: str | None = None, limit: int = 100, offset: int = 0
    ) -> list[CallRecord]:
        """The most recent calls, newest first, without the first `offset`. None does not filter."""
        if limit < 0 or offset < 0:
            raise ValueError("limit and offset must not be negative")
        chosen = query.filters({"origin": origin, "id_at_origin": id_at_origin})
        found: list[CallRecord] = []
        after = None
        while len(found) < offset + limit:
            size = min(offset + limit - len(found), MAX_PAGE)
            page = await self.list_calls(CallQuery(chosen, limit=size, after=after))
            found += page.calls
            after = page.next
            if after is None:
                break
        return found[offset:]

    async def list_calls(self, query: CallQuery) -> CallPage:
        """One page of calls; `page.next` goes into the next query's `after`."""
        if self._session is None:
            return CallPage([], None)
        await self._session.start()
        with self._session.guard():
            return await self._session.backend.list_calls(query)

    # Usage

    async def usage(
        self,
        since: datetime | date | None = None,
        until: datetime | date | None = None,
        *,
        group_by: str | Sequence[str] = (),
        tz: str = "UTC",
        origin: Accepted = None,
        id_at_origin: Accepted = None,
        provider: Accepted = None,
        model_name: Accepted = None,
        status: Accepted = None,
        tags: Mapping[str, Accepted] | None = None,
    ) -> list[UsageRow]:
        """Exact sums over the calls from `since` (inclusive) to `until` (exclusive); None is unbounded.

        `group_by` takes origin, id_at_origin, provider, model_name, status, error_type, `tag:NAME`, and one of
        hour, day, week, month in the IANA zone `tz`, labelled in `row.key`: a day by its date, a week by that of
        its Monday, a month by that of its first day, an hour by its local start with the offset that it has
        (one within which the zone sets its clock is two). A calendar period needs `since`, and its `until` is then
        now. A date stands for its first instant in `tz`.

        A filter is one value or several; None does not filter, `(None,)` asks for calls without one. `tags` is
        `{NAME: value}`, one entry of the calls' metadata.

        :raises ValueError: an unknown field, zone or period, a naive time, an empty range
        :raises PurgedDetailError: the answer needs detail of purged days
        """
        question = query.ask(
            since,
            until,
            group_by=group_by,
            tz=tz,
            fields={
                "origin": origin,
                "id_at_origin": id_at_origin,
                "provider": provider,
                "model_name": model_name,
                "status": status,
            },
            tags=tags,
        )
        if self._session is None:
            return []
        await self._session.start()
        with self._session.guard():
            return question.label(await self._session.backend.summarize_usage(question.query))

    async def get_usage_stats(
        self, origin: str | None, id_at_origin: str | None = None, days: int = 30
    ) -> UsageStats | None:
        """Statistics of the last `days` times 24 hours; None when nothing was recorded.

        Where that starts inside a purged day it moves back to that UTC midnight; `since` says so.
        """
        if days < 1:
            raise ValueError(f"days is {days}; it must be at least 1")
        since = statistics.days_ago(days)
        try:
            return await self._stats(since, origin, id_at_origin)
        except PurgedDetailError:
            return await self._stats(periods.midnight(since), origin, id_at_origin)

    async def aggregate_daily_analytics(self, date: str | None = None) -> None:
        """Nothing to do: sums are exact at every commit. Kept for code that calls it on a schedule."""

    async def get_daily_analytics(
        self, origin: str | None = None, id_at_origin: str | None = None, days: int = 30, *, tz: str = "UTC"
    ) -> list[DailyAnalytics]:
        """Usage per day, origin, user, vendor and model over the last `days` days in the zone `tz`, today included, in
        this order. None does not filter.

        :raises ValueError: an unknown zone, or no day or too many
        """
        if not 1 <= days <= periods.MAX_PERIODS:
            raise ValueError(f"days is {days}; it must be at least 1 and at most {periods.MAX_PERIODS}")
        first = datetime.now(periods.zone(tz)).date() - timedelta(days=days - 1)
        rows = await self.usage(first, group_by=statistics.BY_DAY, tz=tz, origin=origin, id_at_origin=id_at_origin)
        return [statistics.daily(row) for row in rows]

    # The store itself

    async def apply_migrations(self) -> MigrationReport:
        """Bring the store's schema up to date, also with `migrate="check"`."""
        if self._session is None:
            return MigrationReport([], [], 0)
        return await self._session.migrate()

    async def schema_status(self) -> SchemaStatus | None:
        """How far the store is migrated; it is opened for this but not migrated. None: no books are kept."""
        return await self._session.schema_status() if self._session is not None else None

    async def health_check(self, timeout: float = 2.0) -> dict[str, Any]:
        """Whether the store answers within `timeout` seconds, and takes the calls of these books; never raises.

        `status` is healthy, unhealthy (with `error`) or disabled; `target` is the store, without secrets; `queue` is
        the number of calls that wait for a commit; `spool` has the `path` (None: there is no place for it), how many
        calls are `waiting` and `set_aside` in it (None: that cannot be told), and the `error` that keeps calls from
        waiting there (None: there is none), or is None where there is no spool; `last_error` is the store's last
        failure (None: never).
        """
        return await self._journal.health(timeout) if self._journal is not None else {"status": "disabled"}

    def metrics(self) -> dict[str, int]:
        """What became of calls, as a flat dict of counters; their names are those of
        `llmbridge._recording.metrics.Counters`, and `calls_waiting` is how many wait for a commit now. Empty where no
        books are kept."""
        return self._journal.metrics() if self._journal is not None else {}

    async def get_pool_stats(self) -> dict[str, Any]:
        """Statistics of the backend's connections. UnsupportedOperationError without the capability `monitoring`."""
        return cast("dict[str, Any]", await self._monitor("get_pool_stats"))

    async def get_slow_queries(self, threshold_ms: int | None = None) -> list[dict[str, Any]]:
        """Statements slower than `threshold_ms` (None: the backend's own bound). Needs `monitoring`."""
        return cast("list[dict[str, Any]]", await self._monitor("get_slow_queries", threshold_ms))

    async def get_query_metrics(self) -> dict[str, Any] | None:
        """Counts and times of statements. Needs `monitoring`."""
        return cast("dict[str, Any] | None", await self._monitor("get_query_metrics"))

    async def _monitor(self, name: str, *args: Any) -> Any:
        method = getattr(self.backend, name, None)
        if self._session is None or method is None:
            raise UnsupportedOperationError(f"{type(self.backend).__name__} has no monitoring")
        await self._session.start()
        with self._session.guard():
            return await method(*args)

    async def _close(self, session: Session, registry: ModelRegistry, journal: Journal, timeout: float) -> CloseReport:
        until = time.monotonic() + timeout
        report = await journal.close(timeout)
        await registry.close()
        await session.stop(max(until - time.monotonic(), LEAST_PATIENCE))
        return report

    async def _prepare(self) -> None:
        if self._registry is not None:
            await self._registry.prepare()
        if self._journal is not None:
            self._journal.store_is_open()

    async def _stats(self, since: datetime, origin: str | None, id_at_origin: str | None) -> UsageStats | None:
        rows = await self.usage(since, group_by=("provider", "model_name"), origin=origin, id_at_origin=id_at_origin)
        return statistics.stats(rows, since)
