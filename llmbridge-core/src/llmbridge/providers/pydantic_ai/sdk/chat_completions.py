"""The client for chat completions: OpenAI, Ollama and every server that speaks OpenAI's protocol."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import openai
from openai.types.chat import ChatCompletion, ChatCompletionChunk, ChatCompletionToolParam
from pydantic_ai.models import ModelRequestParameters
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIChatModelSettings, OpenAIStreamedResponse
from pydantic_ai.profiles.openai import OpenAIModelProfile
from pydantic_ai.providers.openai import OpenAIProvider
from pydantic_ai.settings import ModelSettings
from pydantic_ai.tools import ToolDefinition

from ....schemas import LLMRequest, TokenUsage
from .. import request as conversation
from ..endpoint import Endpoint
from .client import Call, ProviderClient, with_settings
from .usage import TappedStream, UsageTap, as_data, count, none_if_empty, total

#: Models that refuse `max_tokens`; all others accept it, on every server that speaks the protocol.
_REASONING_MODELS = ("o1", "o3", "o4", "gpt-5", "gpt-6")


class ChatCompletionsClient(ProviderClient):
    """A client for a server that speaks OpenAI's protocol."""

    takes = frozenset({"image", "image url", "pdf"})

    def __init__(self, endpoint: Endpoint) -> None:
        super().__init__(endpoint)
        self._client = openai.AsyncOpenAI(
            api_key=endpoint.key,
            base_url=self._base_url(endpoint.address),
            organization=endpoint.organization,
            max_retries=0,
            # A redirect would send the prompt to a server that nobody chose.
            http_client=endpoint.http_client
            or openai.DefaultAsyncHttpxClient(follow_redirects=False, auth=endpoint.login),
        )
        if endpoint.kind != "openai" or not endpoint.from_environment:
            # The SDK reads them from the environment; no argument prevents that.
            self._client.organization, self._client.project = endpoint.organization, None
            self._client._custom_headers = {}
        self._provider = OpenAIProvider(openai_client=self._client)
        self._is_openai = self._client.base_url.host == "api.openai.com"

    def _base_url(self, address: str | None) -> str | None:
        """Return the base URL for the SDK."""
        return address

    @property
    def url(self) -> str:
        """Return the base URL of requests."""
        return str(self._client.base_url)

    def model(self, name: str, tap: UsageTap) -> OpenAIChatModel:
        """Return pydantic-ai's model of that name."""
        return _ChatModel(
            name,
            tap=tap,
            provider=self._provider,
            profile=OpenAIModelProfile(
                json_schema_transformer=None,
                # Otherwise pydantic-ai drops a temperature if it assumes that the model does not take it.
                openai_supports_reasoning=False,
                openai_chat_supports_max_completion_tokens=self._is_openai or name.startswith(_REASONING_MODELS),
            ),
        )

    def usage(self, reported: Any) -> TokenUsage | None:
        """Return OpenAI's counts: input includes cached tokens, output includes reasoning, the details are subsets.

        Some other servers exclude reasoning from the output; their total shows it.
        """
        if not isinstance(reported, Mapping):
            return None
        inputs, outputs = reported.get("prompt_tokens_details"), reported.get("completion_tokens_details")
        prompt, completion = count(reported, "prompt_tokens"), count(reported, "completion_tokens")
        reasoning = count(outputs, "reasoning_tokens")
        if None not in (prompt, completion) and reasoning:
            with_reasoning = total(completion, reasoning)
            if count(reported, "total_tokens") == total(prompt, with_reasoning):
                completion = with_reasoning
        return none_if_empty(
            TokenUsage(
                prompt_tokens=prompt,
                completion_tokens=completion,
                cache_read_tokens=count(inputs, "cached_tokens"),
                cache_write_tokens=count(inputs, "cache_write_tokens"),
                reasoning_tokens=reasoning,
            )
        )

    def adapt(self, call: Call, request: LLMRequest, tools: list[conversation.Tool]) -> Call:
        """Add to the request body as it is what already is in OpenAI's format."""
        return with_settings(call, extra_body=body(request, tools))

    async def list_models(self) -> list[str]:
        """Return the names of all models that the key may use."""
        return [model.id async for model in self._client.models.list()]

    async def close(self) -> None:
        """Close the connections, unless the HTTP client is the caller's."""
        if self.endpoint.http_client is None:
            await self._client.close()


class OllamaClient(ChatCompletionsClient):
    """A client for Ollama, which speaks OpenAI's protocol under `/v1` and fetches no URL."""

    takes = frozenset({"image"})

    def _base_url(self, address: str | None) -> str | None:
        return address if address is None or address.endswith("/v1") else f"{address}/v1"


def open_client(endpoint: Endpoint) -> ChatCompletionsClient:
    """Return a client for the endpoint."""
    return (OllamaClient if endpoint.kind == "ollama" else ChatCompletionsClient)(endpoint)


def body(request: LLMRequest, tools: list[conversation.Tool]) -> dict[str, Any]:
    """Return the fields of the request body that pydantic-ai would change."""
    added: dict[str, Any] = {}
    form = conversation.response_format(request)
    if form == "json":
        added["response_format"] = {"type": "json_object"}
    elif isinstance(request.response_format, dict):
        added["response_format"] = request.response_format
    choice = conversation.tool_choice(request, tools)
    if choice is not None:
        added["tool_choice"] = choice
    return {**added, **conversation.extra_body(request)}


class _ChatModel(OpenAIChatModel):
    """A model that sends tools as the caller wrote them and keeps the usage as it was reported.

    pydantic-ai fills in zeros for missing counts, and refuses a response with incomplete usage, or with a service tier
    that is not text.
    """

    def __init__(self, name: str, *, tap: UsageTap, **options: Any) -> None:
        super().__init__(name, **options)
        self._tap = tap

    def _map_tool_definition(self, f: ToolDefinition, model_settings: ModelSettings) -> ChatCompletionToolParam:
        function: Any = (f.metadata or {})["function"]
        return {"type": "function", "function": function}

    def _validate_completion(self, response: ChatCompletion) -> Any:
        self._tap.usage = as_data(response.usage)
        self._tap.add_price_context(response, "service_tier")
        self._tap.add_model(response.model)
        return super()._validate_completion(response.model_copy(update={"usage": None, "service_tier": None}))

    async def _process_streamed_response(
        self,
        response: Any,
        model_request_parameters: ModelRequestParameters,
        model_settings: OpenAIChatModelSettings | None = None,
    ) -> OpenAIStreamedResponse:
        tapped: Any = TappedStream(response, self._observe)
        return await super()._process_streamed_response(tapped, model_request_parameters, model_settings)

    def _observe(self, chunk: ChatCompletionChunk) -> None:
        self._tap.add_price_context(chunk, "service_tier")
        self._tap.add_model(chunk.model)
        chunk.service_tier = None
        if chunk.usage is not None:
            self._tap.usage, chunk.usage = as_data(chunk.usage), None
        if any(choice.finish_reason for choice in chunk.choices or ()):
            self._tap.has_ended = True
