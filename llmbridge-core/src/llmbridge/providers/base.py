"""The contract of a provider: the class to implement, its results and the environment variables that it reads."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from ..schemas import LLMRequest, TokenUsage


@dataclass(frozen=True, slots=True)
class ProviderVariables:
    """The environment variables that one provider reads.

    `keys` hold its key, the first one set counts. `addresses` hold the URL of its server. `headers` add headers to each
    request, and may hold a key. `others` are settings that are neither. `finds_stored_keys` is True if its SDK also
    looks for a key in files of the user. A key is only sent to an address from the same place (the same file, or the
    environment), so all variables of a provider are read from one place.
    """

    keys: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    headers: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    finds_stored_keys: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names of all variables."""
        return (*self.keys, *self.addresses, *self.headers, *self.others)


def is_server_address(text: str) -> bool:
    """Return whether `text` is the address of a server: an http or https URL with a host and a valid port."""
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


@dataclass(frozen=True, slots=True)
class Completion:
    """A complete response of a provider.

    `tool_calls` are in OpenAI's format. `model` is the name that the provider reports. `usage` is None if it was not
    reported. `cost` is in dollars, as the provider or gateway reported it (None: it did not).
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
    """One part of a streamed response.

    `content` is the text that is new since the part before. `usage` is what the provider has reported of the whole
    call so far (None: nothing yet). Only the last part has a `completion`, which is what `complete` would have
    returned.
    """

    content: str = ""
    usage: TokenUsage | None = None
    completion: Completion | None = None


class BaseLLMProvider(ABC):
    """One provider, or one server that speaks a provider's protocol.

    `api_key` None means the provider's environment variable, `base_url` None the provider's own address. A key must
    only be sent to an address from the same place: a key of the environment never goes to a `base_url` that was
    passed, and a key that was passed never to an address of the environment.
    """

    #: The name in records and errors. Registering the provider sets it to the registered name; until then it is the
    #: kind of provider.
    name: str = "unnamed"

    def __init__(self, api_key: str | None = None, base_url: str | None = None) -> None:
        self.api_key = api_key
        self.base_url = base_url

    @abstractmethod
    async def complete(self, request: LLMRequest, model: str, *, timeout: float) -> Completion:
        """Send one request, without retries, and return the response. `model` is the name without prefix, `timeout`
        is in seconds.

        :raises ProviderError: the provider refused or failed
        :raises ModelNotFoundError: the provider does not have the model; no other error may leave this method
        """

    async def stream(self, request: LLMRequest, model: str, *, timeout: float) -> AsyncIterator[Delta]:
        """Send one request, without retries, and yield the response as it arrives; the last part has the completion.
        Closing the iterator ends the call. A provider that cannot stream yields the whole response as one part.
        `timeout` is the longest wait for the next part, in seconds.

        :raises ProviderError: the provider refused or failed, also in the middle of the response
        :raises ModelNotFoundError: the provider does not have the model; no other error may leave this method
        """
        completion = await self.complete(request, model, timeout=timeout)
        yield Delta(completion.content, completion.usage, completion)

    async def list_models(self) -> list[str] | None:
        """Return the names of the provider's models, without prefix; None if it does not list them. Raises like
        `complete`."""
        return None

    async def prepare(self) -> None:
        """Do what takes long before a first call and is not the provider's time, such as importing an SDK. It is called
        before the clock of each call starts. Raises like `complete`."""

    async def close(self) -> None:
        """Release connections. Idempotent."""
