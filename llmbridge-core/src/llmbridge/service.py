"""`LLMBridge`: sends requests to models and records every call with its cost."""

from __future__ import annotations

import asyncio
import logging
import os
import time
import warnings
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING, Any, Self

from ._calls import attempt, stream, structured_output
from ._calls.call import Call, Recorded, system_prompt_hash, tool_names
from ._calls.in_flight import InFlight
from ._calls.provider_registry import ProviderRegistry
from ._calls.retry import RetryPolicy
from ._recording.metrics import CloseReport
from ._records.validation import check_finite, check_integer, check_labels, check_metadata, check_name, check_user
from ._shared.single_flight import SingleFlight
from ._store.session import Migrate
from ._usage.query import Accepted
from ._usage.result import UsageResults
from ._usage.times import When
from .db import MIN_CLOSE_TIMEOUT, LLMDatabase, OnStorageError, choose_backend, keywords
from .errors import InvalidRequestError, ModelNotFoundError, StorageClosedError
from .plugins import foreign_distribution_warning
from .providers.base import BaseLLMProvider
from .schemas import CallRecord, DailyAnalytics, LLMChunk, LLMModel, LLMRequest, LLMResponse, UsageStats
from .storage.base import StorageBackend

if TYPE_CHECKING:
    from ._models.queries import Models

logger = logging.getLogger("llmbridge.calls")


class LLMBridge:
    """Client for all models, which records every call. Create one and share it; it belongs to one event loop.

    :param db_connection_string: URL or path of the database; None, and no `backend` and no `db_manager`: calls are not
        recorded
    :param backend: a backend made by hand, instead of a URL
    :param db_manager: a host application's pgdbm manager, whose pool is used and left open
    :param origin: name of the application, in every record
    :param enable_db_logging: False: calls are not recorded, even if a database is given
    :param enable_monitoring: collect query statistics, if the backend can
    :param schema: schema of the tables, if the database has schemas (None: the backend's default)
    :param plugin: distribution that provides the URL's scheme, if several do
    :param migrate: `auto` migrates the database at first use, `check` raises SchemaOutdatedError instead
    :param max_retries: most retries after transient errors, at each model
    :param timeout: seconds for one attempt; `LLMRequest.timeout` replaces it
    :param total_timeout: seconds for all attempts of a call, with the waits between them; the first attempt has its own
        timeout in any case
    :param record_timeout: seconds that a finished call waits until it is committed
    :param on_storage_error: what to do with calls that are not committed by then: `spool`, `log` or `raise`, as for
        LLMDatabase; a call that the provider answered always returns its response
    :param spool_dir: directory of the spool; see LLMDatabase
    :param backend_options: options of the backend
    :raises InvalidStorageURLError, UnknownStorageError, PluginError: the URL or its plugin is invalid; nothing was
        opened
    """

    def __init__(
        self,
        db_connection_string: str | None = None,
        *,
        backend: StorageBackend | None = None,
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
        self._retries = RetryPolicy(max_retries, total_timeout)
        self._database = LLMDatabase(
            backend=choose_backend(
                db_connection_string if enable_db_logging else None,
                backend if enable_db_logging else None,
                db_manager if enable_db_logging else None,
                parameters=keywords(LLMBridge.__init__),
                plugin=plugin,
                schema=schema,
                enable_monitoring=enable_monitoring or None,
                **backend_options,
            ),
            migrate=migrate,
            record_timeout=record_timeout,
            on_storage_error=on_storage_error,
            spool_dir=spool_dir,
        )
        self._providers = ProviderRegistry()
        self._in_flight = InFlight()
        self._closing: SingleFlight[CloseReport] = SingleFlight("llmbridge-bridge-close")

    @property
    def db(self) -> LLMDatabase | None:
        """The database; None if calls are not recorded."""
        return self._database if self._database.enabled else None

    @property
    def models(self) -> Models:
        """Queries over the known models: find, compare costs, estimate."""
        from ._models.queries import Models

        return Models(self._database, self._providers)

    @property
    def enable_db_logging(self) -> bool:
        """Whether calls are recorded."""
        return self._database.enabled

    async def __aenter__(self) -> Self:
        await self._ensure_db_initialized()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    async def _ensure_db_initialized(self) -> None:
        """Open the database now. Log a warning if it cannot be reached; raise with `on_storage_error="raise"`."""
        await self._closing.wait()
        await self._database.open()

    async def close(self, timeout: float | None = None) -> CloseReport:
        """Stop accepting calls, finish those in flight, flush the queue, spool the rest, close database and providers.

        All this takes at most `timeout` seconds (None: `record_timeout`). If the calls in flight use them up, the
        database gets one more second, and so does each provider. Concurrent callers share one shutdown; cancelling a
        caller does not cancel it. Later calls raise StorageClosedError.

        :return: how many of the waiting calls were committed, spooled or lost
        """
        return await self._closing.run(
            partial(self._close, self._database.record_timeout if timeout is None else timeout)
        )

    async def chat(
        self, request: LLMRequest, id_at_origin: str | None = None, *, user: str | None = None
    ) -> LLMResponse:
        """Send one request to a model, record the call whatever its outcome, and return the response.

        Transient errors (rate limit, timeout, 5xx, no connection) are retried: after `Retry-After` if the provider sent
        it, else with exponential backoff. After that, and after all other errors except InvalidRequestError, the next
        model of the request is called. Every attempt is recorded with its number and the same `group_id`.

        :param id_at_origin: the application's user, at most 255 characters (None: no user)
        :param user: a shorter name of `id_at_origin`
        :raises RecordRejectedError: `id_at_origin` or the request's metadata cannot be recorded; nothing was sent
        :raises ModelNotFoundError, ProviderNotFoundError: the provider of a model is unknown; nothing was sent
        :raises InvalidRequestError: the request is invalid, or the provider does not support it
        :raises ProviderError: the provider refused the last attempt, or failed
        :raises ModelNotFoundError: the provider does not have the model; this is not a ProviderError
        """
        call = self._call(request, _user(id_at_origin, user))
        with self._in_flight.call():
            return await self._retries.run(
                call.targets, call.timeout, lambda target, limit: attempt.send(call, target, limit)
            )

    def stream(
        self, request: LLMRequest, id_at_origin: str | None = None, *, user: str | None = None
    ) -> AsyncGenerator[LLMChunk, None]:
        """Send one request to a model and yield the response's text as it arrives; the last chunk has the response.

        Nothing is sent before the first step. The call is recorded once. If the consumer stops early or is cancelled,
        it is recorded as cancelled, with the usage that the provider reported until then (`usage_source` is `partial`).
        To stop early, call `aclose()` or use `contextlib.aclosing`: this ends the call at once. The timeout applies to
        each step, also the first. Retries and fallbacks are as in `chat`, but happen only before the first text.

        Raises like `chat`: errors that prevent the request at once, errors of the provider while iterating.
        """
        call = self._call(request, _user(id_at_origin, user))
        return stream.chunks(call, self._retries, self._in_flight.call)

    def register_provider(
        self,
        name: str,
        provider: BaseLLMProvider | None = None,
        *,
        kind: str | None = None,
        priced_as: str | None = None,
        price_context: Mapping[str, str] | None = None,
        **options: Any,
    ) -> None:
        """Register a provider for models called `name:…`: an object, or an installed one with options.

        :param provider: a provider object; None creates one from `kind` and `options`
        :param kind: the installed provider that uses the endpoint's protocol (None: `name` itself)
        :param priced_as: the provider whose price list applies to the calls (None: `kind`)
        :param price_context: the terms of the price of all calls that no answer tells, such as
            `{"processing": "batch"}`
        :param options: options of the provider, such as `api_key` and `base_url`
        :raises ProviderNotFoundError: `kind` is not installed
        """
        self._providers.register(
            name, provider, kind=kind, priced_as=priced_as, price_context=price_context, options=options
        )

    def get_provider(self, name: str) -> BaseLLMProvider:
        """Return the provider of that name; create it at first use.

        :raises ProviderNotFoundError: it is neither registered nor installed
        """
        return self._providers.provider(name)

    async def discover_models(self, provider: str | None = None) -> dict[str, list[str]]:
        """Ask providers which models they have, then return the same as `get_available_models`.

        Each provider has `timeout` seconds to answer. A provider that does not list its models keeps those of the
        catalog, and so does one that fails or has no key if all are asked.

        :param provider: the one to ask (None: all that can be called)
        :raises ProviderError, ProviderNotFoundError: the given provider cannot be asked
        """
        if provider is not None:
            await self._providers.discover(provider, self.timeout)
        else:
            await self._providers.discover_all(self.timeout)
        return self._providers.models()

    def get_available_models(self) -> dict[str, list[str]]:
        """Return the names of known models by provider: those that `discover_models` found, else those of the catalog.

        A provider may have further models, which can be called too.
        """
        return self._providers.models()

    def get_model_info(self, model: str) -> dict[str, Any]:
        """Return `provider` and `model` of a model string, and the fields of LLMModel if the bundled catalog has it.

        `supported` is False only if `discover_models` found other models of the provider, but not this one.

        :raises ModelNotFoundError, ProviderNotFoundError: the provider of the model is unknown
        """
        return self._providers.model_info(model)

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
        """Return exact sums over this origin's calls, or over those of the given `origin`. See `LLMDatabase.usage`."""
        return await self._database.usage(
            since,
            until,
            group_by=group_by,
            tz=tz,
            origin=self.origin if origin is None else origin,
            id_at_origin=id_at_origin,
            user=user,
            provider=provider,
            model_name=model_name,
            model=model,
            status=status,
            response_model=response_model,
            tags=tags,
        )

    async def get_usage_stats(self, id_at_origin: str | None = None, days: int = 30) -> UsageStats | None:
        """Return statistics of one user, or of this whole origin, over the last `days` times 24 hours; None if no call
        was recorded."""
        return await self._database.get_usage_stats(self.origin, id_at_origin, days)

    async def get_daily_analytics(
        self, id_at_origin: str | None = None, days: int = 30, *, tz: str = "UTC"
    ) -> list[DailyAnalytics]:
        """Return this origin's usage by day, user, provider and model. See `LLMDatabase.get_daily_analytics`."""
        return await self._database.get_daily_analytics(self.origin, id_at_origin, days, tz=tz)

    async def list_recent_calls(self, id_at_origin: str | None = None, limit: int = 100) -> list[CallRecord]:
        """Return this origin's most recent calls, newest first."""
        return await self._database.list_recent_calls(self.origin, id_at_origin, limit)

    async def get_models_from_db(self, provider: str | None = None, active_only: bool = True) -> list[LLMModel]:
        """Return the models in the database."""
        return await self._database.list_models(provider, active_only)

    async def get_model_from_db(self, provider: str, model_name: str) -> LLMModel | None:
        """Return one model of the database; None if it does not have it."""
        return await self._database.get_model(provider, model_name)

    def metrics(self) -> dict[str, int]:
        """Return the counters of recorded calls as a flat dict. See `LLMDatabase.metrics`."""
        return self._database.metrics()

    async def health_check(self, timeout: float = 2.0) -> dict[str, Any]:
        """Return whether the database answers within `timeout` seconds. Never raise. See `LLMDatabase.health_check`."""
        return await self._database.health_check(timeout)

    async def _close(self, seconds: float) -> CloseReport:
        until = time.monotonic() + seconds
        await self._in_flight.wait(seconds)
        report = CloseReport()
        async with AsyncExitStack() as closing:  # closes each provider, even if closing another one raises
            for provider in self._providers.providers():
                closing.push_async_callback(_close_provider, provider)
            report = await self._database.close(max(until - time.monotonic(), min(seconds, MIN_CLOSE_TIMEOUT)))
        self._providers.drop_replaced()
        return report

    def _call(self, request: LLMRequest, user: str | None) -> Call:
        """Return the call for a request. Everything that is recorded is validated before money is spent."""
        if not isinstance(request, LLMRequest):
            raise TypeError(f"a call takes an LLMRequest, not {type(request).__name__}")
        self._database.check_owner()
        if self._closing.is_running:
            raise StorageClosedError("the bridge is being closed; open it again with `async with`")
        targets = tuple(
            map(self._providers.target, request.model if isinstance(request.model, list) else [request.model])
        )
        if not targets:
            raise ModelNotFoundError("the list of models is empty: name at least one model")
        timeout = self.timeout if request.timeout is None else request.timeout
        if not timeout > 0:
            raise InvalidRequestError(f"timeout is {timeout}; it must be more than 0 seconds")
        common_fields = {
            "origin": self.origin,
            "id_at_origin": check_user(user),
            "temperature": check_finite("temperature", request.temperature),
            "max_tokens": check_integer("max_tokens", request.max_tokens),
            "tools_used": tool_names(request),
            "system_prompt_hash": system_prompt_hash(request),
            "metadata": check_metadata(request.metadata),
            "price_context": check_labels("price_context", request.price_context or {}),
        }
        sent = structured_output.sendable(request)
        if request.cache is not None:
            _warn_of_cache()
        self._database.start_soon()
        return Call(request, sent, targets, common_fields, self._record, timeout)

    def _record(self, provider: str, fields: Mapping[str, Any]) -> Recorded:
        """Record the outcome of an attempt, even if the caller is cancelled meanwhile."""
        return self._in_flight.shielded(self._database.keep(fields, self._providers.priced_as(provider)))


def _user(id_at_origin: str | None, user: str | None) -> str | None:
    if id_at_origin is not None and user is not None:
        raise TypeError("give id_at_origin or user, which are the same, not both")
    return id_at_origin if user is None else user


async def _close_provider(provider: BaseLLMProvider) -> None:
    try:
        async with asyncio.timeout(MIN_CLOSE_TIMEOUT):
            await provider.close()
    except TimeoutError:
        logger.warning("the provider %s did not close its connections in time; they are left open", provider.name)


_warned: set[str] = set()


def _warn_once(text: str, category: type[Warning]) -> None:
    if text not in _warned:
        _warned.add(text)
        warnings.warn(text, category, stacklevel=4)


def _warn_of_cache() -> None:
    _warn_once("LLMRequest.cache does nothing: llmbridge does not cache responses", UserWarning)


def _warn_of_foreign_distribution() -> None:
    text = foreign_distribution_warning()
    if text is not None:
        _warn_once(text, RuntimeWarning)
