"""The storage plugin of llmbridge for SQLite: `sqlite://`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from llmbridge.storage import StoragePlugin, StorageURL, hookimpl

if TYPE_CHECKING:
    from .backend import SQLiteBackend

__all__ = ["SQLiteBackend", "llmbridge_storage"]


def __getattr__(name: str) -> Any:
    if name == "SQLiteBackend":
        from .backend import SQLiteBackend

        return SQLiteBackend
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _create(url: StorageURL, options: Mapping[str, Any]) -> SQLiteBackend:
    from .backend import SQLiteBackend

    ours = {name: value for name, value in options.items() if name == "synchronous"}
    return SQLiteBackend(url.path or ":memory:", **ours)


@hookimpl
def llmbridge_storage() -> StoragePlugin:
    """Return the description of this plugin."""
    return StoragePlugin(
        name="sqlite",
        schemes=("sqlite",),
        api_version=1,
        create=_create,
        capabilities=frozenset({"persistent", "multiprocess", "purge", "reprice", "copy", "erase", "compact", "sql"}),
        options={"synchronous": str},
    )
