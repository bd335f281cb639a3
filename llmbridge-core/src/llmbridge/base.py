"""The base class of providers, where llmbridge-py had it."""

from __future__ import annotations

from .providers.base import BaseLLMProvider

__all__ = ["BaseLLMProvider"]
