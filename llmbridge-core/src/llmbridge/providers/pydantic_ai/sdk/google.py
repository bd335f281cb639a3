"""The client for Google's Gemini API (generateContent)."""

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
from ..endpoint import Endpoint
from . import messages
from .client import Call, ProviderClient, with_settings
from .usage import TappedStream, UsageTap, as_data, count, none_if_empty, total

#: Collects the HTTP responses that are received while a stream is opened.
_received: ContextVar[list[Any] | None] = ContextVar("received", default=None)

#: Timeout of the HTTP client in seconds; the timeout of the call normally is shorter.
_HTTP_TIMEOUT = 3600.0


class GoogleClient(ProviderClient):
    """A client for a server that speaks the Gemini API."""

    takes = frozenset({"image", "pdf"})

    def __init__(self, endpoint: Endpoint) -> None:
        super().__init__(endpoint)
        # A redirect would send the prompt to a server that nobody chose.
        self._http_client = endpoint.http_client or httpx2.AsyncClient(
            follow_redirects=False, timeout=_HTTP_TIMEOUT, auth=endpoint.login
        )
        self._http_client.event_hooks = {
            **self._http_client.event_hooks,
            "response": [*self._http_client.event_hooks["response"], _receive],
        }
        self._provider = GoogleProvider(
            api_key=endpoint.key,
            base_url=endpoint.address and endpoint.address.removesuffix("/v1beta"),  # the SDK adds it
            http_client=self._http_client,
        )

    @property
    def url(self) -> str:
        """Return the base URL of requests."""
        return self._provider.base_url

    def model(self, name: str, tap: UsageTap) -> GoogleModel:
        """Return pydantic-ai's model of that name."""
        return _ContentModel(name, tap=tap, provider=self._provider)

    def usage(self, reported: Any) -> TokenUsage | None:
        """Return Gemini's counts: the prompt includes cached tokens and excludes the results of tools, and the
        candidates exclude thoughts. The API leaves out a count of 0.

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
        return none_if_empty(
            TokenUsage(
                prompt_tokens=prompt,
                completion_tokens=completion,
                cache_read_tokens=count(reported, "cached_content_token_count"),
                reasoning_tokens=thoughts,
            )
        )

    def adapt(self, call: Call, request: LLMRequest, tools: list[conversation.Tool]) -> Call:
        """Add the response format and extra body as settings of our own, which pydantic-ai passes through."""
        match conversation.response_format(request):
            case "text":
                form: dict[str, Any] = {}
            case "json":
                form = {"response_mime_type": "application/json"}
            case conversation.ResponseSchema(schema=schema):
                form = {"response_mime_type": "application/json", "response_json_schema": schema}
            case _:
                raise InvalidRequestError("google answers in text, in JSON or with a JSON schema")
        return with_settings(
            call,
            tool_choice=messages.tool_choice(request, tools),
            llmbridge_form=form,
            llmbridge_body=conversation.extra_body(request),
        )

    async def list_models(self) -> list[str]:
        """Return the names of the models that generate content."""
        return [
            (model.name or "").removeprefix("models/")
            async for model in await self._provider.client.aio.models.list()
            if "generateContent" in (model.supported_actions or ())
        ]

    async def close(self) -> None:
        """Close the connections, unless the HTTP client is the caller's, and remove the hook from it."""
        if self.endpoint.http_client is None:
            await self._http_client.aclose()
        hooks = self._http_client.event_hooks
        self._http_client.event_hooks = {
            **hooks,
            "response": [hook for hook in hooks["response"] if hook is not _receive],
        }


def open_client(endpoint: Endpoint) -> GoogleClient:
    """Return a client for the endpoint."""
    return GoogleClient(endpoint)


async def _receive(response: Any) -> None:
    received = _received.get()
    if received is not None:
        received.append(response)


class _ContentModel(GoogleModel):
    """A model that keeps the usage as it was reported, and sends the response format that the caller asked for.

    Google's SDK does not close the response of a stream that is not read to its end; this class does.
    """

    def __init__(self, name: str, *, tap: UsageTap, **options: Any) -> None:
        super().__init__(name, **options)
        self._tap = tap
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
        self._observe(response)
        return super()._process_response(response, model_request_parameters)

    async def _process_streamed_response(
        self, response: Any, model_request_parameters: ModelRequestParameters
    ) -> StreamedResponse:
        tapped: Any = TappedStream(response, self._observe)
        before = _received.set(self._open)
        try:
            return await super()._process_streamed_response(tapped, model_request_parameters)
        finally:
            _received.reset(before)

    @asynccontextmanager
    async def request_stream(self, *args: Any, **options: Any) -> AsyncGenerator[StreamedResponse, None]:
        """Open a stream, and close its HTTP response at the end."""
        try:
            async with super().request_stream(*args, **options) as answer:
                yield answer
        finally:
            for response in self._open:
                await response.aclose()

    def _observe(self, chunk: GenerateContentResponse) -> None:
        self._tap.add(as_data(chunk.usage_metadata))
        self._tap.add_price_context(chunk.usage_metadata, "traffic_type", "service_tier")
        self._tap.add_model(chunk.model_version)
        received = chunk.sdk_http_response
        headers = {} if received is None else received.headers or {}
        self._tap.add_price_context({"service_tier": headers.get("x-gemini-service-tier")}, "service_tier")
        chunk.usage_metadata = None
        blocked = chunk.prompt_feedback is not None and chunk.prompt_feedback.block_reason is not None
        if blocked or any(candidate.finish_reason for candidate in chunk.candidates or ()):
            self._tap.has_ended = True
