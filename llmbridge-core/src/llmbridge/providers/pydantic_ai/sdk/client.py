"""The base class of the clients: sends one request and returns the response, complete or streamed."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any, ClassVar
from urllib.parse import urlsplit

from pydantic_ai.direct import model_request, model_request_stream
from pydantic_ai.messages import (
    ModelMessage,
    ModelResponse,
    ModelResponseStreamEvent,
    PartDeltaEvent,
    PartStartEvent,
    TextPart,
    TextPartDelta,
)
from pydantic_ai.models import Model, ModelRequestParameters, StreamedResponse
from pydantic_ai.settings import ModelSettings

from ....errors import InvalidRequestError, ProviderError
from ....schemas import LLMRequest, TokenUsage
from ...base import Completion, Delta
from .. import request as conversation
from ..endpoint import Endpoint
from ..error_mapping import IncompleteStreamError, PartialUsageError
from ..media import Media
from . import messages, response
from .usage import UsageTap

#: The parameters of a request, by their names in pydantic-ai.
_PARAMETERS = {
    "temperature": "temperature",
    "top_p": "top_p",
    "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
    "max_tokens": "max_tokens",
    "seed": "seed",
    "stop_sequences": "stop",
    "tool_choice": "tool_choice",
    "extra_body": "extra",
}


@dataclass(frozen=True, slots=True)
class Call:
    """One request in pydantic-ai's types, and the tap for the usage of its response."""

    model: Model[Any]
    messages: list[ModelMessage]
    settings: ModelSettings
    parameters: ModelRequestParameters
    tap: UsageTap


class ProviderClient(ABC):
    """A client of one endpoint, with one connection pool."""

    #: The media that the provider accepts, as bytes or by a URL.
    takes: ClassVar[Collection[str]] = ()

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint

    @property
    @abstractmethod
    def url(self) -> str:
        """Return the base URL of requests."""

    @property
    def host(self) -> str:
        """Return host and port, for error texts."""
        return urlsplit(self.url).netloc.rpartition("@")[2]

    @abstractmethod
    def model(self, name: str, tap: UsageTap) -> Model[Any]:
        """Return pydantic-ai's model of that name. It writes to `tap` what pydantic-ai does not pass on."""

    @abstractmethod
    def usage(self, reported: Any) -> TokenUsage | None:
        """Return the tokens of a call from the provider's usage object; None if it has no count (yet)."""

    def reported_usage(self, tap: UsageTap, answer: ModelResponse | StreamedResponse) -> Any:
        """Return the usage object that the provider has sent so far."""
        return tap.usage

    def _counted(self, tap: UsageTap, reported: Any) -> TokenUsage | None:
        """Return the usage of a call with the terms of its price."""
        usage = self.usage(reported)
        return (
            usage
            if usage is None or not tap.price_context
            else usage.model_copy(update={"price_context": {**tap.price_context}})
        )

    @abstractmethod
    def adapt(self, call: Call, request: LLMRequest, tools: list[conversation.Tool]) -> Call:
        """Return the call with response format, tool choice and extra body, as the provider's API has them.

        :raises InvalidRequestError: the provider does not support one of them
        """

    async def list_models(self) -> list[str] | None:
        """Return the names of the provider's models for text; None if it lists none."""
        return None

    async def close(self) -> None:
        """Close the connections, unless the HTTP client is the caller's."""

    def has_ended(self, tap: UsageTap, answer: ModelResponse) -> bool:
        """Return whether the provider itself ended a streamed response."""
        return bool(tap.has_ended)

    async def complete(self, request: LLMRequest, model: str, *, timeout: float) -> Completion:
        """Send one request, without retries. Raises errors of llmbridge before it is sent, and the SDK's afterwards."""
        call = self._prepare(request, model, timeout)
        with self._keeping_usage(call.tap, streamed=False):
            async with asyncio.timeout(timeout):
                answer = await model_request(
                    call.model,
                    call.messages,
                    model_settings=call.settings,
                    model_request_parameters=call.parameters,
                    instrument=False,
                )
            if call.tap.has_ended is False:  # the SDK streams a response that it expects to take long
                raise IncompleteStreamError
        return response.completion(answer, model, self._counted(call.tap, self.reported_usage(call.tap, answer)))

    async def stream(self, request: LLMRequest, model: str, *, timeout: float) -> AsyncGenerator[Delta, None]:
        """Send one request, without retries, and yield the response as it arrives.

        `timeout` is the longest wait for the next part, in seconds.

        Raises as `complete`, and IncompleteStreamError if the provider stopped before the end of its response.
        """
        call = self._prepare(request, model, timeout)
        opening = model_request_stream(
            call.model,
            call.messages,
            model_settings=call.settings,
            model_request_parameters=call.parameters,
            instrument=False,
        )
        sent, known, usage = "", None, None
        with self._keeping_usage(call.tap, streamed=True):
            async with AsyncExitStack() as open_stream:
                async with asyncio.timeout(timeout):
                    answer = await open_stream.enter_async_context(opening)
                events = aiter(answer)
                # The timeout is for each wait: the time that the consumer takes does not count.
                while (event := await _next(events, timeout)) is not None:
                    text, reported = _text(event), self.reported_usage(call.tap, answer)
                    if reported != known:
                        known, usage = reported, self._partial_usage(call.tap, reported)
                    sent += text
                    # A part without text shows that the call goes on: thoughts and tool arguments may take long.
                    yield Delta(text, usage)
                whole = answer.get()
                if not self.has_ended(call.tap, whole):
                    raise IncompleteStreamError
                last = response.completion(whole, model, self._counted(call.tap, self.reported_usage(call.tap, whole)))
        rest = last.content[len(sent) :] if last.content.startswith(sent) else ""
        yield Delta(rest, last.usage, last)

    @contextmanager
    def _keeping_usage(self, tap: UsageTap, *, streamed: bool) -> Iterator[None]:
        """Keep the usage that the provider had reported when the SDK fails."""
        try:
            yield
        except ProviderError:
            raise
        except Exception as error:
            if tap.usage is None:
                raise
            is_whole = not streamed and tap.has_ended is None
            usage = self._counted(tap, tap.usage) if is_whole else self._partial_usage(tap, tap.usage)
            if usage is None:
                raise
            raise PartialUsageError(usage.model_copy(update={"response_model": tap.model})) from error

    def _partial_usage(self, tap: UsageTap, reported: Any) -> TokenUsage | None:
        usage = self._counted(tap, reported)
        if usage is None or tap.has_ended:
            return usage
        return usage.model_copy(update={"source": "partial", "response_model": tap.model})

    def _prepare(self, request: LLMRequest, model: str, timeout: float) -> Call:
        tools = conversation.tools(request)
        self._check_media(messages.media(request))
        tap = UsageTap()
        call = self.adapt(
            Call(
                self.model(model, tap),
                messages.messages(request),
                messages.settings(request, timeout),
                ModelRequestParameters(function_tools=[messages.tool(tool) for tool in tools]),
                tap,
            ),
            request,
            tools,
        )
        refused = sorted(_PARAMETERS[name] for name in call.settings if name in _unsupported_settings(call.model))
        if refused:
            raise InvalidRequestError(f"{model} does not take {', '.join(refused)}")
        return call

    def _check_media(self, parts: list[Media]) -> None:
        for part in parts:
            kind = ("image" if part.is_image else "pdf") + ("" if part.url is None else " url")
            if kind not in self.takes:
                raise InvalidRequestError(f"{self.endpoint.kind} does not take {_MEDIA[kind]}")


_MEDIA = {
    "image": "images",
    "image url": "an image by its URL; send its bytes as a data URL",
    "pdf": "PDF",
    "pdf url": "a PDF by its URL; send its bytes as a data URL",
}


def with_settings(call: Call, **changes: Any) -> Call:
    """Return the call with more settings; those that are None or empty are left out."""
    chosen: Any = {**call.settings, **{name: value for name, value in changes.items() if value not in (None, {})}}
    return replace(call, settings=chosen)


def _unsupported_settings(model: Model[Any]) -> Collection[str]:
    return model._unsupported_settings() & _PARAMETERS.keys()


async def _next(events: AsyncIterator[ModelResponseStreamEvent], timeout: float) -> ModelResponseStreamEvent | None:
    async with asyncio.timeout(timeout):
        return await anext(events, None)


def _text(event: ModelResponseStreamEvent) -> str:
    match event:
        case PartStartEvent(part=TextPart(content=text)):
            return text
        case PartDeltaEvent(delta=TextPartDelta(content_delta=text)):
            return text
    return ""
