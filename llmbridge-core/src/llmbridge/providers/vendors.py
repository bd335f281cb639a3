"""`openai:`, and every server that speaks OpenAI's chat completions."""

from __future__ import annotations

import asyncio
import importlib
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ..errors import AuthenticationError, InvalidRequestError, ProviderError, ProviderNotFoundError
from ..schemas import LLMRequest
from ._failures import stand_in, to_error
from .base import BaseLLMProvider, Completion
from .hookspecs import ProviderPlugin, hookimpl

if TYPE_CHECKING:
    from ._pydantic_ai import ChatCompletions

#: Sent where a server of one's own asks for no key.
_NO_KEY = "no-key"


class OpenAIProvider(BaseLLMProvider):
    """Chat completions of OpenAI, or of the compatible server at `base_url`.

    `base_url` None means `OPENAI_BASE_URL`, else OpenAI's own address; `api_key` None then means `OPENAI_API_KEY`, and
    `organization` None `OPENAI_ORG_ID`. A server whose `base_url` is passed gets nothing from the environment. Where
    there is no key, another server than OpenAI's gets a placeholder, since it may ask for none. Redirects are not
    followed.
    The environment is read, the vendor's packages are imported and connections are made at the first call. All calls
    share one pool of connections, which belongs to the event loop of the first. What a model thinks aloud between
    `<think>` tags is not part of the content.
    """

    name = "openai"

    def __init__(
        self, api_key: str | None = None, base_url: str | None = None, *, organization: str | None = None
    ) -> None:
        super().__init__(api_key, base_url)
        self.organization = organization
        self._server: ChatCompletions | None = None

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
            async with asyncio.timeout(timeout):
                return await server.complete(request, model, timeout=timeout)
        except ProviderError as error:
            error.provider, error.model = self.name, model
            raise
        except Exception as error:
            failed = to_error(
                server.failure(error),
                provider=self.name,
                model=model,
                server=server.address,
                timeout=timeout,
                has_key=server.has_key,
            )
            cause = stand_in(error)
        # Out of the handler, so that the library's exception, which may quote anything, is not the context of ours.
        raise failed from cause

    async def close(self) -> None:
        """Close the connections. Idempotent; a later call opens new ones."""
        server, self._server = self._server, None
        if server is not None:
            await server.close()

    async def _open(self) -> ChatCompletions:
        try:
            # The import takes seconds, in which the event loop has other things to do.
            library = await asyncio.to_thread(importlib.import_module, "._pydantic_ai", __package__)
        except ImportError as error:
            raise ProviderNotFoundError(
                f'{self.name}: needs packages that are not installed: pip install "llmbridge-core[openai]"'
            ) from error
        if self._server is None:
            base_url = self._base_url()
            key = self._key(base_url)
            self._server = library.ChatCompletions(
                api_key=key or _NO_KEY,
                has_key=key is not None,
                base_url=base_url,
                organization=self.organization,
                from_environment=not self.base_url,
            )
        return self._server

    def _base_url(self) -> str | None:
        url = (self.base_url or os.environ.get("OPENAI_BASE_URL") or "").strip()
        if not url:
            return None
        if not _is_address(url):
            raise InvalidRequestError(
                f"{self.name}: base_url must be like http://localhost:8000/v1", provider=self.name
            )
        return url

    def _key(self, base_url: str | None) -> str | None:
        # The environment's key belongs to the environment's address.
        usual = None if self.base_url else os.environ.get("OPENAI_API_KEY")
        key = (self.api_key or usual or "").strip()
        if not key and base_url is not None:
            return None
        if not key:
            raise AuthenticationError(f"{self.name}: no key; set OPENAI_API_KEY, or pass api_key=", provider=self.name)
        if not (key.isascii() and key.isprintable()):
            raise AuthenticationError(
                f"{self.name}: OPENAI_API_KEY or api_key= has characters that no key has", provider=self.name
            )
        return key


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _create(prefix: str, options: Mapping[str, Any]) -> BaseLLMProvider:
    return OpenAIProvider(**options)


@hookimpl
def llmbridge_provider() -> ProviderPlugin:
    """`openai:gpt-4o`."""
    return ProviderPlugin(
        name="openai",
        prefixes=("openai",),
        api_version=1,
        create=_create,
        options={"api_key": str, "base_url": str, "organization": str},
    )
