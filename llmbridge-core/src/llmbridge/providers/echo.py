"""`echo:`, the offline provider, which returns the text of the request. It needs no network and no key."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ..schemas import LLMRequest, Message, TokenUsage
from .base import BaseLLMProvider, Completion
from .hookspecs import ProviderPlugin, hookimpl


class EchoProvider(BaseLLMProvider):
    """A provider that answers `echo: <text>` with the text of the last user message, or `{"echo": "<text>"}` if the
    request asks for JSON.

    It accepts any model name. Usage is synthetic: a token is a word between white space, so `prompt_tokens` are the
    words of all messages and `completion_tokens` those of the response.
    """

    name = "echo"

    async def complete(self, request: LLMRequest, model: str, *, timeout: float) -> Completion:
        asked = next((_text(message) for message in reversed(request.messages) if message.role == "user"), "")
        answer = json.dumps({"echo": asked}, ensure_ascii=False) if request.wants_json else f"echo: {asked}"
        return Completion(
            content=answer,
            model=model,
            finish_reason="stop",
            usage=TokenUsage(
                prompt_tokens=sum(len(_text(message).split()) for message in request.messages),
                completion_tokens=len(answer.split()),
                source="synthetic",
            ),
        )


def _text(message: Message) -> str:
    if isinstance(message.content, str):
        return message.content
    parts = message.content if isinstance(message.content, list) else []
    return " ".join(part["text"] for part in parts if isinstance(part, dict) and isinstance(part.get("text"), str))


def _create(prefix: str, options: Mapping[str, Any]) -> BaseLLMProvider:
    return EchoProvider(**options)


@hookimpl
def llmbridge_provider() -> ProviderPlugin:
    """Describe `echo:`."""
    return ProviderPlugin(name="echo", prefixes=("echo",), api_version=1, create=_create)
