"""The table of the providers that are called through pydantic-ai: one row for each prefix of a model string."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..base import ProviderVariables

#: The modules of `sdk` that speak a protocol with usage as the provider reported it; `generic` takes the provider as
#: pydantic-ai knows it.
Protocol = Literal["chat_completions", "anthropic", "google", "generic"]


@dataclass(frozen=True, slots=True)
class Row:
    """How one provider is called.

    `requirement` is what to install for its SDK. `variables` are the environment variables that it reads. `address` is
    the base URL where none is given (None: the SDK has one). `needs_address` is True for a gateway that every user
    runs: its SDK would send the request to another provider. `price_list` is the id of its list in genai-prices (None:
    the name of the provider). `families` is a regular expression of the names of its models that need no prefix
    (None: every model needs one).
    """

    requirement: str
    variables: ProviderVariables
    protocol: Protocol = "generic"
    address: str | None = None
    needs_address: bool = False
    price_list: str | None = None
    families: str | None = None


def _generic(
    extra: str,
    *keys: str,
    addresses: tuple[str, ...] = (),
    headers: tuple[str, ...] = (),
    others: tuple[str, ...] = (),
    finds_stored_keys: bool = False,
    needs_address: bool = False,
    price_list: str | None = None,
) -> Row:
    """Return the row of a provider that pydantic-ai knows by its prefix; `extra` is the one of pydantic-ai-slim."""
    return Row(
        f"pydantic-ai-slim[{extra}]",
        ProviderVariables(keys, addresses, headers, others, finds_stored_keys),
        needs_address=needs_address,
        price_list=price_list,
    )


PROVIDERS: dict[str, Row] = {
    "openai": Row(
        "llmbridge-core[openai]",
        ProviderVariables(
            keys=("OPENAI_API_KEY",),
            addresses=("OPENAI_BASE_URL",),
            headers=("OPENAI_CUSTOM_HEADERS",),
            others=("OPENAI_ORG_ID", "OPENAI_PROJECT_ID"),
        ),
        protocol="chat_completions",
        families=r"(ft:)?(gpt-|chatgpt-|codex-|o\d+($|-)|text-embedding-|davinci-|babbage-)",
    ),
    "anthropic": Row(
        "llmbridge-core[anthropic]",
        ProviderVariables(
            keys=("ANTHROPIC_API_KEY",),
            addresses=("ANTHROPIC_BASE_URL",),
            headers=("ANTHROPIC_CUSTOM_HEADERS",),
        ),
        protocol="anthropic",
        families=r"claude-",
    ),
    "google": Row(
        "llmbridge-core[google]",
        ProviderVariables(
            keys=("GOOGLE_API_KEY", "GEMINI_API_KEY"),
            addresses=("GOOGLE_GEMINI_BASE_URL",),
        ),
        protocol="google",
        families=r"(models/)?gemini-",
    ),
    "ollama": Row(
        "llmbridge-core[ollama]",
        ProviderVariables(keys=("OLLAMA_API_KEY",), addresses=("OLLAMA_BASE_URL",)),
        protocol="chat_completions",
        address="http://localhost:11434",
    ),
    "alibaba": _generic("openai", "ALIBABA_API_KEY", "DASHSCOPE_API_KEY"),
    "azure": _generic(
        "openai",
        "AZURE_OPENAI_API_KEY",
        "AZURE_VOICELIVE_API_KEY",
        addresses=("AZURE_OPENAI_ENDPOINT", "AZURE_VOICELIVE_ENDPOINT"),
        others=("OPENAI_API_VERSION", "AZURE_VOICELIVE_API_VERSION"),
    ),
    "bedrock": _generic(
        "bedrock",
        "AWS_BEARER_TOKEN_BEDROCK",
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        addresses=("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_BEDROCK_RUNTIME"),
        others=("AWS_DEFAULT_REGION", "AWS_REGION"),
        finds_stored_keys=True,
        price_list="aws",
    ),
    "cerebras": _generic("openai", "CEREBRAS_API_KEY"),
    "cohere": _generic("cohere", "CO_API_KEY", addresses=("CO_BASE_URL", "CO_API_URL")),
    "crusoe": _generic("openai", "CRUSOE_API_KEY"),
    "deepseek": _generic("openai", "DEEPSEEK_API_KEY"),
    "fireworks": _generic("openai", "FIREWORKS_API_KEY"),
    "google-cloud": _generic(
        "google",
        "GOOGLE_API_KEY",
        "GEMINI_API_KEY",
        "GOOGLE_APPLICATION_CREDENTIALS",
        addresses=("GOOGLE_VERTEX_BASE_URL",),
        others=("GOOGLE_CLOUD_PROJECT", "GOOGLE_CLOUD_LOCATION"),
        finds_stored_keys=True,
        price_list="google",
    ),
    "groq": _generic("groq", "GROQ_API_KEY", addresses=("GROQ_BASE_URL",), headers=("GROQ_CUSTOM_HEADERS",)),
    "heroku": _generic("openai", "HEROKU_INFERENCE_KEY", addresses=("HEROKU_INFERENCE_URL",)),
    "huggingface": _generic("huggingface", "HF_TOKEN", addresses=("HF_INFERENCE_ENDPOINT", "HF_ENDPOINT")),
    "litellm": _generic("openai", needs_address=True),
    "mistral": _generic("mistral", "MISTRAL_API_KEY"),
    "moonshotai": _generic("openai", "MOONSHOTAI_API_KEY", addresses=("MOONSHOTAI_BASE_URL",)),
    "nebius": _generic("openai", "NEBIUS_API_KEY"),
    "openrouter": _generic("openrouter", "OPENROUTER_API_KEY", others=("OPENROUTER_APP_URL", "OPENROUTER_APP_TITLE")),
    "ovhcloud": _generic("openai", "OVHCLOUD_API_KEY"),
    "sambanova": _generic("openai", "SAMBANOVA_API_KEY", addresses=("SAMBANOVA_BASE_URL",)),
    "snowflake": _generic("snowflake", "SNOWFLAKE_TOKEN", others=("SNOWFLAKE_ACCOUNT",)),
    "together": _generic("openai", "TOGETHER_API_KEY"),
    "vercel": _generic("openai", "VERCEL_AI_GATEWAY_API_KEY", "VERCEL_OIDC_TOKEN"),
    "vllm": _generic("openai", "VLLM_API_KEY", addresses=("VLLM_BASE_URL",)),
    "xai": _generic("xai", "XAI_API_KEY", price_list="x-ai"),
    "zai": _generic("zai", "ZAI_API_KEY"),
}
