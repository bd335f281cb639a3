"""The hook of a provider plugin and the descriptor that it returns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pluggy

from .base import BaseLLMProvider

#: Entry-point group of provider plugins; the entry point's name is the prefix of the model string.
GROUP = "llmbridge.providers"

#: Versions of the contract that this core accepts from a plugin.
API_VERSIONS = frozenset({1})

hookspec = pluggy.HookspecMarker("llmbridge")
hookimpl = pluggy.HookimplMarker("llmbridge")


@dataclass(frozen=True, slots=True)
class ProviderPlugin:
    """What a provider plugin says of itself.

    `prefixes` are those of the model strings that it answers for, each with an entry point. `api_version` is
    the literal number that its author built against. `options` are the keyword options of its providers, with
    their types. `create(prefix, options)` makes a provider and connects to nothing.
    """

    name: str
    prefixes: tuple[str, ...]
    api_version: int
    create: Callable[[str, Mapping[str, Any]], BaseLLMProvider]
    options: Mapping[str, type] = field(default_factory=dict)


@hookspec(firstresult=True)
def llmbridge_provider() -> ProviderPlugin:
    """Describe the vendors of this module. Synchronous; imports no vendor library."""
    raise NotImplementedError
