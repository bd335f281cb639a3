"""Import path of llmbridge-py: `create_backend`, `DatabaseBackend`, `SQLiteBackend`, `PostgreSQLBackend`."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from .errors import UnknownStorageError
from .plugins import create_backend
from .storage.base import StorageBackend as DatabaseBackend

__all__ = ["DatabaseBackend", "create_backend"]

_MODULES = {
    "PostgreSQLBackend": ("llmbridge_postgres", "llmbridge-postgres"),
    "SQLiteBackend": ("llmbridge_sqlite", "llmbridge-sqlite"),
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, distribution = _MODULES[name]
    try:
        return getattr(import_module(module), name)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        raise UnknownStorageError(f"{name} is not installed; run: pip install {distribution}") from None
