"""What the author of a provider needs: the contract, the hook, the descriptor and the errors to raise."""

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
from .base import BaseLLMProvider, Completion, Delta

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
    "RateLimitError",
    "hookimpl",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import hookspecs  # brings pluggy, which callers of models do not need

    return getattr(hookspecs, name)
