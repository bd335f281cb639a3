"""LLMBridge: route a request to a vendor, time it, put it on the books."""

from __future__ import annotations

import asyncio
import logging
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager
from datetime import UTC, date, datetime
from typing import Any, Self

from . import catalog, endings
from .db import LLMDatabase, OnStorageError
from .errors import (
    InvalidRequestError,
    InvalidResponseError,
    ProviderTimeoutError,
    StorageUnavailableError,
)
from .models import Models
from .plugins import create_provider, foreign_distribution_warning, provider_names
from .providers.base import BaseLLMProvider, Completion
from .providers.routing import resolve
from .records import build, check_metadata, check_name, check_user, hash_prompt, new_id
from .schemas import CallRecord, DailyAnalytics, LLMModel, LLMRequest, LLMResponse, RecordStatus, UsageStats
from .session import Migrate
from .storage.types import UsageRow
from .usage import Accepted

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
    :param max_retries: 0, every request is sent once; other values are refused
    :param timeout: seconds for one attempt at a vendor; `LLMRequest.timeout` replaces it
    :param record_timeout: seconds that a finished call waits for the store
    :param on_storage_error: `raise` makes an unreachable store an error of `async with`; under every setting a
        call that the vendor answered returns its response
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
        max_retries: int = 0,
        timeout: float = 60.0,
        record_timeout: float = 5.0,
        on_storage_error: OnStorageError = "spool",
        **backend_options: Any,
    ) -> None:
        _warn_of_foreign_distribution()
        self.origin = check_name("origin", origin)
        if max_retries != 0:
            raise ValueError(f"max_retries is {max_retries}; this release sends every request once and takes only 0")
        if timeout <= 0:
            raise ValueError(f"timeout is {timeout}; it must be more than 0 seconds")
        self.timeout = timeout
        self._books = LLMDatabase(
            db_connection_string if enable_db_logging else None,
            db_manager=db_manager if enable_db_logging else None,
            schema=schema,
            enable_monitoring=enable_monitoring,
            plugin=plugin,
            migrate=migrate,
            record_timeout=record_timeout,
            on_storage_error=on_storage_error,
            **backend_options,
        )
        self._providers: dict[str, BaseLLMProvider] = {}
        self._priced_as: dict[str, str] = {}
        self._replaced: list[BaseLLMProvider] = []
        self._finishing: set[asyncio.Future[Any]] = set()

    @property
    def db(self) -> LLMDatabase | None:
        """The books; None when none are kept."""
        return self._books if self._books.enabled else None

    @property
    def models(self) -> Models:
        """Questions about the models that are known: which can do this, which are cheapest, what would it cost."""
        return Models(
            self._books.known_models,
            lambda: self._books.prices,
            lambda text: resolve(text, self._known_vendors()),
            self._priced_as,
        )

    @property
    def enable_db_logging(self) -> bool:
        """Whether books are kept."""
        return self._books.enabled

    async def __aenter__(self) -> Self:
        await self._ensure_db_initialized()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    async def _ensure_db_initialized(self) -> None:
        """Open the books now. An unreachable store is a warning, unless `on_storage_error="raise"`."""
        try:
            await self._books.initialize()
        except StorageUnavailableError as error:
            if self._books.on_storage_error == "raise":
                raise
            logger.warning("starting without the books, they are tried again by every call: %s", error)

    async def close(self) -> None:
        """Finish the calls in flight, for at most `record_timeout` seconds, then close the books and the connections
        to vendors. Idempotent; what comes after raises StorageClosedError."""
        if self._finishing:
            await asyncio.wait(self._finishing, timeout=self._books.record_timeout)
        async with AsyncExitStack() as closing:  # each is closed whatever the others raise
            for provider in (*self._providers.values(), *self._replaced):
                closing.push_async_callback(provider.close)
            closing.push_async_callback(self._books.close)
        self._replaced.clear()

    async def chat(self, request: LLMRequest, id_at_origin: str | None = None) -> LLMResponse:
        """Send one request to a model and put the call on the books, however it ends.

        `id_at_origin` is the application's user, of at most 255 characters (None: nobody in particular).

        :raises RecordRejectedError: `id_at_origin` or the request's metadata cannot be recorded; nothing was sent
        :raises ModelNotFoundError, ProviderNotFoundError: the model leads to no vendor; nothing was sent
        :raises ProviderError: the vendor refused or failed
        """
        if not isinstance(request, LLMRequest):
            raise TypeError(f"chat() takes an LLMRequest, not {type(request).__name__}")
        self._books.check_owner()
        vendor, model = resolve(request.model or "", self._known_vendors())
        provider = self.get_provider(vendor)
        known = self._known_of(request, vendor, model, id_at_origin)
        if request.cache is not None:
            _warn_of_cache()
        self._books.start_soon()
        with self._in_flight():
            started = time.monotonic()
            try:
                await provider.prepare()
                started, known["called_at"] = time.monotonic(), datetime.now(UTC)
                completion = await self._complete(provider, request, vendor, model)
            except Exception as error:
                await self._keep(vendor, {**known, **_elapsed(started), **endings.failure(error)})
                raise
            except BaseException as error:  # a cancelled caller does not wait for the books
                self._keep(vendor, {**known, **_elapsed(started), **endings.failure(error)})
                raise
            record, status = await self._keep(vendor, {**known, **_elapsed(started), **endings.success(completion)})
            return endings.response(request, vendor, completion, record, status)

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
        check_name("provider", name)
        if ":" in name:
            raise ValueError(f"{name!r} cannot stand before the colon of a model's name")
        if provider is not None and (kind is not None or options):
            raise TypeError("register_provider() takes a provider or the options to make one, not both")
        made = provider if provider is not None else create_provider(kind or name, **options)
        if name in self._providers:
            self._replaced.append(self._providers[name])
        made.name = name
        self._providers[name] = made
        self._priced_as[name] = priced_as or kind or name

    def get_provider(self, name: str) -> BaseLLMProvider:
        """The provider of that name, made on first use.

        :raises ProviderNotFoundError: it is neither registered nor installed
        """
        if name not in self._providers:
            self._providers[name] = create_provider(name)
        return self._providers[name]

    def get_available_models(self) -> dict[str, list[str]]:
        """The names of the bundled catalog's models, by vendor that can be called. A vendor may have others."""
        named: dict[str, list[str]] = {vendor: [] for vendor in sorted(self._known_vendors())}
        for model in catalog.models():
            named.get(model.provider, []).append(model.model_name)
        return named

    def get_model_info(self, model: str) -> dict[str, Any]:
        """The `provider` and `model` that a model string leads to, and the fields of LLMModel where the bundled
        catalog has it.

        :raises ModelNotFoundError, ProviderNotFoundError: it leads to no vendor
        """
        vendor, name = resolve(model, self._known_vendors())
        kind = self._priced_as.get(vendor, vendor)
        known = [entry for entry in catalog.models() if (entry.provider, entry.model_name) == (kind, name)]
        return {**(known[0].model_dump() if known else {}), "provider": vendor, "model": name}

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
        return await self._books.usage(
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
        return await self._books.get_usage_stats(self.origin, id_at_origin, days)

    async def get_daily_analytics(
        self, id_at_origin: str | None = None, days: int = 30, *, tz: str = "UTC"
    ) -> list[DailyAnalytics]:
        """This origin's usage per day, user, vendor and model; see `LLMDatabase.get_daily_analytics`."""
        return await self._books.get_daily_analytics(self.origin, id_at_origin, days, tz=tz)

    async def list_recent_calls(self, id_at_origin: str | None = None, limit: int = 100) -> list[CallRecord]:
        """This origin's most recent calls, newest first."""
        return await self._books.list_recent_calls(self.origin, id_at_origin, limit)

    async def get_models_from_db(self, provider: str | None = None, active_only: bool = True) -> list[LLMModel]:
        """The models that the store knows."""
        return await self._books.list_models(provider, active_only)

    async def get_model_from_db(self, provider: str, model_name: str) -> LLMModel | None:
        """One model that the store knows; None when it does not."""
        return await self._books.get_model(provider, model_name)

    async def health_check(self, timeout: float = 2.0) -> dict[str, Any]:
        """Whether the store answers within `timeout` seconds; never raises. See `LLMDatabase.health_check`."""
        return await self._books.health_check(timeout)

    def _known_vendors(self) -> set[str]:
        return provider_names() | self._providers.keys()

    def _known_of(self, request: LLMRequest, vendor: str, model: str, user: str | None) -> dict[str, Any]:
        """What stands on the record before the vendor is asked, checked so that no money is spent in vain."""
        call_id = new_id()
        known = {
            "id": call_id,
            "group_id": call_id,
            "origin": self.origin,
            "id_at_origin": check_user(user),
            "provider": check_name("provider", vendor),
            "model_name": check_name("model", model),
            "requested_model": request.model,
            "temperature": request.temperature,
            "max_tokens": request.max_tokens,
            "tools_used": [_tool_name(tool) for tool in request.tools] if request.tools else None,
            "system_prompt_hash": _system_prompt_hash(request),
            "metadata": check_metadata(request.metadata),
            "called_at": datetime.now(UTC),
        }
        build(known)
        return known

    async def _complete(self, provider: BaseLLMProvider, request: LLMRequest, vendor: str, model: str) -> Completion:
        timeout = self.timeout if request.timeout is None else request.timeout
        try:
            async with asyncio.timeout(timeout):
                completion: object = await provider.complete(request, model, timeout=timeout)
        except TimeoutError as error:
            raise ProviderTimeoutError(
                f"{vendor} did not answer within {timeout:g} s", provider=vendor, model=model
            ) from error
        if not isinstance(completion, Completion):
            raise InvalidResponseError(
                f"the provider of {vendor} returned {type(completion).__name__}, not a Completion",
                provider=vendor,
                model=model,
            )
        return completion

    def _keep(
        self, vendor: str, fields: dict[str, Any]
    ) -> asyncio.Future[tuple[CallRecord | None, RecordStatus | None]]:
        """Record an ending to its end, even if the caller goes away meanwhile."""
        keeping = asyncio.create_task(self._books.keep(fields, self._priced_as.get(vendor)))
        self._finishing.add(keeping)
        keeping.add_done_callback(self._finishing.discard)
        return asyncio.shield(keeping)

    @contextmanager
    def _in_flight(self) -> Iterator[None]:
        """Let `close` wait for a call until it has ended."""
        ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._finishing.add(ended)
        try:
            yield
        finally:
            self._finishing.discard(ended)
            ended.set_result(None)


def _elapsed(started: float) -> dict[str, Any]:
    return {"response_time_ms": round((time.monotonic() - started) * 1000)}


def _tool_name(tool: dict[str, Any]) -> str:
    function = tool.get("function", tool)
    name = function.get("name") if isinstance(function, dict) else None
    if not isinstance(name, str):
        raise InvalidRequestError("a tool has no name")
    return name


def _system_prompt_hash(request: LLMRequest) -> str | None:
    prompts = [str(message.content) for message in request.messages if message.role == "system"]
    return hash_prompt("\n".join(prompts)) if prompts else None


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
