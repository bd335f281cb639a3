"""LLMDatabase: prices and records calls, reads usage and maintains one database, through a storage backend."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterable, Callable, Collection, Iterable, Mapping, Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, cast
from uuid import UUID

from ._models import catalog
from ._models.registry import LoadReport, ModelRegistry
from ._no_database import NoSession, NoWriter
from ._pricing.genai_prices import editions
from ._pricing.genai_prices.editions import PriceData
from ._pricing.own_prices import OwnPrices
from ._pricing.price_book import PriceBook
from ._recording.metrics import CloseReport, Counters
from ._recording.writer import CallWriter, Writer, make_spool
from ._shared.single_flight import SingleFlight
from ._shared.spelling import hint
from ._store.session import Migrate, StoreSession
from ._usage import periods, query, statistics
from ._usage.query import Accepted, CallList
from ._usage.result import UsageResults
from ._usage.times import When
from .errors import PurgedDetailError, StorageUnavailableError, UnsupportedOperationError
from .plugins import create_backend
from .schemas import CallRecord, DailyAnalytics, LLMModel, RecordStatus, UsageStats
from .storage.base import StorageBackend
from .storage.types import (
    MAX_BATCH,
    MAX_PAGE,
    CallPage,
    CallQuery,
    MigrationReport,
    ModelPrice,
    SchemaStatus,
    TotalsReport,
)

if TYPE_CHECKING:
    from ._maintenance.copy import CopyReport
    from ._maintenance.erase import Forgotten
    from ._maintenance.reprice import RepriceReport
    from ._models.queries import Models
    from ._recording.bulk import RecordReport
    from ._recording.spool import Spool, SpoolFileStatus, SpoolStatus

OnStorageError = Literal["spool", "log", "raise"]

#: Seconds that a database gets to disconnect, however little of the timeout is left.
MIN_CLOSE_TIMEOUT = 1.0


class LLMDatabase:
    """Calls, models and prices of one database, opened and migrated at first use.

    Without a database (no URL, backend or manager) nothing is recorded, and reads give None or [].

    :param connection_string: URL or path of the database
    :param backend: a backend made by hand, instead of a URL
    :param db_manager: a host application's pgdbm manager, whose pool is used and left open, instead of a URL
    :param schema: schema of the tables, if the database has schemas (None: the backend's default)
    :param enable_monitoring: collect query statistics, if the backend can
    :param plugin: distribution that serves the URL's scheme, if several claim it
    :param migrate: `auto` migrates at first use, `check` raises SchemaOutdatedError instead
    :param record_timeout: seconds that a call waits for the database
    :param on_storage_error: what happens to calls that the database does not take by then. `spool`: they wait in a
        file and are recorded when the database is back. `log`: they are lost, each with an ERROR line. `raise`: the
        same, and an unreachable database is an error at the start of an LLMBridge
    :param spool_dir: folder of that file (None: `LLMBRIDGE_SPOOL_DIR`, else `llmbridge/spool` in the user's state
        directory). A database in memory, and a backend made by hand without a `target`, has none
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
        backend = choose_backend(
            connection_string,
            backend,
            db_manager,
            parameters=keywords(LLMDatabase.__init__),
            plugin=plugin,
            schema=schema,
            enable_monitoring=enable_monitoring or None,
            **options,
        )
        if on_storage_error not in ("spool", "log", "raise"):
            raise ValueError(f"on_storage_error is {on_storage_error!r}; it must be 'spool', 'log' or 'raise'")
        if not record_timeout > 0:
            raise ValueError(f"record_timeout is {record_timeout}; it must be more than 0 seconds")
        self.backend = backend
        self.record_timeout = record_timeout
        self.on_storage_error = on_storage_error
        self._session: StoreSession = StoreSession(backend, migrate=migrate) if backend is not None else NoSession()
        self._prices = OwnPrices(self._session)
        self._registry = ModelRegistry(self._session, self._prices)
        self._session.on_start(self._registry.add_catalog)
        self._session.on_start(self._prices.load)
        self._spool = make_spool(self._session.target, spool_dir)
        self._counters = Counters()
        self._writer = self._new_writer(last_error=None)
        self._closing: SingleFlight[CloseReport] = SingleFlight("llmbridge-close")

    @classmethod
    def from_manager(cls, db_manager: Any, schema: str | None = None, **options: Any) -> Self:
        """Return a database in a host application's own pool, which is used and left open."""
        return cls(db_manager=db_manager, schema=schema, **options)

    @property
    def enabled(self) -> bool:
        """Whether there is a database."""
        return self.backend is not None

    @property
    def prices(self) -> PriceBook:
        """The prices that calls are charged by."""
        return self._prices.book

    async def initialize(self) -> None:
        """Open and migrate the database.

        The first use does so anyway. After `close()`, which this waits for, only this opens it again. After a failed
        start the next use tries again.

        :raises StorageError: it cannot be opened
        """
        await self._closing.wait()
        if self._session.is_closing:  # also if the closing was cancelled midway
            self._session.reopen()
            self._writer = self._new_writer(last_error=self._writer.last_error)
        self._session.check_owner()
        await self._writer.check_spool()
        await self._session.start()

    async def open(self) -> None:
        """Open the database as a service does when it starts: one that is unreachable is an outage, and an error only
        with `on_storage_error="raise"`.

        :raises StorageError: it cannot be opened, and waiting will not change that
        """
        try:
            await self.initialize()
        except StorageUnavailableError as error:
            if self.on_storage_error == "raise":
                raise
            self._writer.give_up(error)

    async def close(self, timeout: float | None = None) -> CloseReport:
        """Stop accepting calls, write the pending ones for up to `timeout` seconds (None: `record_timeout`), spool the
        rest, and disconnect, for which the backend gets a second more.

        Concurrent callers share one closing, which a cancelled caller does not end. A later call raises
        StorageClosedError until `initialize()`.

        :raises WrongLoopError: another event loop or process opened the database
        """
        self._session.begin_closing()
        seconds = self.record_timeout if timeout is None else timeout
        return await self._closing.run(lambda: self._close(seconds))

    async def __aenter__(self) -> Self:
        await self.initialize()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    def check_owner(self) -> None:
        """Raise StorageClosedError after `close()`, WrongLoopError if another event loop or process opened the
        database."""
        self._session.check_owner()

    # Calls

    async def record_api_call(self, call: CallRecord | None = None, /, **fields: Any) -> UUID | None:
        """Record a call and return its id once it is committed or spooled (None: there is no database).

        Takes a CallRecord, or its fields and those of llmbridge-py: `system_prompt` is hashed, parameters without a
        column go to `metadata`. Missing fields are filled in: id, total_tokens, called_at (now), and the cost by the
        current price, unless `estimated_cost` (dollars) or a `cost_reason` is given.

        :raises RecordRejectedError: this call can never be stored
        :raises StorageError: it is not known to be stored
        """
        if call is not None and fields:
            raise TypeError("record_api_call() takes a CallRecord or fields, not both")
        record, _ = await self._writer.record(call.model_dump(exclude_unset=True) if call is not None else fields)
        return record.id if record is not None else None

    async def record_api_calls(
        self,
        calls: Iterable[CallRecord | Mapping[str, Any]] | AsyncIterable[CallRecord | Mapping[str, Any]],
        batch: int = MAX_BATCH,
        progress: Callable[[RecordReport], object] | None = None,
    ) -> RecordReport:
        """Record many calls, as an import does, and return how many were stored.

        Takes CallRecords and dicts of their fields, as `record_api_call` does, from an iterable or an async iterable,
        and stores `batch` of them (at most 1,000) in each transaction. It reads no faster than the database writes, so
        memory holds two batches. `progress` is called after each batch with the report so far. A call that can never be
        stored is counted in the report, and the others are stored. A call whose id is stored already counts once: an
        import that broke off can be run again if its calls have ids.

        While the database is away a batch is tried again for `record_timeout` seconds. No call goes into the spool.
        Without a database nothing is read, and the report is empty.

        :raises StorageError: the database failed; the calls of the batches before are stored
        :raises TypeError: a call is neither a CallRecord nor a dict, or has a field of an unknown name
        :raises ValueError: `batch` is not from 1 to 1,000
        """
        return await self._writer.record_all(calls, batch, progress)

    async def keep(
        self, fields: Mapping[str, Any], priced_as: str | None = None
    ) -> tuple[CallRecord | None, RecordStatus | None]:
        """Record a call, whatever the database does, and return the priced record and its status.

        `priced_as` is the provider whose price list applies, if it is not the one called. The record is None if it can
        never be stored; the status is None if there is no database.
        """
        return await self._writer.keep(fields, priced_as)

    def start_soon(self) -> None:
        """Begin to open the database without waiting for it."""
        self._session.start_soon()

    async def get_call_record(self, call_id: UUID) -> CallRecord | None:
        """Return the record of that id; None if there is none."""
        page = await self.list_calls(CallQuery(ids=(call_id,), limit=1))
        return page.calls[0] if page.calls else None

    async def list_recent_calls(
        self, origin: str | None = None, id_at_origin: str | None = None, limit: int = 100, offset: int = 0
    ) -> list[CallRecord]:
        """Return the most recent calls, newest first, without the first `offset`. None does not filter."""
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
        """Return one page of calls; `page.next` goes into the next query's `after`."""
        return await self._session.call(lambda backend: backend.list_calls(query))

    async def find_calls(
        self,
        since: When | None = None,
        until: When | None = None,
        *,
        tz: str = "UTC",
        origin: Accepted = None,
        id_at_origin: Accepted = None,
        user: Accepted = None,
        provider: Accepted = None,
        model_name: Accepted = None,
        model: Accepted = None,
        status: Accepted = None,
        response_model: Accepted = None,
        tags: Mapping[str, Accepted] | None = None,
        limit: int = 100,
        cursor: str | None = None,
    ) -> CallList:
        """Return one page of calls from `since` (inclusive) to `until` (exclusive), newest first; None is unbounded.

        Times, the IANA zone `tz` and filters are as in `usage`. `limit` is from 1 to 1,000. `cursor` is `next` of the
        page before (None: the first page).

        :raises ValueError: an unknown zone or status, an invalid time, an empty range, or an invalid limit or cursor
        """
        chosen = {
            "origin": origin,
            "id_at_origin": id_at_origin,
            "user": user,
            "provider": provider,
            "model_name": model_name,
            "model": model,
            "status": status,
            "response_model": response_model,
        }
        asked = query.build_call_query(since, until, tz=tz, fields=chosen, tags=tags, limit=limit, after=cursor)
        return query.call_list(await self.list_calls(asked))

    # Usage

    async def usage(
        self,
        since: When | None = None,
        until: When | None = None,
        *,
        group_by: str | Sequence[str] = (),
        tz: str = "UTC",
        origin: Accepted = None,
        id_at_origin: Accepted = None,
        user: Accepted = None,
        provider: Accepted = None,
        model_name: Accepted = None,
        model: Accepted = None,
        status: Accepted = None,
        response_model: Accepted = None,
        tags: Mapping[str, Accepted] | None = None,
    ) -> UsageResults:
        """Return exact sums over the calls from `since` (inclusive) to `until` (exclusive); None is unbounded.

        A time is a datetime with a zone; a date, which stands for its first instant in the IANA zone `tz`; a timedelta
        before now; or a text: `12h`, `30d`, `4w`, `today`, `yesterday`, `2026-01`, `2026-01-31`, or a time in ISO 8601.

        `group_by` takes origin, id_at_origin, provider, model_name, status, response_model, error_type, `tag:NAME`,
        and one of hour, day, week, month in the zone `tz`, labelled in `row.key`: a day by its date, a week by
        that of its Monday, a month by that of its first day, an hour by its local start with the offset that it has
        (one within which the zone sets its clock is two). A calendar period needs `since`, and its `until` is then
        now.

        A filter is one value or several; None does not filter, `(None,)` asks for calls without one. `tags` is
        `{NAME: value}`, one entry of the calls' metadata. `user` is a shorter name of `id_at_origin`, and `model` of
        `model_name`, in filters and in `group_by`; `row.key` has the name that was given.

        :raises ValueError: an unknown field, zone or period, an invalid time, an empty range
        :raises PurgedDetailError: the result needs detail of purged days
        """
        labelled = query.build(
            since,
            until,
            group_by=group_by,
            tz=tz,
            fields={
                "origin": origin,
                "id_at_origin": id_at_origin,
                "user": user,
                "provider": provider,
                "model_name": model_name,
                "model": model,
                "status": status,
                "response_model": response_model,
            },
            tags=tags,
        )
        return labelled.label(await self._session.call(lambda backend: backend.summarize_usage(labelled.query)))

    async def get_usage_stats(
        self, origin: str | None, id_at_origin: str | None = None, days: int = 30
    ) -> UsageStats | None:
        """Return statistics of the last `days` times 24 hours; None if nothing was recorded.

        A start inside a purged day moves back to that UTC midnight; `since` says so.
        """
        if days < 1:
            raise ValueError(f"days is {days}; it must be at least 1")
        since = statistics.days_ago(days)
        try:
            return await self._stats(since, origin, id_at_origin)
        except PurgedDetailError:
            return await self._stats(periods.midnight(since), origin, id_at_origin)

    async def aggregate_daily_analytics(self, date: str | None = None) -> None:
        """Do nothing: sums are exact at every commit. Kept for code that calls it on a schedule."""

    async def get_daily_analytics(
        self, origin: str | None = None, id_at_origin: str | None = None, days: int = 30, *, tz: str = "UTC"
    ) -> list[DailyAnalytics]:
        """Return usage per day, origin, user, provider and model over the last `days` days in the zone `tz`, today
        included, in this order. None does not filter.

        :raises ValueError: an unknown zone, or no day or too many
        """
        if not 1 <= days <= periods.MAX_PERIODS:
            raise ValueError(f"days is {days}; it must be at least 1 and at most {periods.MAX_PERIODS}")
        first = datetime.now(periods.zone(tz)).date() - timedelta(days=days - 1)
        rows = await self.usage(first, group_by=statistics.BY_DAY, tz=tz, origin=origin, id_at_origin=id_at_origin)
        return [statistics.daily(row) for row in rows]

    # Models and prices

    @property
    def models(self) -> Models:
        """Queries over the known models: find, compare costs, estimate."""
        from ._calls.provider_registry import ProviderRegistry
        from ._models.queries import Models

        return Models(self, ProviderRegistry())

    async def add_model(self, model: LLMModel) -> int | None:
        """Insert or replace a model and return its id (None: there is no database). Its rates become its own price from
        now on, if they differ from the current ones."""
        await self.upsert_models([model])
        found = await self.get_model(model.provider, model.model_name, active_only=False)
        return found.id if found is not None else None

    async def upsert_model(self, model: LLMModel) -> None:
        """Insert or replace a model; as for `add_model`, its rates become its own price."""
        await self.upsert_models([model])

    async def upsert_models(self, models: Sequence[LLMModel]) -> tuple[int, int]:
        """Insert or replace models; return how many were inserted and how many replaced."""
        result = await self._registry.upsert(models)
        return result.inserted, result.updated

    async def load_models(self, directory: str | Path, *, set_prices: bool = True) -> LoadReport:
        """Load the models of `directory`, which has a file `PROVIDER.json` for each provider in llmbridge-py's form,
        and retire the other models of these providers. All files are read before anything is changed.

        Rates become own prices from now on if they differ from the current ones, unless `set_prices` is False.

        :raises ValueError: a file or an entry does not parse; the text names it, and nothing was changed
        """
        from ._models import json_files

        models = await asyncio.to_thread(json_files.read, directory)
        if not self.enabled:
            return LoadReport((), 0, 0, 0)
        return await self._registry.load(models, set_prices=set_prices)

    async def update_model_costs(
        self,
        provider: str,
        model_name: str,
        dollars_per_million_tokens_input: Decimal | float | str | None,
        dollars_per_million_tokens_output: Decimal | float | str | None,
    ) -> bool:
        """Give a stored model new rates, which become its own price from now on; None leaves a rate as it is. Return
        False if the model is not stored."""
        return await self._registry.update_costs(
            provider, model_name, dollars_per_million_tokens_input, dollars_per_million_tokens_output
        )

    async def retire_models(self, keys: Sequence[tuple[str, str]]) -> int:
        """Mark models, by (provider, model_name), as retired; return how many were active."""
        return await self._registry.retire(keys)

    async def set_prices(self, prices: Sequence[ModelPrice]) -> None:
        """Set own prices. This process uses them at once, others within a minute."""
        await self._prices.set(prices)

    async def list_prices(self, provider: str | None = None, model_name: str | None = None) -> list[ModelPrice]:
        """Return own prices in order of provider, name and the time from which they apply; None does not filter."""
        return await self._prices.list(provider, model_name)

    @staticmethod
    async def price_data() -> PriceData:
        """Return what is known of the price data that this process uses, and of the file of fetched data."""
        return await asyncio.to_thread(editions.status)

    @staticmethod
    async def update_prices(url: str | None = None, timeout: float = 30.0) -> PriceData:
        """Fetch newer price data and use it: this process at once, others of this user within five minutes. Nothing
        else fetches any. Recorded costs stay until `reprice`.

        :param url: where to fetch it from (None: `LLMBRIDGE_PRICES_URL`, else where genai-prices publishes it)
        :param timeout: seconds to wait for each response of the server
        :raises PriceDataError: it cannot be fetched, read or stored; the data in use stays
        """
        await asyncio.to_thread(editions.update, url, timeout)
        return await asyncio.to_thread(editions.status)

    async def get_model(self, provider: str, model_name: str, active_only: bool = True) -> LLMModel | None:
        """Return the model of that provider and name; None if there is none."""
        found = await self.list_models(provider, active_only=active_only, model_name=model_name)
        return found[0] if found else None

    async def list_models(
        self, provider: str | None = None, active_only: bool = True, *, model_name: str | None = None
    ) -> list[LLMModel]:
        """Return models in order of provider and name; None does not filter."""
        return await self._registry.list_models(provider, model_name, active_only)

    async def refresh_prices(self) -> None:
        """Read again, if it is time to, what other processes may have changed in the prices."""
        await self._prices.refresh()

    async def known_models(self) -> list[LLMModel]:
        """Return all models, retired ones included; without a database those of the bundled catalog."""
        return await self.list_models(active_only=False) if self.enabled else catalog.models()

    # Maintenance

    async def reprice(
        self,
        since: When | None = None,
        until: When | None = None,
        *,
        origin: Accepted = None,
        id_at_origin: Accepted = None,
        user: Accepted = None,
        provider: Accepted = None,
        model_name: Accepted = None,
        model: Accepted = None,
        priced_as: Mapping[str, str] | None = None,
        dry_run: bool = False,
        on_page: Callable[[RepriceReport], None] | None = None,
    ) -> RepriceReport:
        """Give the calls from `since` (inclusive) to `until` (exclusive) the cost by the own prices and price data of
        today, at the time when each was made. None is unbounded. Times are as in `usage`, in UTC.

        The previous cost and reason stay on the row, and sums follow. These calls do not change: their cost came from
        the caller or the provider, they were not billed, or their model has no price now. The rates on the row stay
        those of its first pricing. Each page of 1,000 calls is one transaction, and the next run finishes one that was
        cut off. Purged calls keep their cost.

        :param priced_as: the provider whose list applies, by provider called, for calls that no list has priced so far
        :param dry_run: only report what would change
        :param on_page: called after each page with the report so far
        :raises ValueError: an invalid time, an empty range, or a list in `priced_as` that the price data do not have
        :raises RecordRejectedError: a call would cost 9,000,000 dollars or more, which no row can hold; the text names
            it, and the pages before it are done
        :raises UnsupportedOperationError: the backend cannot reprice
        """
        from ._maintenance import reprice

        fields = {
            "origin": origin,
            "id_at_origin": id_at_origin,
            "user": user,
            "provider": provider,
            "model_name": model_name,
            "model": model,
        }
        calls = query.build_call_query(since, until, tz="UTC", fields=fields, limit=MAX_PAGE)
        return await reprice.reprice(
            self._session, self._prices, calls, priced_as=priced_as or {}, dry_run=dry_run, on_page=on_page
        )

    async def purge(
        self,
        before: When,
        *,
        dry_run: bool = False,
        force: bool = False,
        on_day: Callable[[date, int], None] | None = None,
    ) -> int:
        """Delete the calls before `before`, rounded down to a UTC day, and return how many there were. The sums over
        them stay, for ever. One day is deleted at a time, oldest first. Times are as in `usage`, in UTC.

        :param dry_run: only count them
        :param on_day: called after each day with it and the number of its calls
        :raises ValueError: fewer than 7 days would be kept, and there is no `force`; or calls of today would go, after
            which the database would take none
        :raises UnsupportedOperationError: the backend cannot purge
        """
        from ._maintenance import purge

        return await purge.purge(self._session, before, dry_run=dry_run, force=force, on_day=on_day)

    async def compact(self) -> int:
        """Give the space of deleted rows back to the file system, and return how many bytes it was. Other processes
        may have to wait until it is done: SQLite rewrites the whole file, for which it needs as much free space again.

        :raises UnsupportedOperationError: the backend cannot; the text says what becomes of the space
        """
        return await self._session.call(lambda backend: backend.compact())

    async def cleanup_old_data(
        self, days_to_keep_calls: int = 90, days_to_keep_analytics: int | None = None, *, force: bool = False
    ) -> int:
        """Delete calls older than `days_to_keep_calls` days, as `purge` does, and return how many; the sums over them
        stay, for ever: `days_to_keep_analytics` is accepted and does nothing.

        :raises ValueError: fewer than 7 days, unless `force`
        :raises UnsupportedOperationError: the backend cannot purge
        """
        if days_to_keep_calls < 0:
            raise ValueError(f"days_to_keep_calls is {days_to_keep_calls}; it must not be negative")
        return await self.purge(statistics.days_ago(days_to_keep_calls), force=force)

    async def forget(self, id_at_origin: str, origin: str | None = None, *, dry_run: bool = False) -> list[Forgotten]:
        """Erase the name of a user from every call and total, of one origin or of all (None), and from the spooled
        calls of this database. Their cost stays in the sums, as of no user. The result has one entry per origin that
        knew the name.

        Calls that are spooled elsewhere, on another machine or in another `spool_dir`, bring the name back when they
        are replayed, and so do calls that wait until they are adopted (`spool_status`).

        :param dry_run: only count the calls
        :raises StorageUnavailableError: spooled calls cannot be changed now
        :raises UnsupportedOperationError: the backend cannot erase users
        """
        from ._maintenance import erase

        return await erase.forget(self._session, self._spool, id_at_origin, origin, dry_run=dry_run)

    async def copy_to(self, target: LLMDatabase, *, on_page: Callable[[CopyReport], None] | None = None) -> CopyReport:
        """Copy calls with their ids, models, own prices and totals of purged days to another database, which keeps what
        it has.

        A copy may be cut off and run again. What the target has already stays as it is, so a repricing, an erased user
        or a changed model since the last run must be repeated there. Only an unchanged model of the catalog is
        replaced. Calls that are recorded meanwhile may be left for the next run.

        Of days that are purged here the target must have nothing but what an earlier run brought, whole days of it if
        it has their calls: copy once more before purging days that were not over, or not all there, at the last run.

        :param on_page: called after each page of 1,000 calls with the report so far
        :raises StorageError: the target has purged days that this database has not, or has something else of a day that
            is purged here, which the text names. Nothing was written, unless that day was purged during the run
        :raises UnsupportedOperationError: there are purged days, and the target cannot take their totals
        """
        from ._maintenance import copy

        if not (self.enabled and target.enabled):
            return copy.CopyReport()
        report = await copy.copy(self._session, target._session, on_page)
        await target._prices.reload()
        return report

    async def check_totals(self, *, repair: bool = False) -> TotalsReport:
        """Recount every stored total from the stored calls; with `repair` correct what is wrong."""
        return await self._session.call(lambda backend: backend.check_totals(repair))

    async def spool_status(self, reasons: int = 10) -> SpoolStatus | None:
        """Return the state of the spool of this database on this machine, with at most `reasons` reasons why calls were
        set aside. None: there is no spool, since the database is in memory or its backend has no `target`.

        :raises StorageUnavailableError: the spool cannot be read
        """
        return None if self._spool is None else await asyncio.to_thread(self._spool.status, reasons)

    async def retry_spool(self) -> int:
        """Let the spooled calls that were set aside wait for the database again, and return how many there were. They
        are recorded when the database is opened, or by another process that uses it.

        :raises StorageUnavailableError: the spool cannot be changed
        """
        return 0 if self._spool is None else await asyncio.to_thread(self._spool.retry)

    async def spool_files(self) -> list[SpoolFileStatus]:
        """Return the files of spooled calls in the folder of the spool, those of other databases too. Empty if there is
        no spool."""
        return [] if self._spool is None else await asyncio.to_thread(self._spool.files)

    async def adopt_spool(self, name: str) -> int:
        """Give the calls in a file of the spool to this database, which was not known to be theirs, and return how many
        there were. They are recorded in the background, or when the database is opened the next time.

        :param name: as `spool_files` names the file
        :raises ValueError: there is no such file, its calls belong to this database already, or there is no spool
        :raises StorageError: the database cannot be opened, or the file cannot be changed now
        """
        from ._maintenance import spooled

        adopted = await spooled.adopt(self._session, self._spool_or_raise(), name)
        self._writer.begin_replay()
        return adopted

    async def discard_spool(self, name: str) -> int:
        """Delete the calls in a file of the spool, of whatever database, and return how many there were. They are lost.

        :param name: as `spool_files` names the file
        :raises ValueError: there is no such file, or there is no spool
        :raises StorageUnavailableError: the file cannot be changed now
        """
        from ._maintenance import spooled

        return await spooled.discard(self._spool_or_raise(), name)

    # The database itself

    async def apply_migrations(self) -> MigrationReport:
        """Bring the schema up to date, also with `migrate="check"`."""
        return await self._session.migrate()

    async def schema_status(self) -> SchemaStatus | None:
        """Return the state of the schema; the database is opened for this but not migrated. None: there is none."""
        if not self.enabled:
            return None
        status = await self._session.schema_status()
        if self._spool is not None and status.current is not None:
            self._spool.recognize(status.identity)
        return status

    async def health_check(self, timeout: float = 2.0) -> dict[str, Any]:
        """Return whether the database answers within `timeout` seconds and takes calls. Never raises.

        `status` is healthy, unhealthy (with `error`) or disabled; `target` is the database, without secrets; `queue` is
        the number of calls that wait for a commit; `spool` has the `path` (None: there is no place for it), how many
        calls are `waiting`, `set_aside` and `to_adopt` (None: that is not known; see `SpoolStatus`), and the `error`
        that keeps calls from waiting there (None: there is none), or is None if there is no spool; `last_error` is the
        database's last failure (None: never).
        """
        return await self._writer.health(timeout)

    def metrics(self) -> dict[str, int]:
        """Return counters of calls by outcome, and as `calls_waiting` the number of calls that wait for a commit now.
        Without a database it is empty.

        The counters are the fields of `llmbridge.reports.Counters`.
        """
        return self._writer.metrics()

    async def get_pool_stats(self) -> dict[str, Any]:
        """Return statistics of the backend's connections. UnsupportedOperationError without the capability
        `monitoring`."""
        return cast("dict[str, Any]", await self._monitor("get_pool_stats"))

    async def get_slow_queries(self, threshold_ms: int | None = None) -> list[dict[str, Any]]:
        """Return statements slower than `threshold_ms` (None: the backend's own bound). Needs `monitoring`."""
        return cast("list[dict[str, Any]]", await self._monitor("get_slow_queries", threshold_ms))

    async def get_query_metrics(self) -> dict[str, Any] | None:
        """Return counts and times of statements. Needs `monitoring`."""
        return cast("dict[str, Any] | None", await self._monitor("get_query_metrics"))

    def _spool_or_raise(self) -> Spool:
        if self._spool is None:
            raise ValueError("a database in memory, or without a target, has no spool")
        return self._spool

    async def _monitor(self, name: str, *args: Any) -> Any:
        if not hasattr(self.backend, name):
            raise UnsupportedOperationError(f"{type(self.backend).__name__} has no monitoring")
        return await self._session.call(lambda backend: getattr(backend, name)(*args))

    def _new_writer(self, *, last_error: str | None) -> Writer:
        if not self.enabled:
            return NoWriter(self._prices)
        return CallWriter(
            self._session,
            self._prices,
            self._spool,
            timeout=self.record_timeout,
            spools=self.on_storage_error == "spool",
            counters=self._counters,
            last_error=last_error,
        )

    async def _close(self, timeout: float) -> CloseReport:
        until = time.monotonic() + timeout
        report = await self._writer.close(timeout)
        await self._prices.close()
        await self._session.stop(max(until - time.monotonic(), MIN_CLOSE_TIMEOUT))
        return report

    async def _stats(self, since: datetime, origin: str | None, id_at_origin: str | None) -> UsageStats | None:
        rows = await self.usage(since, group_by=("provider", "model_name"), origin=origin, id_at_origin=id_at_origin)
        return statistics.stats(rows, since)


def keywords(function: Callable[..., Any]) -> tuple[str, ...]:
    """Return the names of the parameters that a function takes only by keyword."""
    return tuple(getattr(function, "__kwdefaults__", None) or ())


def choose_backend(
    connection_string: str | None,
    backend: StorageBackend | None,
    db_manager: Any,
    *,
    parameters: Collection[str],
    **options: Any,
) -> StorageBackend | None:
    """Return the backend that a constructor was given, or create that of its URL or manager; None if it has none.

    :param parameters: the names of the constructor's parameters, one of which a misspelt option may mean
    :raises ValueError: two of them are given, or options for a backend made by hand
    :raises InvalidStorageURLError, UnknownStorageError, PluginError: the URL or its plugin is invalid
    """
    if backend is None:
        return create_backend(connection_string, parameters=parameters, db_manager=db_manager, **options)
    if connection_string or db_manager is not None:
        raise ValueError("give a backend, a connection string or a db_manager, not two of them")
    if given := [name for name, value in options.items() if value is not None]:
        close = hint(given[0], parameters)
        raise ValueError(f"options have no effect on a backend made by hand: {', '.join(given)}{close}")
    return backend
