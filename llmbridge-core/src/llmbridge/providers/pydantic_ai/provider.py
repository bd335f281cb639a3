"""The base class of the providers that are called through pydantic-ai: opens the client, translates errors, closes."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import TYPE_CHECKING

from ...errors import AuthenticationError, LLMBridgeError, ProviderError, ProviderNotFoundError
from ...schemas import LLMRequest
from ..base import BaseLLMProvider, Completion, Delta
from .endpoint import find_endpoint
from .error_mapping import (
    CallFailure,
    IncompleteStreamError,
    PartialUsageError,
    SDKError,
    to_error,
    without_text,
)
from .table import PROVIDERS

if TYPE_CHECKING:
    from .sdk import ProviderClient

#: Timeout of listing the models of a provider, in seconds.
_LISTING_TIMEOUT = 30.0


class PydanticAIProvider(BaseLLMProvider):
    """A provider that is called through pydantic-ai and the provider's SDK.

    The first call reads the environment, imports the SDK and connects. All calls share one connection pool, which
    belongs to the event loop of the first. Redirects are not followed. A server whose `base_url` is passed gets nothing
    from the environment. `http_client`, an `httpx2.AsyncClient` of the caller, is used as it is and not closed.
    """

    #: The row of the table of providers.
    kind: str
    organization: str | None = None

    def __init__(
        self, api_key: str | None = None, base_url: str | None = None, *, http_client: object | None = None
    ) -> None:
        super().__init__(api_key, base_url)
        self.name = self.kind
        self.http_client = http_client
        self._client: ProviderClient | None = None

    async def prepare(self) -> None:
        """Read the environment and import the SDK, which takes seconds the first time.

        :raises ProviderError: there is no key, or the address is invalid
        :raises ProviderNotFoundError: the SDK is not installed
        """
        if self._client is None:
            await self._open()

    async def complete(self, request: LLMRequest, model: str, *, timeout: float) -> Completion:
        """Send one request, without retries, and return the response. `model` is the name without prefix, `timeout` is
        in seconds.

        :raises ProviderError: the provider refused or failed; the text repeats nothing of the request or the response
        :raises ModelNotFoundError: the provider does not have the model
        :raises ProviderNotFoundError: the SDK is not installed
        """
        client = self._client or await self._open()
        try:
            return await client.complete(request, model, timeout=timeout)
        except ProviderError as error:
            error.provider, error.model = self.name, model
            raise
        except Exception as error:
            raised, cause = self._translate(client, error, model, timeout)
        # Outside the handler, so that the SDK's exception, which may quote anything, is not the context of ours.
        raise raised from cause

    async def stream(self, request: LLMRequest, model: str, *, timeout: float) -> AsyncIterator[Delta]:
        """Send one request, without retries, and yield the response as it arrives. `timeout` is the longest wait for
        the next part, in seconds; the consumer's own time does not count. Closing the iterator closes the connection.

        Raises as `complete`. An error after the first part has no `status_code`: what arrived may have been charged.
        """
        client = self._client or await self._open()
        has_begun = False
        try:
            async with aclosing(client.stream(request, model, timeout=timeout)) as deltas:
                async for delta in deltas:
                    has_begun = True
                    yield delta
            return
        except ProviderError as error:
            error.provider, error.model = self.name, model
            raise
        except Exception as error:
            raised, cause = self._translate(client, error, model, timeout)
        if has_begun and isinstance(raised, ProviderError):
            raised.status_code = None
        raise raised from cause

    async def list_models(self) -> list[str] | None:
        """Return the names of the models that the provider's API lists, sorted; None if it lists none.

        Raises as `complete`.
        """
        client = self._client or await self._open()
        try:
            async with asyncio.timeout(_LISTING_TIMEOUT):
                names = await client.list_models()
            return None if names is None else sorted(names)
        except Exception as error:
            raised, cause = self._translate(client, error, "its list of models", _LISTING_TIMEOUT)
        if isinstance(raised, ProviderError):
            raised.model = None
        raise raised from cause

    async def close(self) -> None:
        """Close the connections. Idempotent; a later call opens new ones."""
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    def _translate(
        self, client: ProviderClient, error: BaseException, model: str, timeout: float
    ) -> tuple[LLMBridgeError, SDKError]:
        """Return what to raise for an exception of the SDK, and its cause."""
        from .sdk.exceptions import call_failure

        usage = None
        if isinstance(error, PartialUsageError):
            usage, error = error.usage, error.__cause__ or error
        raised = to_error(
            CallFailure("incomplete") if isinstance(error, IncompleteStreamError) else call_failure(error),
            provider=self.name,
            model=model,
            server=client.host,
            timeout=timeout,
            has_key=client.endpoint.has_key,
        )
        if isinstance(raised, ProviderError):
            raised.usage = usage
        return raised, without_text(error)

    async def _open(self) -> ProviderClient:
        try:
            # The import takes seconds: in a thread, so that the event loop goes on.
            sdk = await asyncio.to_thread(importlib.import_module, ".sdk", __package__)
            await asyncio.to_thread(sdk.load, self.kind)
        except ImportError as error:
            raise ProviderNotFoundError(
                f'{self.name}: needs packages that are not installed: pip install "{PROVIDERS[self.kind].requirement}"'
            ) from error
        if self._client is not None:
            return self._client
        try:
            endpoint = find_endpoint(
                self.name,
                self.kind,
                api_key=self.api_key,
                base_url=self.base_url,
                organization=self.organization,
                http_client=self.http_client,
            )
            client: ProviderClient = sdk.open_client(endpoint)
        except ProviderError as error:
            error.provider = self.name
            raise
        except Exception as error:
            cause = without_text(error)
        else:
            self._client = client
            return client
        raise AuthenticationError(
            f"{self.name}: its SDK finds no credentials that it can use, or does not take one of the options",
            provider=self.name,
        ) from cause
