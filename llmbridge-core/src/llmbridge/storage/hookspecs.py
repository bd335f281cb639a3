"""The hook of a storage plugin and the descriptor that it returns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pluggy

from .base import StorageBackend
from .url import StorageURL

#: Entry-point group of storage plugins; the entry point's name is the URL scheme.
GROUP = "llmbridge.storage"

#: Versions of the contract that this core accepts from a plugin.
API_VERSIONS = frozenset({1})

#: What a plugin may declare, and no more than these.
CAPABILITIES = frozenset({"persistent", "multiprocess", "purge", "reprice", "copy", "erase", "sql", "monitoring"})

hookspec = pluggy.HookspecMarker("llmbridge")
hookimpl = pluggy.HookimplMarker("llmbridge")


@dataclass(frozen=True, slots=True)
class StoragePlugin:
    """What a storage plugin says of itself.

    `name` is for people. `schemes` are the URL schemes that it answers for, each with an entry point.
    `api_version` is the literal number that its author built against. `options` are the options of its URLs and
    of `create_backend`, with their types (bool, int, float, str, or any class for an object passed by keyword);
    `schema` and `enable_monitoring` are known to every backend without being named,
    and `schema`, `host`, `port` and `dbname` tell stores apart (`StorageBackend.target`). `create(url, options)` makes
    the backend and opens nothing; options are checked, converted, and only those that the caller set.
    """

    name: str
    schemes: tuple[str, ...]
    api_version: int
    create: Callable[[StorageURL, Mapping[str, Any]], StorageBackend]
    capabilities: frozenset[str] = frozenset()
    options: Mapping[str, type] = field(default_factory=dict)


@hookspec(firstresult=True)
def llmbridge_storage() -> StoragePlugin:
    """Describe the storage backend of this module. Synchronous; opens and imports as little as it can."""
    raise NotImplementedError
