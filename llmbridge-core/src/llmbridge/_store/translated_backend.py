"""Translation of a backend's exceptions into llmbridge's own errors."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, cast

from .._shared.redaction import redact
from ..errors import LLMBridgeError, StorageError
from ..storage.base import StorageBackend


def translated(backend: StorageBackend) -> StorageBackend:
    """Return the backend, with methods that raise only llmbridge's own errors, without passwords in their texts."""
    return cast("StorageBackend", _Translated(backend))


class _Translated:
    def __init__(self, backend: StorageBackend) -> None:
        self._backend = backend

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._backend, name)
        return self._translate(attribute) if callable(attribute) else attribute

    def _translate(self, method: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def call(*args: Any, **kwargs: Any) -> Any:
            try:
                return await method(*args, **kwargs)
            except LLMBridgeError as error:
                error.args = tuple(redact(arg) if isinstance(arg, str) else arg for arg in error.args)
                raise
            except Exception as error:
                backend = type(self._backend)
                raise StorageError(
                    f"the storage backend {backend.__module__}.{backend.__qualname__} raised {type(error).__name__}, "
                    "which is not an error of llmbridge; please report it to its authors"
                ) from error

        return call
