"""The only package that imports pydantic-ai and the SDKs below it. It is imported by the first call of a provider."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from ..endpoint import Endpoint
from ..table import PROVIDERS
from .client import ProviderClient
from .log_filter import install_log_filter

__all__ = ["ProviderClient", "load", "open_client"]


def load(kind: str) -> ModuleType:
    """Import the module of the protocol that a provider speaks, and the provider's SDK.

    :raises ImportError: the SDK is not installed
    """
    install_log_filter()
    protocol = PROVIDERS[kind].protocol
    module = import_module(f".{protocol}", __package__)
    if protocol == "generic":
        module.load(kind)
    return module


def open_client(endpoint: Endpoint) -> ProviderClient:
    """Return a client for an endpoint. It connects with its first request.

    :raises ProviderError: an option is invalid, or something is missing
    """
    client: ProviderClient = load(endpoint.kind).open_client(endpoint)
    return client
