"""The other vendors that pydantic-ai knows by their prefix: `mistral:`, `groq:`, `bedrock:`, `openrouter:` and more."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...errors import InvalidRequestError
from ..base import BaseLLMProvider
from ..hookspecs import ProviderPlugin, hookimpl
from . import provider
from .endpoint import Access
from .provider import VendorProvider

#: The vendors, each with the extra of pydantic-ai-slim that brings its packages.
EXTRAS = {
    "alibaba": "openai",
    "azure": "openai",
    "bedrock": "bedrock",
    "cerebras": "openai",
    "cohere": "cohere",
    "crusoe": "openai",
    "deepseek": "openai",
    "fireworks": "openai",
    "google-cloud": "google",
    "groq": "groq",
    "heroku": "openai",
    "huggingface": "huggingface",
    "litellm": "openai",
    "mistral": "mistral",
    "moonshotai": "openai",
    "nebius": "openai",
    "openrouter": "openrouter",
    "ovhcloud": "openai",
    "sambanova": "openai",
    "snowflake": "snowflake",
    "together": "openai",
    "vercel": "openai",
    "vllm": "openai",
    "xai": "xai",
    "zai": "zai",
}


#: Gateways that everyone runs himself; their libraries would go to OpenAI with what is meant for the gateway.
WITHOUT_ADDRESS = frozenset({"litellm"})


class OtherProvider(VendorProvider):
    """A vendor as pydantic-ai reaches it: its key and address come from the variables that pydantic-ai reads for it,
    where none is passed."""

    def __init__(self, kind: str, **options: Any) -> None:
        super().__init__(**options)
        self.name = self.kind = kind
        self.requirement = f"pydantic-ai-slim[{EXTRAS[kind]}]"

    def _access(self) -> Access:
        base_url = provider.address(self.name, self.base_url, "")
        if base_url is None and self.kind in WITHOUT_ADDRESS:
            raise InvalidRequestError(f"{self.name}: has no address of its own; pass base_url=", provider=self.name)
        return Access(
            self.kind,
            provider.key(self.name, self.api_key),
            base_url,
            has_key=self.api_key is not None or base_url is None,
            from_environment=base_url is None,
            http_client=self.http_client,
        )


def _create(prefix: str, options: Mapping[str, Any]) -> BaseLLMProvider:
    return OtherProvider(prefix, **options)


@hookimpl
def llmbridge_provider() -> ProviderPlugin:
    """`mistral:mistral-large-latest`, `groq:llama-3.3-70b-versatile`."""
    return ProviderPlugin(
        name="others",
        prefixes=tuple(EXTRAS),
        api_version=1,
        create=_create,
        options={"api_key": str, "base_url": str, "http_client": object},
    )
