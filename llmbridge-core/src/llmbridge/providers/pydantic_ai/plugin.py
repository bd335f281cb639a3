"""The plugin of the providers that are called through pydantic-ai, and their public classes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...errors import InvalidRequestError
from ..base import BaseLLMProvider
from ..hookspecs import ProviderPlugin, hookimpl
from .provider import PydanticAIProvider
from .table import PROVIDERS


class OpenAIProvider(PydanticAIProvider):
    """Chat completions of OpenAI, or of the compatible server at `base_url`.

    `base_url` None means `OPENAI_BASE_URL`, else OpenAI's own address; `api_key` None then means `OPENAI_API_KEY`, and
    `organization` None `OPENAI_ORG_ID`. Text between `<think>` tags is not part of the content.
    """

    kind = "openai"

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


class AnthropicProvider(PydanticAIProvider):
    """The messages API of Anthropic, or of the compatible server at `base_url`.

    `base_url` None means `ANTHROPIC_BASE_URL`, else Anthropic's own address; `api_key` None then means
    `ANTHROPIC_API_KEY`. Anthropic requires `max_tokens`: a request without them is sent with 16,384, for some older
    models with 4,096.
    """

    kind = "anthropic"


class GoogleProvider(PydanticAIProvider):
    """The Gemini API of Google, or of the compatible server at `base_url`.

    `base_url` None means `GOOGLE_GEMINI_BASE_URL`, else Google's own address; `api_key` None then means
    `GOOGLE_API_KEY`, else `GEMINI_API_KEY`.
    """

    kind = "google"


class OllamaProvider(PydanticAIProvider):
    """A server of Ollama, called by the OpenAI protocol that it speaks under `/v1`.

    `base_url`, with or without `/v1`, None means `OLLAMA_BASE_URL`, else the local port 11434; `api_key` None then
    means `OLLAMA_API_KEY`, which only its cloud requires.
    """

    kind = "ollama"


class GenericProvider(PydanticAIProvider):
    """Another provider of the table, as pydantic-ai calls it.

    If neither a key nor an address is passed, pydantic-ai reads them from the provider's variables.
    """

    def __init__(self, kind: str, **options: Any) -> None:
        self.kind = kind
        super().__init__(**options)


_CLASSES: dict[str, type[PydanticAIProvider]] = {
    provider.kind: provider for provider in (OpenAIProvider, AnthropicProvider, GoogleProvider, OllamaProvider)
}


def _create(prefix: str, options: Mapping[str, Any]) -> BaseLLMProvider:
    if prefix != "openai" and "organization" in options:
        raise InvalidRequestError(f"{prefix} has no option 'organization'", provider=prefix)
    return _CLASSES[prefix](**options) if prefix in _CLASSES else GenericProvider(prefix, **options)


@hookimpl
def llmbridge_provider() -> ProviderPlugin:
    """Describe the providers of the table: `openai:gpt-4o`, `mistral:mistral-large-latest` and so on."""
    return ProviderPlugin(
        name="pydantic-ai",
        prefixes=tuple(PROVIDERS),
        api_version=1,
        create=_create,
        options={"api_key": str, "base_url": str, "organization": str, "http_client": object},
        variables={name: row.variables for name, row in PROVIDERS.items()},
    )
