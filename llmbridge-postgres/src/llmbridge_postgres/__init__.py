"""The storage plugin of llmbridge for PostgreSQL: `postgresql://` and `postgres://`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from llmbridge.storage import StoragePlugin, StorageURL, hookimpl

from .options import OPTIONS, SCHEMES

if TYPE_CHECKING:
    from .backend import PostgreSQLBackend

__all__ = ["PostgreSQLBackend", "llmbridge_storage"]


def __getattr__(name: str) -> Any:
    if name == "PostgreSQLBackend":
        from .backend import PostgreSQLBackend

        return PostgreSQLBackend
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _create(url: StorageURL, options: Mapping[str, Any]) -> PostgreSQLBackend:
    from .backend import PostgreSQLBackend

    return PostgreSQLBackend(None if "db_manager" in options else url, **options)


@hookimpl
def llmbridge_storage() -> StoragePlugin:
    """Return the description of this plugin."""
    return StoragePlugin(
        name="postgresql",
        schemes=SCHEMES,
        api_version=1,
        create=_create,
        capabilities=frozenset(
            {"persistent", "multiprocess", "purge", "reprice", "copy", "erase", "sql", "monitoring"}
        ),
        options=OPTIONS,
    )
