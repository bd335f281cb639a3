"""What the vendors of pydantic-ai have in common: when they open, what their errors say, when they close."""

from __future__ import annotations

import asyncio
import importlib
import os
from abc import abstractmethod
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from ...errors import AuthenticationError, InvalidRequestError, LLMBridgeError, ProviderError, ProviderNotFoundError
from ...schemas import LLMRequest
from ..base import BaseLLMProvider, Completion, Delta
from .endpoint import Access
from .error_mapping import BrokenOffError, CountedError, Failure, VendorLibraryError, stand_in, to_error

if TYPE_CHECKING:
    from .sdk import Server

#: Seconds that listing the models of a vendor may take.
_LISTING = 30.0


class VendorProvider(BaseLLMProvider):
    """A vendor that is reached by its own library.

    The environment is read, the vendor's packages are imported and connections are made at the first call. All calls
    share one pool of connections, which belongs to the event loop of the first. Redirects are not followed, and a
    server whose `base_url` is passed gets nothing from the environment. `http_client`, an `httpx2.AsyncClient` of the
    caller's own, is used as it is and not closed.
    """

    #: The vendor whose protocol is spoken, and what to install where its packages are missing.
    kind: str
    requirement: str

    def __init__(
        self, api_key: str | None = None, base_url: str | None = None, *, http_client: object | None = None
    ) -> None:
        super().__init__(api_key, base_url)
        self.http_client = http_client
        self._server: Server | None = None

    @abstractmethod
    def _access(self) -> Access:
        """Where to and with what, from the options and the environment.

        :raises ProviderError: there is no key, or the address is none
        """

    async def prepare(self) -> None:
        """Read the environment and import the vendor's packages, which takes seconds the first time.

        :raises ProviderError: there is no key, or the address is none
        :raises ProviderNotFoundError: the vendor's packages are not installed
        """
        if self._server is None:
            await self._open()

    async def complete(self, request: LLMRequest, model: str, *, timeout: float) -> Completion:
        """Send one request, once: no retry. `model` is the name without prefix, `timeout` is in seconds.

        :raises ProviderError: the vendor refused or failed; the text is ours and repeats nothing that was sent or said
        :raises ModelNotFoundError: the vendor does not have the model
        :raises ProviderNotFoundError: the vendor's packages are not installed
        """
        server = self._server or await self._open()
        try:
            return await server.complete(request, model, timeout=timeout)
        except ProviderError as error:
            error.provider, error.model = self.name, model
            raise
        except Exception as error:
            failed, cause = self._failed(server, error, model, timeout)
        # Out of the handler, so that the library's exception, which may quote anything, is not the context of ours.
        raise failed from cause

    async def stream(self, request: LLMRequest, model: str, *, timeout: float) -> AsyncIterator[Delta]:
        """Send one request, once, and yield the answer as it comes. `timeout` is the longest wait for the next piece,
        in seconds; the time that the consumer takes does not count. Closing the iterator closes the connection.

        Raises as `complete`. An error after the first step has no `status_code`: what came may have been charged.
        """
        server = self._server or await self._open()
        begun = False
        try:
            async with aclosing(server.stream(request, model, timeout=timeout)) as deltas:
                async for delta in deltas:
                    begun = True
                    yield delta
            return
        except ProviderError as error:
            error.provider, error.model = self.name, model
            raise
        except Exception as error:
            failed, cause = self._failed(server, error, model, timeout)
        if begun and isinstance(failed, ProviderError):
            failed.status_code = None
        raise failed from cause

    async def list_models(self) -> list[str] | None:
        """The names of the models that the vendor's API lists, sorted; None for a vendor that lists none.

        Raises as `complete`.
        """
        server = self._server or await self._open()
        try:
            async with asyncio.timeout(_LISTING):
                names = await server.list_models()
            return None if names is None else sorted(names)
        except Exception as error:
            failed, cause = self._failed(server, error, "its list of models", _LISTING)
        if isinstance(failed, ProviderError):
            failed.model = None
        raise failed from cause

    async def close(self) -> None:
        """Close the connections. Idempotent; a later call opens new ones."""
        server, self._server = self._server, None
        if server is not None:
            await server.close()

    def _failed(
        self, server: Server, error: BaseException, model: str, timeout: float
    ) -> tuple[LLMBridgeError, VendorLibraryError]:
        """What to raise for an exception of the library, and from what."""
        from .sdk.exceptions import failure

        usage = None
        if isinstance(error, CountedError):
            usage, error = error.usage, error.__cause__ or error
        failed = to_error(
            Failure("broken_off") if isinstance(error, BrokenOffError) else failure(error),
            provider=self.name,
            model=model,
            server=server.address,
            timeout=timeout,
            has_key=server.access.has_key,
        )
        if isinstance(failed, ProviderError):
            failed.usage = usage
        return failed, stand_in(error)

    async def _open(self) -> Server:
        try:
            # The import takes seconds, in which the event loop has other things to do.
            library = await asyncio.to_thread(importlib.import_module, ".sdk", __package__)
            await asyncio.to_thread(library.load, self.kind)
        except ImportError as error:
            raise ProviderNotFoundError(
                f'{self.name}: needs packages that are not installed: pip install "{self.requirement}"'
            ) from error
        if self._server is not None:
            return self._server
        try:
            server: Server = library.open_server(self._access())
        except ProviderError as error:
            error.provider = self.name
            raise
        except Exception as error:
            cause = stand_in(error)
        else:
            self._server = server
            return server
        raise AuthenticationError(
            f"{self.name}: its library finds no credentials that it can use, or takes none of the options",
            provider=self.name,
        ) from cause


def address(vendor: str, passed: str | None, variable: str) -> str | None:
    """The address of the vendor's server: the one passed, else the environment's; None is the vendor's own.

    :raises InvalidRequestError: it is none
    """
    url = (passed or os.environ.get(variable) or "").strip().rstrip("/")
    if url and not _is_address(url):
        raise InvalidRequestError(f"{vendor}: base_url must be like http://localhost:8000/v1", provider=vendor)
    return url or None


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def key(vendor: str, passed: str | None, *variables: str) -> str | None:
    """The key that was passed, else the first that the environment has under one of these names.

    :raises AuthenticationError: no key looks like that
    """
    found = next(
        (text for text in (passed, *map(os.environ.get, variables)) if text is not None and text.strip()), ""
    ).strip()
    if not (found.isascii() and (found.isprintable() or not found)):
        named = " or ".join((*variables, "api_key="))
        raise AuthenticationError(f"{vendor}: {named} has characters that no key has", provider=vendor)
    return found or None
