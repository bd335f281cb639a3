"""OpenAI's chat completions: OpenAI itself, Ollama, and every server that speaks the protocol."""

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
from ..endpoint import Access
from .client import Call, Server, with_settings
from .response import Heard, Overheard, count, measured, plain, total

#: Models that refuse `max_tokens`; all others understand it, on every server that speaks the protocol.
_REASONING_MODELS = ("o1", "o3", "o4", "gpt-5", "gpt-6")


class ChatCompletions(Server):
    """Chat completions of one server that speaks OpenAI's protocol."""

    takes = frozenset({"image", "image url", "pdf"})

    def __init__(self, access: Access) -> None:
        super().__init__(access)
        self._client = openai.AsyncOpenAI(
            api_key=access.key,
            base_url=access.address,
            organization=access.organization,
            max_retries=0,
            # A redirect would take the prompt to a server that nobody chose.
            http_client=access.http_client or openai.DefaultAsyncHttpxClient(follow_redirects=False, auth=access.login),
        )
        if not access.from_environment:
            # The library reads them itself and knows no argument for "none".
            self._client.organization, self._client.project = access.organization, None
            self._client._custom_headers = {}
        self._provider = OpenAIProvider(openai_client=self._client)
        self._is_openai = self._client.base_url.host == "api.openai.com"

    @property
    def url(self) -> str:
        """Where requests go."""
        return str(self._client.base_url)

    def model(self, name: str, heard: Heard) -> OpenAIChatModel:
        """Chat completions by the model of that name."""
        return _ChatModel(
            name,
            heard=heard,
            provider=self._provider,
            profile=OpenAIModelProfile(
                json_schema_transformer=None,
                # With it the library drops a temperature that it thinks the model does not take.
                openai_supports_reasoning=False,
                openai_chat_supports_max_completion_tokens=self._is_openai or name.startswith(_REASONING_MODELS),
            ),
        )

    def usage(self, reported: Any) -> TokenUsage | None:
        """OpenAI's counts: input includes what was cached, output includes reasoning, the details are subsets.

        Others that speak the protocol count reasoning besides the output, as their total shows.
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
        return measured(
            TokenUsage(
                prompt_tokens=prompt,
                completion_tokens=completion,
                cache_read_tokens=count(inputs, "cached_tokens"),
                cache_write_tokens=count(inputs, "cache_write_tokens"),
                reasoning_tokens=reasoning,
            )
        )

    def shape(self, call: Call, request: LLMRequest, tools: list[conversation.Tool]) -> Call:
        """All that is in OpenAI's form already goes into the request body as it is."""
        return with_settings(call, extra_body=body(request, tools))

    async def list_models(self) -> list[str]:
        """The names of all models that the key may use."""
        return [model.id async for model in self._client.models.list()]

    async def close(self) -> None:
        """Close the connections that are ours."""
        if self.access.http_client is None:
            await self._client.close()


class Ollama(ChatCompletions):
    """Ollama, by the OpenAI protocol that it speaks under `/v1`. It fetches no URL."""

    takes = frozenset({"image"})


def open_server(access: Access) -> ChatCompletions:
    """The server of that access."""
    return (Ollama if access.kind == "ollama" else ChatCompletions)(access)


def body(request: LLMRequest, tools: list[conversation.Tool]) -> dict[str, Any]:
    """What OpenAI's protocol has and pydantic-ai would change."""
    added: dict[str, Any] = {}
    form = conversation.answer_form(request)
    if form == "json":
        added["response_format"] = {"type": "json_object"}
    elif isinstance(request.response_format, dict):
        added["response_format"] = request.response_format
    choice = conversation.tool_choice(request, tools)
    if choice is not None:
        added["tool_choice"] = choice
    return {**added, **conversation.additions(request)}


class _ChatModel(OpenAIChatModel):
    """Chat completions with tools as the caller wrote them and usage as the vendor reported it.

    The library fills in zeros for what a vendor did not report, and refuses an answer whose usage is incomplete.
    """

    def __init__(self, name: str, *, heard: Heard, **options: Any) -> None:
        super().__init__(name, **options)
        self._heard = heard

    def _map_tool_definition(self, f: ToolDefinition, model_settings: ModelSettings) -> ChatCompletionToolParam:
        function: Any = (f.metadata or {})["function"]
        return {"type": "function", "function": function}

    def _validate_completion(self, response: ChatCompletion) -> Any:
        self._heard.usage = plain(response.usage)
        return super()._validate_completion(response.model_copy(update={"usage": None}))

    async def _process_streamed_response(
        self,
        response: Any,
        model_request_parameters: ModelRequestParameters,
        model_settings: OpenAIChatModelSettings | None = None,
    ) -> OpenAIStreamedResponse:
        overheard: Any = Overheard(response, self._hear)
        return await super()._process_streamed_response(overheard, model_request_parameters, model_settings)

    def _hear(self, chunk: ChatCompletionChunk) -> None:
        if chunk.usage is not None:
            self._heard.usage, chunk.usage = plain(chunk.usage), None
        if any(choice.finish_reason for choice in chunk.choices or ()):
            self._heard.ended = True
