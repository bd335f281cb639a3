"""Hook of a storage plugin and the descriptor that it returns."""

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

#: All capabilities that a plugin may declare.
CAPABILITIES = frozenset(
    {"persistent", "multiprocess", "purge", "reprice", "copy", "erase", "compact", "sql", "monitoring"}
)

hookspec = pluggy.HookspecMarker("llmbridge")
hookimpl = pluggy.HookimplMarker("llmbridge")


@dataclass(frozen=True, slots=True)
class StoragePlugin:
    """Descriptor of a storage plugin.

    :param name: for people
    :param schemes: the URL schemes that it serves, each with an entry point
    :param api_version: the version of the contract that the plugin was built against, as a literal number
    :param create: `create(url, options)` returns the backend and opens nothing; `options` has only those that the
        caller set, checked and converted
    :param capabilities: what the backend can do beyond the required methods, some of CAPABILITIES
    :param options: the options of its URLs and of `create_backend`, with their types: bool, int, float, str, or any
        class for an object passed by keyword. Every backend accepts `schema` and `enable_monitoring` without naming
        them. `schema`, `host`, `port` and `dbname` are part of `StorageBackend.target`.
    :param identity: the options that tell stores of one address apart, such as a prefix of all keys. They are part of
        `StorageBackend.target` too, which is shown to people: never name an option that is a secret
    """

    name: str
    schemes: tuple[str, ...]
    api_version: int
    create: Callable[[StorageURL, Mapping[str, Any]], StorageBackend]
    capabilities: frozenset[str] = frozenset()
    options: Mapping[str, type] = field(default_factory=dict)
    identity: tuple[str, ...] = ()


@hookspec(firstresult=True)
def llmbridge_storage() -> StoragePlugin:
    """Return the descriptor of this module's storage backend. Open nothing and import as little as possible."""
    raise NotImplementedError
