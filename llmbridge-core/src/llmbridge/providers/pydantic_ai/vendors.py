"""`openai:`, `anthropic:`, `google:` and `ollama:`, and every server that speaks the protocol of one of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from ...errors import AuthenticationError, InvalidRequestError
from ..base import BaseLLMProvider
from ..hookspecs import ProviderPlugin, hookimpl
from . import provider
from .endpoint import Access
from .provider import VendorProvider


class _KeyedProvider(VendorProvider):
    """A vendor that asks for a key. A server at another address may ask for none, and gets a placeholder."""

    #: Where the environment has the key, the first first, and the address.
    key_variables: ClassVar[tuple[str, ...]]
    address_variable: ClassVar[str]

    #: What clients write behind the address themselves.
    version: ClassVar[str] = ""

    def _access(self) -> Access:
        base_url = provider.address(self.name, self.base_url, self.address_variable)
        # The environment's key belongs to the environment's address.
        found = provider.key(self.name, self.api_key, *(() if self.base_url else self.key_variables))
        if found is None and base_url is None:
            named = " or ".join(self.key_variables)
            raise AuthenticationError(f"{self.name}: no key; set {named}, or pass api_key=", provider=self.name)
        return Access(
            self.kind,
            found,
            base_url.removesuffix(self.version) if base_url is not None else None,
            has_key=found is not None,
            from_environment=not self.base_url,
            http_client=self.http_client,
        )


class OpenAIProvider(_KeyedProvider):
    """Chat completions of OpenAI, or of the compatible server at `base_url`.

    `base_url` None means `OPENAI_BASE_URL`, else OpenAI's own address; `api_key` None then means `OPENAI_API_KEY`, and
    `organization` None `OPENAI_ORG_ID`. What a model thinks aloud between `<think>` tags is not part of the content.
    """

    name = kind = "openai"
    requirement = "llmbridge-core[openai]"
    key_variables = ("OPENAI_API_KEY",)
    address_variable = "OPENAI_BASE_URL"

    def __init__(
        self,
        api_key: str | None = None,
        base_url: str | None = None,
        *,
        organization: str | None = None,
        http_client: object | None = None,
    ) -> None:
        super().__init__(api_key, base_url, http_client=http_client)
        self.organization = organization

    def _access(self) -> Access:
        return super()._access().of_organization(self.organization)


class AnthropicProvider(_KeyedProvider):
    """The messages API of Anthropic, or of the compatible server at `base_url`.

    `base_url` None means `ANTHROPIC_BASE_URL`, else Anthropic's own address; `api_key` None then means
    `ANTHROPIC_API_KEY`. Anthropic wants `max_tokens`: a request without them is sent with 16,384, for some older models
    with 4,096.
    """

    name = kind = "anthropic"
    requirement = "llmbridge-core[anthropic]"
    key_variables = ("ANTHROPIC_API_KEY",)
    address_variable = "ANTHROPIC_BASE_URL"
    version = "/v1"


class GoogleProvider(_KeyedProvider):
    """The Gemini API of Google, or of the compatible server at `base_url`.

    `base_url` None means `GOOGLE_GEMINI_BASE_URL`, else Google's own address; `api_key` None then means
    `GOOGLE_API_KEY`, else `GEMINI_API_KEY`.
    """

    name = kind = "google"
    requirement = "llmbridge-core[google]"
    key_variables = ("GOOGLE_API_KEY", "GEMINI_API_KEY")
    address_variable = "GOOGLE_GEMINI_BASE_URL"
    version = "/v1beta"


class OllamaProvider(VendorProvider):
    """A server of Ollama's, by the OpenAI protocol that it speaks under `/v1`.

    `base_url`, with or without `/v1`, None means `OLLAMA_BASE_URL`, else the local port; `api_key` None then means
    `OLLAMA_API_KEY`, which only its cloud asks for.
    """

    name = kind = "ollama"
    requirement = "llmbridge-core[ollama]"

    def _access(self) -> Access:
        base_url = provider.address(self.name, self.base_url, "OLLAMA_BASE_URL") or "http://localhost:11434"
        found = provider.key(self.name, self.api_key, *(() if self.base_url else ("OLLAMA_API_KEY",)))
        return Access(
            self.kind,
            found,
            base_url if base_url.endswith("/v1") else f"{base_url}/v1",
            has_key=found is not None,
            from_environment=False,
            http_client=self.http_client,
        )


_PROVIDERS: dict[str, type[VendorProvider]] = {
    "openai": OpenAIProvider,
    "anthropic": AnthropicProvider,
    "google": GoogleProvider,
    "ollama": OllamaProvider,
}


def _create(prefix: str, options: Mapping[str, Any]) -> BaseLLMProvider:
    if prefix != "openai" and "organization" in options:
        raise InvalidRequestError(f"{prefix} has no option 'organization'", provider=prefix)
    return _PROVIDERS[prefix](**options)


@hookimpl
def llmbridge_provider() -> ProviderPlugin:
    """`openai:gpt-4o`, `anthropic:claude-sonnet-4-5`, `google:gemini-2.5-flash`, `ollama:llama3.2`."""
    return ProviderPlugin(
        name="vendors",
        prefixes=tuple(_PROVIDERS),
        api_version=1,
        create=_create,
        options={"api_key": str, "base_url": str, "organization": str, "http_client": object},
    )
