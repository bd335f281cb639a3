"""Finds the provider and the model name for a model string such as `openai:gpt-4o` or `gpt-4o`."""

from __future__ import annotations

import re
from collections.abc import Collection

from .._shared.spelling import hint
from ..errors import ModelNotFoundError, ProviderNotFoundError
from .pydantic_ai.table import PROVIDERS

#: Providers with an extra of their own: `pip install "llmbridge-core[NAME]"`.
EXTRAS = tuple(name for name, row in PROVIDERS.items() if row.requirement == f"llmbridge-core[{name}]")

#: Providers of model names without a prefix. The first match counts.
_FAMILIES = tuple((name, re.compile(row.families)) for name, row in PROVIDERS.items() if row.families is not None)

_OLLAMA_FAMILY = re.compile(
    r"(code)?llama[\d.]*|tinyllama|qwen[\d.]*|qwq|gemma[\d.]*|codegemma|phi[\d.]*|mistral|mixtral|codestral"
    r"|deepseek-(r1|v\d[\d.]*|coder(-v2)?)|llava|gpt-oss|smollm\d*|granite[\d.]*|command-r[\w-]*|starcoder\d*"
)

#: The tags of Ollama, behind the colon: `latest`, `7b`, `8x7b-instruct-q4_0`, `135m`, `e4b`, `120b-cloud`.
_OLLAMA_TAG = re.compile(r"latest|(\d+x|e)?\d+(\.\d+)?[bm](-[\w.-]+)?")


def resolve(model: str | None, known: Collection[str]) -> tuple[str, str]:
    """Return the provider of `model`, and the name by which this provider knows the model.

    `known` are the providers that are registered or installed. The text before the first colon is a provider only if it
    is one of them; names of Ollama have colons too (`llama3.2:latest`). A name without prefix finds its provider by its
    family. `echo` is found only by its prefix.

    :raises ModelNotFoundError: there is no name, or no provider can be found for it
    :raises ProviderNotFoundError: the provider is neither registered nor installed
    """
    text = (model or "").strip()
    if not text:
        raise ModelNotFoundError("no model was given; write provider:name, for example openai:gpt-4o-mini")
    prefix, colon, name = text.partition(":")
    if colon and not _is_ollamas_mistral(text, known) and (provider := known_as(prefix, known)) is not None:
        if not name.strip():
            raise ModelNotFoundError(f"{text!r} names a provider but no model; write {provider}:name")
        return provider, name.strip()
    if (provider := _provider_of(text)) is not None:
        if provider not in known:
            raise _not_installed(provider, text)
        return provider, text.removeprefix("models/") if provider == "google" else text
    if colon:
        raise _unknown_prefix(prefix, text, known)
    raise ModelNotFoundError(
        f"the provider of the model {text!r} is unknown; write provider:name, with one of: {_listed(known)}"
    )


def _is_ollamas_mistral(name: str, known: Collection[str]) -> bool:
    """Return whether `name` is Ollama's `mistral:TAG`: no model of the provider mistral is named like a tag (`7b`)."""
    family, _, tag = name.partition(":")
    return family == "mistral" and "ollama" in known and _OLLAMA_TAG.fullmatch(tag) is not None


def known_as(prefix: str, known: Collection[str]) -> str | None:
    """Return the provider of a prefix, as it is written or in lower case; None if neither is known."""
    return next((spelling for spelling in (prefix, prefix.lower()) if spelling in known), None)


def _provider_of(name: str) -> str | None:
    if _is_from_ollama(name):
        return "ollama"
    return next((provider for provider, pattern in _FAMILIES if pattern.match(name)), None)


def _is_from_ollama(name: str) -> bool:
    family, colon, tag = name.partition(":")
    if family.startswith("hf.co/"):
        return True
    if not colon:
        return _OLLAMA_FAMILY.fullmatch(family) is not None
    if _OLLAMA_TAG.fullmatch(tag):
        return True
    return family != "mistral" and _OLLAMA_FAMILY.fullmatch(family) is not None


def _not_installed(provider: str, model: str) -> ProviderNotFoundError:
    return ProviderNotFoundError(
        f'the model {model!r} is served by {provider}, which is not installed: pip install "llmbridge-core[{provider}]"'
    )


def _unknown_prefix(prefix: str, model: str, known: Collection[str]) -> ProviderNotFoundError:
    if prefix.lower() in EXTRAS:
        return _not_installed(prefix.lower(), model)
    close = hint(prefix, sorted({*known, *EXTRAS}))
    return ProviderNotFoundError(
        f"unknown provider {prefix!r} in the model {model!r}; installed: {_listed(known)}{close}"
    )


def _listed(known: Collection[str]) -> str:
    return ", ".join(sorted(known)) or "none"
