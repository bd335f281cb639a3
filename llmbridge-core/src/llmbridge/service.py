"""LLMBridge: route a request to a vendor, time it, put it on the books."""

from __future__ import annotations

import asyncio
import json
import logging
import time
import warnings
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from typing import Any, Self

from .db import LLMDatabase, OnStorageError
from .errors import (
    InvalidRequestError,
    InvalidResponseError,
    LLMBridgeError,
    ProviderError,
    ProviderTimeoutError,
    ProviderUnavailableError,
    StorageUnavailableError,
)
from .plugins import create_provider, foreign_distribution_warning, provider_names
from .providers.base import BaseLLMProvider, Completion
from .providers.routing import resolve
from .records import check_metadata, check_name, check_user, hash_prompt, new_id
from .schemas import CallRecord, LLMModel, LLMRequest, LLMResponse, RecordStatus, UsageStats
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
    :param on_storage_error: `raise` makes an unreachable store an error at the start; under every setting a
        finished call returns its response
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
        self._finishing: set[asyncio.Task[Any]] = set()

    @property
    def db(self) -> LLMDatabase | None:
        """The books; None when none are kept."""
        return self._books if self._books.enabled else None

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
        """Finish what is being recorded, close the books and the connections to vendors. Idempotent."""
        if self._finishing:
            await asyncio.wait(self._finishing)
        await self._books.close()
        for provider in self._providers.values():
            await provider.close()

    async def chat(self, request: LLMRequest, id_at_origin: str | None = None) -> LLMResponse:
        """Send one request to a model and put the call on the books, however it ends.

        `id_at_origin` is the application's user, of at most 255 characters (None: nobody in particular).

        :raises RecordRejectedError: `id_at_origin` or the request's metadata cannot be recorded; nothing was sent
        :raises ModelNotFoundError, ProviderNotFoundError: the model leads to no vendor; nothing was sent
        :raises ProviderError: the vendor refused or failed
        """
        self._books.check_owner()
        vendor, model = resolve(request.model or "", self._known_vendors())
        provider = self.get_provider(vendor)
        known = self._known_of(request, vendor, model, id_at_origin)
        if request.cache is not None:
            _warn_of_cache()
        if self._books.on_storage_error == "raise":
            await self._books.initialize()
        else:
            self._books.start_soon()
        started = time.monotonic()
        try:
            completion = await self._complete(provider, request, vendor, model)
        except asyncio.CancelledError:
            await self._keep(vendor, {**known, **_ending(started), "status": "cancelled"})
            raise
        except Exception as error:
            await self._keep(vendor, {**known, **_ending(started), **_failure(error)})
            raise
        record, status = await self._keep(vendor, {**known, **_ending(started), **_success(completion)})
        return _response(request, vendor, completion, record, status)

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
        if provider is not None and (kind is not None or options):
            raise TypeError("register_provider() takes a provider or the options to make one, not both")
        self._providers[name] = provider if provider is not None else create_provider(kind or name, **options)
        self._priced_as[name] = priced_as or kind or name

    def get_provider(self, name: str) -> BaseLLMProvider:
        """The provider of that name, made on first use.

        :raises ProviderNotFoundError: it is neither registered nor installed
        """
        if name not in self._providers:
            self._providers[name] = create_provider(name)
        return self._providers[name]

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
        return {
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

    async def _complete(self, provider: BaseLLMProvider, request: LLMRequest, vendor: str, model: str) -> Completion:
        timeout = self.timeout if request.timeout is None else request.timeout
        try:
            async with asyncio.timeout(timeout):
                return await provider.complete(request, model, timeout=timeout)
        except TimeoutError as error:
            raise ProviderTimeoutError(
                f"{vendor} did not answer within {timeout:g} s", provider=vendor, model=model
            ) from error

    async def _keep(self, vendor: str, fields: dict[str, Any]) -> tuple[CallRecord | None, RecordStatus | None]:
        """Record an ending to its end, even if the caller goes away meanwhile."""
        keeping = asyncio.create_task(self._books.keep(fields, self._priced_as.get(vendor)))
        self._finishing.add(keeping)
        keeping.add_done_callback(self._finishing.discard)
        return await asyncio.shield(keeping)


def _ending(started: float) -> dict[str, Any]:
    return {"response_time_ms": round((time.monotonic() - started) * 1000)}


def _success(completion: Completion) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "finish_reason": completion.finish_reason,
        "response_id": completion.response_id,
    }
    usage = completion.usage
    if usage is not None:
        fields |= usage.model_dump(exclude={"source"})
        fields["usage_source"] = usage.source
    if completion.cost is not None:
        fields |= {"estimated_cost": completion.cost, "cost_source": "provider"}
    return fields


def _failure(error: Exception) -> dict[str, Any]:
    """How a failed attempt stands on the record. The text of a foreign exception may quote the prompt: it is left
    out."""
    return {
        "status": error.status if isinstance(error, ProviderError) else "error",
        "error_type": type(error).__name__,
        "error_message": str(error) if isinstance(error, LLMBridgeError) else None,
        "cost_reason": "not_billed" if _is_unbilled(error) else "unmeasured_usage",
    }


def _is_unbilled(error: Exception) -> bool:
    """Whether the vendor refused the attempt, so that it cost nothing; what broke off half-way may have."""
    if isinstance(error, ProviderTimeoutError | InvalidResponseError):
        return False
    if isinstance(error, ProviderUnavailableError):
        return error.status_code is not None
    return isinstance(error, LLMBridgeError)


def _response(
    request: LLMRequest,
    vendor: str,
    completion: Completion,
    record: CallRecord | None,
    status: RecordStatus | None,
) -> LLMResponse:
    cost = record.estimated_cost if record is not None else None
    usage: dict[str, Any] | None = None
    if completion.usage is not None:
        usage = {
            "prompt_tokens": completion.usage.prompt_tokens,
            "completion_tokens": completion.usage.completion_tokens,
            "total_tokens": completion.usage.total_tokens,
        }
        if cost is not None:
            usage["cost"] = cost
    return LLMResponse(
        content=completion.content,
        model=completion.model,
        usage=usage,
        finish_reason=completion.finish_reason,
        tool_calls=completion.tool_calls,
        provider=vendor,
        cost=cost,
        cost_reason=record.cost_reason if record is not None else None,
        call_id=record.id if record is not None and status is not None else None,
        record_status=status,
        parsed=_parsed(completion.content) if _wants_json(request) else None,
    )


def _wants_json(request: LLMRequest) -> bool:
    kind = (request.response_format or {}).get("type")
    return bool(request.json_response) or kind in ("json_object", "json_schema")


def _parsed(content: str) -> Any:
    try:
        return json.loads(content)
    except ValueError:
        return None


def _tool_name(tool: dict[str, Any]) -> str:
    name = tool.get("function", tool).get("name")
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
