"""Import path of llmbridge-py: `BaseLLMProvider`."""

from __future__ import annotations

from .providers.base import BaseLLMProvider

__all__ = ["BaseLLMProvider"]
