"""Gemini's generateContent."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any

import httpx2
from google.genai.types import GenerateContentConfigDict, GenerateContentResponse
from pydantic_ai.messages import ModelMessage, ModelResponse
from pydantic_ai.models import ModelRequestParameters, StreamedResponse
from pydantic_ai.models.google import GoogleModel, GoogleModelSettings
from pydantic_ai.providers.google import GoogleProvider

from ....errors import InvalidRequestError
from ....schemas import LLMRequest, TokenUsage
from .. import request as conversation
from ..endpoint import Access
from . import messages
from .client import Call, Server, with_settings
from .response import Heard, Overheard, count, measured, plain, total

#: Where the responses go that are received while a stream is opened.
_received: ContextVar[list[Any] | None] = ContextVar("received", default=None)

#: Seconds that a long answer may take where no timeout of the call ends it first.
_LONGEST = 3600.0


class GenerateContent(Server):
    """The Gemini API of one server."""

    takes = frozenset({"image", "pdf"})

    def __init__(self, access: Access) -> None:
        super().__init__(access)
        # A redirect would take the prompt to a server that nobody chose.
        self._http_client = access.http_client or httpx2.AsyncClient(
            follow_redirects=False, timeout=_LONGEST, auth=access.login
        )
        self._http_client.event_hooks = {
            **self._http_client.event_hooks,
            "response": [*self._http_client.event_hooks["response"], _receive],
        }
        self._provider = GoogleProvider(api_key=access.key, base_url=access.address, http_client=self._http_client)

    @property
    def url(self) -> str:
        """Where requests go."""
        return self._provider.base_url

    def model(self, name: str, heard: Heard) -> GoogleModel:
        """The model of that name."""
        return _ContentModel(name, heard=heard, provider=self._provider)

    def usage(self, reported: Any) -> TokenUsage | None:
        """Gemini's counts: the prompt includes what was cached and excludes the results of tools, and thoughts lie
        outside the candidates. A count of 0 is left out by the vendor.

        https://ai.google.dev/api/generate-content#UsageMetadata
        """
        if not isinstance(reported, Mapping):
            return None
        prompt = total(count(reported, "prompt_token_count"), count(reported, "tool_use_prompt_token_count"))
        answer, thoughts = count(reported, "candidates_token_count"), count(reported, "thoughts_token_count")
        everything = count(reported, "total_token_count")
        if answer is None and thoughts is None:
            completion = None if prompt is None or everything is None or everything < prompt else everything - prompt
        else:
            completion = (answer or 0) + (thoughts or 0)
        return measured(
            TokenUsage(
                prompt_tokens=prompt,
                completion_tokens=completion,
                cache_read_tokens=count(reported, "cached_content_token_count"),
                reasoning_tokens=thoughts,
            )
        )

    def shape(self, call: Call, request: LLMRequest, tools: list[conversation.Tool]) -> Call:
        """The form of the answer and what the caller adds go past the library, by settings of our own."""
        match conversation.answer_form(request):
            case "text":
                form: dict[str, Any] = {}
            case "json":
                form = {"response_mime_type": "application/json"}
            case conversation.AnswerSchema(schema=schema):
                form = {"response_mime_type": "application/json", "response_json_schema": schema}
            case _:
                raise InvalidRequestError("google answers in text, in JSON or by a JSON schema")
        return with_settings(
            call,
            tool_choice=messages.tool_choice(request, tools),
            llmbridge_form=form,
            llmbridge_body=conversation.additions(request),
        )

    async def list_models(self) -> list[str]:
        """The names of the models that generate content."""
        return [
            (model.name or "").removeprefix("models/")
            async for model in await self._provider.client.aio.models.list()
            if "generateContent" in (model.supported_actions or ())
        ]

    async def close(self) -> None:
        """Close the connections that are ours."""
        if self.access.http_client is None:
            await self._http_client.aclose()
        hooks = self._http_client.event_hooks
        self._http_client.event_hooks = {
            **hooks,
            "response": [hook for hook in hooks["response"] if hook is not _receive],
        }


def open_server(access: Access) -> GenerateContent:
    """The server of that access."""
    return GenerateContent(access)


async def _receive(response: Any) -> None:
    received = _received.get()
    if received is not None:
        received.append(response)


class _ContentModel(GoogleModel):
    """Content with usage as the vendor reported it, in the form that the caller asked for.

    Google's SDK leaves the response of a stream that is not read to its end open; this closes it.
    """

    def __init__(self, name: str, *, heard: Heard, **options: Any) -> None:
        super().__init__(name, **options)
        self._heard = heard
        self._open: list[Any] = []

    async def _build_content_and_config(
        self,
        messages: list[ModelMessage],
        model_settings: GoogleModelSettings,
        model_request_parameters: ModelRequestParameters,
    ) -> tuple[list[Any], GenerateContentConfigDict]:
        content, config = await super()._build_content_and_config(messages, model_settings, model_request_parameters)
        ours: Mapping[str, Any] = model_settings
        shaped: Any = {**config, **ours.get("llmbridge_form", {})}
        if "llmbridge_body" in ours:
            shaped["http_options"] = {**(config.get("http_options") or {}), "extra_body": ours["llmbridge_body"]}
        return content, shaped

    def _process_response(
        self, response: GenerateContentResponse, model_request_parameters: ModelRequestParameters
    ) -> ModelResponse:
        self._hear(response)
        return super()._process_response(response, model_request_parameters)

    async def _process_streamed_response(
        self, response: Any, model_request_parameters: ModelRequestParameters
    ) -> StreamedResponse:
        overheard: Any = Overheard(response, self._hear)
        before = _received.set(self._open)
        try:
            return await super()._process_streamed_response(overheard, model_request_parameters)
        finally:
            _received.reset(before)

    @asynccontextmanager
    async def request_stream(self, *args: Any, **options: Any) -> AsyncGenerator[StreamedResponse, None]:
        """The library's, which closes its response as well."""
        try:
            async with super().request_stream(*args, **options) as answer:
                yield answer
        finally:
            for response in self._open:
                await response.aclose()

    def _hear(self, chunk: GenerateContentResponse) -> None:
        """Later counts replace earlier ones; those that are not repeated stay."""
        reported = plain(chunk.usage_metadata)
        if isinstance(reported, Mapping):
            known = {name: value for name, value in reported.items() if value is not None}
            self._heard.usage = {**(self._heard.usage or {}), **known}
        chunk.usage_metadata = None
        blocked = chunk.prompt_feedback is not None and chunk.prompt_feedback.block_reason is not None
        if blocked or any(candidate.finish_reason for candidate in chunk.candidates or ()):
            self._heard.ended = True
