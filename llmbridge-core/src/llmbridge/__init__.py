"""Calls any LLM and keeps the books: every call, with its exact cost, in the database that you already run."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .db import LLMDatabase as LLMDatabase
    from .errors import LLMBridgeError as LLMBridgeError
    from .providers.base import BaseLLMProvider as BaseLLMProvider
    from .schemas import CallRecord as CallRecord
    from .schemas import LLMModel as LLMModel
    from .schemas import LLMRequest as LLMRequest
    from .schemas import LLMResponse as LLMResponse
    from .schemas import Message as Message
    from .schemas import UsageStats as UsageStats
    from .service import LLMBridge as LLMBridge
    from .storage.types import ModelPrice as ModelPrice

_HOMES = {
    "BaseLLMProvider": "providers.base",
    "CallRecord": "schemas",
    "LLMBridge": "service",
    "LLMBridgeError": "errors",
    "LLMDatabase": "db",
    "LLMModel": "schemas",
    "LLMRequest": "schemas",
    "LLMResponse": "schemas",
    "Message": "schemas",
    "ModelPrice": "storage.types",
    "UsageStats": "schemas",
}

__all__ = [
    "BaseLLMProvider",
    "CallRecord",
    "LLMBridge",
    "LLMBridgeError",
    "LLMDatabase",
    "LLMModel",
    "LLMRequest",
    "LLMResponse",
    "Message",
    "ModelPrice",
    "UsageStats",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("llmbridge-core")
    if name not in _HOMES:
        raise AttributeError(f"module 'llmbridge' has no attribute {name!r}")
    found = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
