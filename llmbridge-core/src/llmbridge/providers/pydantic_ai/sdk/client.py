"""One vendor's server: a request out, an answer back, whole or as it comes."""

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
from ..endpoint import Access
from ..error_mapping import BrokenOffError, CountedError
from ..media import Media
from . import messages, response
from .response import Heard

#: The parameters of a request by the names that pydantic-ai has for them.
_PARAMETERS = {
    "temperature": "temperature",
    "max_tokens": "max_tokens",
    "seed": "seed",
    "stop_sequences": "stop",
    "tool_choice": "tool_choice",
    "extra_body": "extra",
}


@dataclass(frozen=True, slots=True)
class Call:
    """One request in pydantic-ai's terms, with what is heard of its answer beside the library."""

    model: Model[Any]
    messages: list[ModelMessage]
    settings: ModelSettings
    parameters: ModelRequestParameters
    heard: Heard


class Server(ABC):
    """A vendor's server over one pool of connections."""

    #: Which media the vendor takes, each by its bytes or by a URL.
    takes: ClassVar[Collection[str]] = ()

    def __init__(self, access: Access) -> None:
        self.access = access

    @property
    @abstractmethod
    def url(self) -> str:
        """Where requests go."""

    @property
    def address(self) -> str:
        """Host and port, for people."""
        return urlsplit(self.url).netloc.rpartition("@")[2]

    @abstractmethod
    def model(self, name: str, heard: Heard) -> Model[Any]:
        """pydantic-ai's model of that name. What its library does not pass on goes to `heard`."""

    @abstractmethod
    def usage(self, reported: Any) -> TokenUsage | None:
        """The tokens of a call from what the vendor reported of them; None when it reported none (yet)."""

    def reported(self, heard: Heard, answer: ModelResponse | StreamedResponse) -> Any:
        """What the vendor has reported of the tokens so far."""
        return heard.usage

    @abstractmethod
    def shape(self, call: Call, request: LLMRequest, tools: list[conversation.Tool]) -> Call:
        """The call with the form of the answer, the choice of tools and what the caller adds, the vendor's way.

        :raises InvalidRequestError: the vendor does not offer what was asked
        """

    async def list_models(self) -> list[str] | None:
        """The names of the vendor's models for text; None when it lists none."""
        return None

    async def close(self) -> None:
        """Close the connections that are ours."""

    def has_ended(self, heard: Heard, answer: ModelResponse) -> bool:
        """Whether the vendor itself brought a streamed answer to its end."""
        return bool(heard.ended)

    async def complete(self, request: LLMRequest, model: str, *, timeout: float) -> Completion:
        """One request, once. Raises our own errors before it is sent, and the library's own afterwards."""
        call = self._call(request, model, timeout)
        with self._counting(call.heard, streamed=False):
            async with asyncio.timeout(timeout):
                answer = await model_request(
                    call.model,
                    call.messages,
                    model_settings=call.settings,
                    model_request_parameters=call.parameters,
                    instrument=False,
                )
            if call.heard.ended is False:  # the library streams what it expects to take long
                raise BrokenOffError
        return response.completion(answer, model, self.usage(self.reported(call.heard, answer)))

    async def stream(self, request: LLMRequest, model: str, *, timeout: float) -> AsyncGenerator[Delta, None]:
        """One request, once, and its answer as it comes. `timeout` is the longest wait for the next piece of it.

        Raises as `complete`, and BrokenOffError where the vendor stopped before the end of its answer.
        """
        call = self._call(request, model, timeout)
        opening = model_request_stream(
            call.model,
            call.messages,
            model_settings=call.settings,
            model_request_parameters=call.parameters,
            instrument=False,
        )
        sent, known, usage = "", None, None
        with self._counting(call.heard, streamed=True):
            async with AsyncExitStack() as open_stream:
                async with asyncio.timeout(timeout):
                    answer = await open_stream.enter_async_context(opening)
                events = aiter(answer)
                # Only the waits are timed: what the consumer does with a piece takes as long as it takes.
                while (event := await _next(events, timeout)) is not None:
                    text, reported = _text(event), self.reported(call.heard, answer)
                    if reported != known:
                        known, usage = reported, self._so_far(call.heard, reported)
                    sent += text
                    # A piece without text is a sign of life: thoughts and the arguments of tools may take long.
                    yield Delta(text, usage)
                whole = answer.get()
                if not self.has_ended(call.heard, whole):
                    raise BrokenOffError
                last = response.completion(whole, model, self.usage(self.reported(call.heard, whole)))
        rest = last.content[len(sent) :] if last.content.startswith(sent) else ""
        yield Delta(rest, last.usage, last)

    @contextmanager
    def _counting(self, heard: Heard, *, streamed: bool) -> Iterator[None]:
        """Keep what the vendor had counted when its library gives up on the answer."""
        try:
            yield
        except ProviderError:
            raise
        except Exception as error:
            if heard.usage is None:
                raise
            is_whole = not streamed and heard.ended is None
            usage = self.usage(heard.usage) if is_whole else self._so_far(heard, heard.usage)
            if usage is None:
                raise
            raise CountedError(usage) from error

    def _so_far(self, heard: Heard, reported: Any) -> TokenUsage | None:
        usage = self.usage(reported)
        return usage if usage is None or heard.ended else usage.model_copy(update={"source": "partial"})

    def _call(self, request: LLMRequest, model: str, timeout: float) -> Call:
        tools = conversation.tools(request)
        self._check_media(messages.media(request))
        heard = Heard()
        call = self.shape(
            Call(
                self.model(model, heard),
                messages.messages(request),
                messages.settings(request, timeout),
                ModelRequestParameters(function_tools=[messages.tool(tool) for tool in tools]),
                heard,
            ),
            request,
            tools,
        )
        refused = sorted(_PARAMETERS[name] for name in call.settings if name in _unsupported(call.model))
        if refused:
            raise InvalidRequestError(f"{model} does not take {', '.join(refused)}")
        return call

    def _check_media(self, found: list[Media]) -> None:
        for part in found:
            kind = ("image" if part.is_image else "pdf") + ("" if part.url is None else " url")
            if kind not in self.takes:
                raise InvalidRequestError(f"{self.access.kind} does not take {_MEDIA[kind]}")


_MEDIA = {
    "image": "images",
    "image url": "an image by its URL; send its bytes as a data URL",
    "pdf": "PDF",
    "pdf url": "a PDF by its URL; send its bytes as a data URL",
}


def with_settings(call: Call, **changes: Any) -> Call:
    """The call with more settings; those that are None or empty are left out."""
    chosen: Any = {**call.settings, **{name: value for name, value in changes.items() if value not in (None, {})}}
    return replace(call, settings=chosen)


def _unsupported(model: Model[Any]) -> Collection[str]:
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
