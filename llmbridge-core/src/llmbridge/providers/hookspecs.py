"""The hook of a provider plugin, and the descriptor that the hook returns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pluggy

from .base import BaseLLMProvider, ProviderVariables

#: Entry-point group of provider plugins; the entry point's name is the prefix of the model string.
GROUP = "llmbridge.providers"

#: Versions of the contract that this core accepts from a plugin.
API_VERSIONS = frozenset({1})

hookspec = pluggy.HookspecMarker("llmbridge")
hookimpl = pluggy.HookimplMarker("llmbridge")


@dataclass(frozen=True, slots=True)
class ProviderPlugin:
    """The description of a provider plugin.

    `prefixes` are the prefixes of model strings that it serves, each with an entry point. `api_version` is the literal
    number that its author built against. `options` are the keyword options of its providers, with their types.
    `variables` are the environment variables that a provider reads, by its prefix; the command line takes only these
    from a `.env` file. `create(prefix, options)` makes a provider and connects to nothing.
    """

    name: str
    prefixes: tuple[str, ...]
    api_version: int
    create: Callable[[str, Mapping[str, Any]], BaseLLMProvider]
    options: Mapping[str, type] = field(default_factory=dict)
    variables: Mapping[str, ProviderVariables] = field(default_factory=dict)


@hookspec(firstresult=True)
def llmbridge_provider() -> ProviderPlugin:
    """Describe the providers of this module. Synchronous; must not import an SDK."""
    raise NotImplementedError
