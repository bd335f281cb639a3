"""The public contract for provider plugins: the base class, the hook, the descriptor and the errors to raise."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import (
    AuthenticationError,
    ContentFilterError,
    ContextLengthError,
    InvalidRequestError,
    InvalidResponseError,
    ModelNotFoundError,
    ProviderError,
    ProviderNotFoundError,
    ProviderTimeoutError,
    ProviderUnavailableError,
    RateLimitError,
)
from .base import BaseLLMProvider, Completion, Delta, ProviderVariables, is_server_address

if TYPE_CHECKING:
    from .hookspecs import API_VERSIONS, GROUP, ProviderPlugin, hookimpl

__all__ = [
    "API_VERSIONS",
    "GROUP",
    "AuthenticationError",
    "BaseLLMProvider",
    "Completion",
    "ContentFilterError",
    "ContextLengthError",
    "Delta",
    "InvalidRequestError",
    "InvalidResponseError",
    "ModelNotFoundError",
    "ProviderError",
    "ProviderNotFoundError",
    "ProviderPlugin",
    "ProviderTimeoutError",
    "ProviderUnavailableError",
    "ProviderVariables",
    "RateLimitError",
    "hookimpl",
    "is_server_address",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import hookspecs  # imports pluggy, which a program that only calls models does not need

    return getattr(hookspecs, name)
