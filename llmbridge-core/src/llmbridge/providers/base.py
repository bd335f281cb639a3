"""What a vendor must do to be called."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from ..schemas import LLMRequest, TokenUsage


@dataclass(frozen=True, slots=True)
class Completion:
    """A vendor's answer in the field's common form.

    `tool_calls` are in OpenAI's form. `model` is the name that the vendor reports. `usage` None: not reported.
    `cost` is in dollars, as a vendor or gateway reported it itself (None: it did not).
    """

    content: str
    model: str
    tool_calls: list[dict[str, Any]] | None = None
    finish_reason: str | None = None
    usage: TokenUsage | None = None
    response_id: str | None = None
    cost: Any = None


@dataclass(frozen=True, slots=True)
class Delta:
    """One step of an answer that is still being made.

    `content` is the text that is new since the step before. `usage` is what the vendor has reported of the whole call
    so far (None: nothing yet). `completion` stands on the last step alone, and is what `complete` would have returned.
    """

    content: str = ""
    usage: TokenUsage | None = None
    completion: Completion | None = None


class BaseLLMProvider(ABC):
    """One vendor, or one endpoint that speaks a vendor's protocol.

    `api_key` None means the vendor's usual environment variable, `base_url` None the vendor's own address. A key of
    the environment belongs to that address, and is not for a `base_url` that was passed.
    """

    #: What people call this vendor, and what its errors name: whoever registers the provider sets it to the name it
    #: is registered under. Until then it is the kind of vendor.
    name: str = "unnamed"

    def __init__(self, api_key: str | None = None, base_url: str | None = None) -> None:
        self.api_key = api_key
        self.base_url = base_url

    @abstractmethod
    async def complete(self, request: LLMRequest, model: str, *, timeout: float) -> Completion:
        """Send one request, once: no retry, and return the vendor's answer as a Completion. `model` is the name
        without prefix, `timeout` is in seconds.

        :raises ProviderError: the vendor refused or failed
        :raises ModelNotFoundError: the vendor does not have the model; nothing else leaves this method
        """

    async def stream(self, request: LLMRequest, model: str, *, timeout: float) -> AsyncIterator[Delta]:
        """Send one request, once, and yield the answer as it comes; the last step has the completion. Closing the
        iterator ends the call. A provider that cannot stream yields the whole answer as one step. `timeout` is the
        longest wait for the next step, in seconds.

        :raises ProviderError: the vendor refused or failed, also half-way
        :raises ModelNotFoundError: the vendor does not have the model; nothing else leaves this method
        """
        completion = await self.complete(request, model, timeout=timeout)
        yield Delta(completion.content, completion.usage, completion)

    async def list_models(self) -> list[str] | None:
        """The names of the models that the vendor has, without prefix; None where it does not list them. Raises like
        `complete`."""
        return None

    async def prepare(self) -> None:
        """Do what takes long at a first call and is not the vendor's time, such as importing a library. Called before
        the clock of every call starts. Raises like `complete`."""

    async def close(self) -> None:
        """Release connections. Idempotent."""
