"""From a model string to the vendor that serves it."""

from __future__ import annotations

import re
from collections.abc import Collection
from difflib import get_close_matches

from ..errors import ModelNotFoundError, ProviderNotFoundError

#: Vendors with an extra of their own: `pip install "llmbridge-core[NAME]"`.
EXTRAS = ("openai", "anthropic", "google", "ollama")

#: Whose model a bare name is. The first match decides.
_NAMES = (
    ("openai", re.compile(r"(ft:)?(gpt-|chatgpt-|codex-|o\d+($|-)|text-embedding-|davinci-|babbage-)")),
    ("anthropic", re.compile(r"claude-")),
    ("google", re.compile(r"(models/)?gemini-")),
)

_OLLAMA_FAMILY = re.compile(
    r"(code)?llama[\d.]*|tinyllama|qwen[\d.]*|qwq|gemma[\d.]*|codegemma|phi[\d.]*|mistral|mixtral|codestral"
    r"|deepseek-(r1|v\d[\d.]*|coder(-v2)?)|llava|gpt-oss|smollm\d*|granite[\d.]*|command-r[\w-]*|starcoder\d*"
)

#: What ollama writes behind the colon: `latest`, `7b`, `8x7b-instruct-q4_0`, `135m`, `e4b`, `120b-cloud`.
_OLLAMA_TAG = re.compile(r"latest|(\d+x|e)?\d+(\.\d+)?[bm](-[\w.-]+)?")


def resolve(model: str | None, known: Collection[str]) -> tuple[str, str]:
    """The vendor of `model` and the name that this vendor knows the model by.

    What stands before the first colon is a vendor only if `known`, the vendors that are registered or installed,
    has it; names from ollama have colons too (`llama3.2:latest`). A bare name finds its vendor by its family.
    `echo` is found by its prefix alone.

    :raises ModelNotFoundError: there is no name, or nothing tells the vendor
    :raises ProviderNotFoundError: the vendor is neither registered nor installed
    """
    text = (model or "").strip()
    if not text:
        raise ModelNotFoundError("no model was given; write vendor:name, for example openai:gpt-4o-mini")
    prefix, colon, name = text.partition(":")
    if colon and not _is_ollamas_mistral(text, known) and (vendor := known_as(prefix, known)) is not None:
        if not name.strip():
            raise ModelNotFoundError(f"{text!r} names a vendor but no model; write {vendor}:name")
        return vendor, name.strip()
    if (vendor := _vendor_of(text)) is not None:
        if vendor not in known:
            raise _not_installed(vendor, text)
        return vendor, text.removeprefix("models/") if vendor == "google" else text
    if colon:
        raise _unknown_prefix(prefix, text, known)
    raise ModelNotFoundError(
        f"nothing tells which vendor serves the model {text!r}; write vendor:name, with one of: {_listed(known)}"
    )


def _is_ollamas_mistral(name: str, known: Collection[str]) -> bool:
    """A vendor is called mistral as well; none of its models is called like a tag of Ollama's, such as `7b`."""
    family, _, tag = name.partition(":")
    return family == "mistral" and "ollama" in known and _OLLAMA_TAG.fullmatch(tag) is not None


def known_as(prefix: str, known: Collection[str]) -> str | None:
    """The vendor that a prefix names, as it is spelt or in small letters; None where neither is known."""
    return next((spelling for spelling in (prefix, prefix.lower()) if spelling in known), None)


def _vendor_of(name: str) -> str | None:
    if _is_from_ollama(name):
        return "ollama"
    return next((vendor for vendor, pattern in _NAMES if pattern.match(name)), None)


def _is_from_ollama(name: str) -> bool:
    family, colon, tag = name.partition(":")
    if family.startswith("hf.co/"):
        return True
    if not colon:
        return _OLLAMA_FAMILY.fullmatch(family) is not None
    if _OLLAMA_TAG.fullmatch(tag):
        return True
    return family != "mistral" and _OLLAMA_FAMILY.fullmatch(family) is not None


def _not_installed(vendor: str, model: str) -> ProviderNotFoundError:
    return ProviderNotFoundError(
        f'the model {model!r} is served by {vendor}, which is not installed: pip install "llmbridge-core[{vendor}]"'
    )


def _unknown_prefix(prefix: str, model: str, known: Collection[str]) -> ProviderNotFoundError:
    if prefix.lower() in EXTRAS:
        return _not_installed(prefix.lower(), model)
    close = get_close_matches(prefix.lower(), sorted({*known, *EXTRAS}), n=1, cutoff=0.7)
    hint = f" Did you mean {close[0]}?" if close else ""
    return ProviderNotFoundError(
        f"no vendor is called {prefix!r}, asked for by the model {model!r}.{hint} Installed: {_listed(known)}"
    )


def _listed(known: Collection[str]) -> str:
    return ", ".join(sorted(known)) or "none"
