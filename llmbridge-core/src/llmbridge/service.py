"""LLMBridge: route a request to a vendor, time it, put it on the books."""

from __future__ import annotations

import asyncio
import logging
import os
import time
import warnings
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AsyncExitStack
from datetime import date, datetime
from functools import partial
from typing import Any, Self

from ._calls import attempt, stream, structured_output
from ._calls.call import Call, Kept, system_prompt_hash, tool_names
from ._calls.in_flight import InFlight
from ._calls.provider_registry import ProviderRegistry
from ._calls.retry import Retries
from ._models.queries import Models
from ._recording.metrics import CloseReport
from ._records.validation import check_finite, check_integer, check_metadata, check_name, check_user
from ._shared.single_flight import SingleFlight
from ._store.session import Migrate
from ._usage.query import Accepted
from .db import MIN_CLOSE_TIMEOUT, LLMDatabase, OnStorageError
from .errors import InvalidRequestError, ModelNotFoundError, StorageClosedError
from .plugins import foreign_distribution_warning
from .providers.base import BaseLLMProvider
from .schemas import CallRecord, DailyAnalytics, LLMChunk, LLMModel, LLMRequest, LLMResponse, UsageStats
from .storage.types import UsageRow

logger = logging.getLogger("llmbridge.service")


class LLMBridge:
    """Calls any model and keeps the books. Make one and share it; it belongs to the event loop that opened it.

    :param db_connection_string: URL or path of the store; None with no `db_manager`: no books are kept
    :param db_manager: a host application's pgdbm manager, whose pool is used and left open
    :param origin: name of the application, on every record
    :param enable_db_logging: False keeps no books, whatever the two above say
    :param enable_monitoring: collect query statistics, where the backend can
    :param schema: schema of the tables, where the store has schemas (None: the backend's default)
    :param plugin: distribution that serves the URL's scheme, where several claim it
    :param migrate: `auto` migrates the store at first use, `check` raises SchemaOutdatedError instead
    :param max_retries: how many times an attempt that failed for a while is made again, at each model
    :param timeout: seconds for one attempt at a vendor; `LLMRequest.timeout` replaces it
    :param total_timeout: seconds for all attempts of a call with the pauses between them; the first one has its whole
        timeout in any case
    :param record_timeout: seconds that a finished call waits for the store
    :param on_storage_error: what becomes of calls that the store does not take by then: `spool`, `log` or `raise`,
        as for LLMDatabase; under every setting a call that the vendor answered returns its response
    :param spool_dir: where calls wait while the store is away; see LLMDatabase
    :param backend_options: options of the backend
    :raises InvalidStorageURLError, UnknownStorageError, PluginError: the URL or its plugin is wrong; nothing is
        opened
    """

    def __init__(
        self,
        db_connection_string: str | None = None,
        *,
        db_manager: Any = None,
        origin: str = "llmbridge",
        enable_db_logging: bool = True,
        enable_monitoring: bool = False,
        schema: str | None = None,
        plugin: str | None = None,
        migrate: Migrate = "auto",
        max_retries: int = 2,
        timeout: float = 60.0,
        total_timeout: float = 180.0,
        record_timeout: float = 5.0,
        on_storage_error: OnStorageError = "spool",
        spool_dir: str | os.PathLike[str] | None = None,
        **backend_options: Any,
    ) -> None:
        _warn_of_foreign_distribution()
        self.origin = check_name("origin", origin)
        if max_retries < 0:
            raise ValueError(f"max_retries is {max_retries}; it must not be negative")
        for name, seconds in (("timeout", timeout), ("total_timeout", total_timeout)):
            if not seconds > 0:
                raise ValueError(f"{name} is {seconds}; it must be more than 0 seconds")
        self.timeout = timeout
        self._retries = Retries(max_retries, total_timeout)
        self._database = LLMDatabase(
            db_connection_string if enable_db_logging else None,
            db_manager=db_manager if enable_db_logging else None,
            schema=schema,
            enable_monitoring=enable_monitoring,
            plugin=plugin,
            migrate=migrate,
            record_timeout=record_timeout,
            on_storage_error=on_storage_error,
            spool_dir=spool_dir,
            **backend_options,
        )
        self._providers = ProviderRegistry()
        self._in_flight = InFlight()
        self._closing: SingleFlight[CloseReport] = SingleFlight("llmbridge-bridge-close")

    @property
    def db(self) -> LLMDatabase | None:
        """The books; None when none are kept."""
        return self._database if self._database.enabled else None

    @property
    def models(self) -> Models:
        """Questions about the models that are known: which can do this, which are cheapest, what would it cost."""
        database, providers = self._database, self._providers
        return Models(
            database.known_models,
            database.refresh_prices,
            lambda: database.prices,
            providers.resolve,
            providers.priced_as,
        )

    @property
    def enable_db_logging(self) -> bool:
        """Whether books are kept."""
        return self._database.enabled

    async def __aenter__(self) -> Self:
        await self._ensure_db_initialized()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    async def _ensure_db_initialized(self) -> None:
        """Open the books now. An unreachable store is a warning, unless `on_storage_error="raise"`."""
        await self._closing.wait()
        await self._database.open()

    async def close(self, timeout: float | None = None) -> CloseReport:
        """Begin no more calls, finish those in flight, write what waits, spool the rest, and close the books and the
        connections to vendors; all of it within `timeout` seconds (None: `record_timeout`), and where the calls in
        flight take them all, the store gets a second more, and so does each vendor's provider. Says what became of what
        waited. Who is cancelled meanwhile, or asks again, changes nothing: one closing runs to its end. What comes
        after raises StorageClosedError."""
        return await self._closing.run(
            partial(self._close, self._database.record_timeout if timeout is None else timeout)
        )

    async def chat(self, request: LLMRequest, id_at_origin: str | None = None) -> LLMResponse:
        """Send one request to a model and put the call on the books, however it ends.

        `id_at_origin` is the application's user, of at most 255 characters (None: nobody in particular).

        What passes (a rate limit, a vendor that fails or cannot be reached, a timeout) is tried again, after the wait
        that the vendor asked for, else after one that grows. Then, and after every other failure but an
        InvalidRequestError, the next of several models is asked. Each attempt is on the books with its number and the
        same `group_id`.

        :raises RecordRejectedError: `id_at_origin` or the request's metadata cannot be recorded; nothing was sent
        :raises ModelNotFoundError, ProviderNotFoundError: a model leads to no vendor; nothing was sent
        :raises InvalidRequestError: the request cannot be served as it is
        :raises ProviderError: the vendor refused or failed, in the last attempt
        :raises ModelNotFoundError: the vendor does not have the model; no ProviderError
        """
        call = self._call(request, id_at_origin)
        with self._in_flight.call():
            return await self._retries.run(
                call.targets, call.timeout, lambda target, limit: attempt.answer(call, target, limit)
            )

    def stream(self, request: LLMRequest, id_at_origin: str | None = None) -> AsyncGenerator[LLMChunk, None]:
        """Send one request to a model and yield the answer's text as it comes; the last chunk has the response.

        Nothing is sent before the first step. The call is on the books once, however it ends: a consumer who stops
        early, is cancelled or goes away leaves a call that was cancelled, with what the vendor had counted until then
        (`usage_source` is `partial`). The timeout is for each step of the vendor's, the first included. There are
        retries and fallbacks as in `chat` until the first text has come, and none afterwards. Whoever stops early ends
        the call at once by `aclose()`, or by `contextlib.aclosing`.

        Raises like `chat`: at once what keeps the request from being sent, and while iterating what the vendor's
        failure is.
        """
        call = self._call(request, id_at_origin)
        return stream.chunks(call, self._retries, self._in_flight.call)

    def register_provider(
        self,
        name: str,
        provider: BaseLLMProvider | None = None,
        *,
        kind: str | None = None,
        priced_as: str | None = None,
        **options: Any,
    ) -> None:
        """Serve models called `name:…`, by a provider made by hand or by an installed one.

        `kind` is the installed vendor that speaks the endpoint's protocol (None: `name` itself) and `options`
        are its options, such as `api_key` and `base_url`. Calls are priced by the list of `priced_as` (None: of
        `kind`).

        :raises ProviderNotFoundError: `kind` is not installed
        """
        self._providers.register(name, provider, kind=kind, priced_as=priced_as, options=options)

    def get_provider(self, name: str) -> BaseLLMProvider:
        """The provider of that name, made on first use.

        :raises ProviderNotFoundError: it is neither registered nor installed
        """
        return self._providers.provider(name)

    async def discover_models(self, provider: str | None = None) -> dict[str, list[str]]:
        """Ask the vendors that can be called, or the one named, which models they have, for at most `timeout` seconds;
        then the same as `get_available_models`. A vendor that lists none keeps the catalog's, and so does, where all
        are asked, one that fails or has no key.

        :raises ProviderError, ProviderNotFoundError: the vendor named cannot be asked
        """
        if provider is not None:
            await self._providers.discover(provider, self.timeout)
        else:
            await self._providers.discover_all(self.timeout)
        return self._providers.models()

    def get_available_models(self) -> dict[str, list[str]]:
        """The names of models by vendor that can be called: those that the vendor told `discover_models`, else those of
        the bundled catalog. A vendor may have others, and they can be called too."""
        return self._providers.models()

    def get_model_info(self, model: str) -> dict[str, Any]:
        """The `provider` and `model` that a model string leads to, and the fields of LLMModel where the bundled catalog
        has it. `supported` is False only where the vendor told `discover_models` of others and not of this one.

        :raises ModelNotFoundError, ProviderNotFoundError: it leads to no vendor
        """
        return self._providers.model_info(model)

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
        """Exact sums over this origin's calls, or over those of the `origin` given; see `LLMDatabase.usage`."""
        return await self._database.usage(
            since,
            until,
            group_by=group_by,
            tz=tz,
            origin=self.origin if origin is None else origin,
            id_at_origin=id_at_origin,
            provider=provider,
            model_name=model_name,
            status=status,
            tags=tags,
        )

    async def get_usage_stats(self, id_at_origin: str | None = None, days: int = 30) -> UsageStats | None:
        """Statistics of one user, or of this origin as a whole, over the last `days` times 24 hours; None when
        nothing was recorded."""
        return await self._database.get_usage_stats(self.origin, id_at_origin, days)

    async def get_daily_analytics(
        self, id_at_origin: str | None = None, days: int = 30, *, tz: str = "UTC"
    ) -> list[DailyAnalytics]:
        """This origin's usage per day, user, vendor and model; see `LLMDatabase.get_daily_analytics`."""
        return await self._database.get_daily_analytics(self.origin, id_at_origin, days, tz=tz)

    async def list_recent_calls(self, id_at_origin: str | None = None, limit: int = 100) -> list[CallRecord]:
        """This origin's most recent calls, newest first."""
        return await self._database.list_recent_calls(self.origin, id_at_origin, limit)

    async def get_models_from_db(self, provider: str | None = None, active_only: bool = True) -> list[LLMModel]:
        """The models that the store knows."""
        return await self._database.list_models(provider, active_only)

    async def get_model_from_db(self, provider: str, model_name: str) -> LLMModel | None:
        """One model that the store knows; None when it does not."""
        return await self._database.get_model(provider, model_name)

    def metrics(self) -> dict[str, int]:
        """What became of calls, as a flat dict of counters. See `LLMDatabase.metrics`."""
        return self._database.metrics()

    async def health_check(self, timeout: float = 2.0) -> dict[str, Any]:
        """Whether the store answers within `timeout` seconds; never raises. See `LLMDatabase.health_check`."""
        return await self._database.health_check(timeout)

    async def _close(self, seconds: float) -> CloseReport:
        until = time.monotonic() + seconds
        await self._in_flight.wait(seconds)
        report = CloseReport()
        async with AsyncExitStack() as closing:  # each is closed whatever the others raise
            for provider in self._providers.providers():
                closing.push_async_callback(_let_go, provider)
            report = await self._database.close(max(until - time.monotonic(), min(seconds, MIN_CLOSE_TIMEOUT)))
        self._providers.forget_replaced()
        return report

    def _call(self, request: LLMRequest, user: str | None) -> Call:
        """The call that a request makes, checked so that no money is spent in vain."""
        if not isinstance(request, LLMRequest):
            raise TypeError(f"a call takes an LLMRequest, not {type(request).__name__}")
        self._database.check_owner()
        if self._closing.is_running:
            raise StorageClosedError("these books are being closed; open them again with `async with`")
        targets = tuple(
            map(self._providers.target, request.model if isinstance(request.model, list) else [request.model])
        )
        if not targets:
            raise ModelNotFoundError("the list of models is empty")
        timeout = self.timeout if request.timeout is None else request.timeout
        if not timeout > 0:
            raise InvalidRequestError(f"timeout is {timeout}; it must be more than 0 seconds")
        known = {
            "origin": self.origin,
            "id_at_origin": check_user(user),
            "temperature": check_finite("temperature", request.temperature),
            "max_tokens": check_integer("max_tokens", request.max_tokens),
            "tools_used": tool_names(request),
            "system_prompt_hash": system_prompt_hash(request),
            "metadata": check_metadata(request.metadata),
        }
        sent = structured_output.sendable(request)
        if request.cache is not None:
            _warn_of_cache()
        self._database.start_soon()
        return Call(request, sent, targets, known, self._keep, timeout)

    def _keep(self, provider: str, fields: Mapping[str, Any]) -> Kept:
        """Record the outcome of an attempt, even if the caller is cancelled meanwhile."""
        return self._in_flight.shielded(self._database.keep(fields, self._providers.priced_as(provider)))


async def _let_go(provider: BaseLLMProvider) -> None:
    try:
        async with asyncio.timeout(MIN_CLOSE_TIMEOUT):
            await provider.close()
    except TimeoutError:
        logger.warning("the provider %s takes too long to close its connections; they are left behind", provider.name)


_warned: set[str] = set()


def _warn_once(text: str, category: type[Warning]) -> None:
    if text not in _warned:
        _warned.add(text)
        warnings.warn(text, category, stacklevel=4)


def _warn_of_cache() -> None:
    _warn_once("LLMRequest.cache does nothing: llmbridge caches no answers", UserWarning)


def _warn_of_foreign_distribution() -> None:
    text = foreign_distribution_warning()
    if text is not None:
        _warn_once(text, RuntimeWarning)
