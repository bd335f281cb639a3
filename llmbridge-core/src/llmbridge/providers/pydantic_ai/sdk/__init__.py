"""The one package that touches pydantic-ai and the SDKs below it. Imported when a vendor is first called."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from ..endpoint import Access
from .client import Server
from .log_filter import keep_requests_out

#: The module of each vendor that has one of its own.
_MODULES = {
    "openai": "chat_completions",
    "ollama": "chat_completions",
    "anthropic": "anthropic",
    "google": "google",
}

__all__ = ["Server", "load", "open_server"]


def load(kind: str) -> ModuleType:
    """Import what a vendor takes.

    :raises ImportError: its SDK is not installed
    """
    keep_requests_out()
    module = import_module(f".{_MODULES.get(kind, 'generic')}", __package__)
    if kind not in _MODULES:
        module.load(kind)
    return module


def open_server(access: Access) -> Server:
    """The vendor's server. Connects to nothing.

    :raises ProviderError: an option is wrong, or something is missing
    """
    server: Server = load(access.kind).open_server(access)
    return server
