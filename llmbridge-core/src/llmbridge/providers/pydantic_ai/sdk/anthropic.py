"""The client for Anthropic's messages API."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import anthropic
from anthropic.types.beta import BetaMessage, BetaUsage
from pydantic_ai.messages import ModelResponse
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.output import OutputObjectDefinition
from pydantic_ai.profiles import merge_profile
from pydantic_ai.profiles.anthropic import AnthropicModelProfile
from pydantic_ai.providers.anthropic import AnthropicProvider

from ....errors import InvalidRequestError
from ....schemas import LLMRequest, TokenUsage
from .. import request as conversation
from ..endpoint import Endpoint
from . import messages
from .client import Call, ProviderClient, with_settings
from .usage import TappedStream, UsageTap, as_data, count, none_if_empty, total

#: What the usage object tells of the terms of the price.
_PRICE_CONTEXT = ("service_tier", "speed", "inference_geo")

#: Given to pydantic-ai instead of the reported usage: it fails if a count is missing.
_NO_USAGE = BetaUsage.construct(input_tokens=0, output_tokens=0)


class AnthropicClient(ProviderClient):
    """A client for a server that speaks Anthropic's protocol."""

    takes = frozenset({"image", "image url", "pdf", "pdf url"})

    def __init__(self, endpoint: Endpoint) -> None:
        super().__init__(endpoint)
        self._client = anthropic.AsyncAnthropic(
            api_key=endpoint.key,
            base_url=endpoint.address and endpoint.address.removesuffix("/v1"),  # the SDK adds it
            max_retries=0,
            # A redirect would send the prompt to a server that nobody chose.
            http_client=endpoint.http_client
            or anthropic.DefaultAsyncHttpxClient(follow_redirects=False, auth=endpoint.login),
        )
        if not endpoint.from_environment:
            # The SDK reads them from the environment; no argument prevents that.
            self._client._custom_headers = {}
        self._provider = AnthropicProvider(anthropic_client=self._client)

    @property
    def url(self) -> str:
        """Return the base URL of requests."""
        return str(self._client.base_url)

    def model(self, name: str, tap: UsageTap) -> AnthropicModel:
        """Return pydantic-ai's model of that name."""
        return _MessagesModel(
            name,
            tap=tap,
            provider=self._provider,
            profile=merge_profile(
                AnthropicProvider.model_profile(name),
                # Otherwise pydantic-ai drops a temperature, or lowers max_tokens, if it assumes that the model does
                # not take it.
                AnthropicModelProfile(
                    anthropic_disallows_sampling_settings=False,
                    anthropic_max_output_tokens=None,
                    anthropic_enforces_strict_schema_limits=False,
                ),
            ),
        )

    def usage(self, reported: Any) -> TokenUsage | None:
        """Return Anthropic's counts: its input excludes tokens read from a cache or written to one, its output includes
        thinking.

        https://platform.claude.com/docs/en/build-with-claude/prompt-caching#tracking-cache-performance
        """
        if not isinstance(reported, Mapping):
            return None
        read, written = count(reported, "cache_read_input_tokens"), count(reported, "cache_creation_input_tokens")
        return none_if_empty(
            TokenUsage(
                prompt_tokens=total(count(reported, "input_tokens"), read, written),
                completion_tokens=count(reported, "output_tokens"),
                cache_read_tokens=read,
                cache_write_tokens=written,
                cache_write_1h_tokens=count(reported.get("cache_creation"), "ephemeral_1h_input_tokens"),
                reasoning_tokens=count(reported.get("output_tokens_details"), "thinking_tokens"),
            )
        )

    def adapt(self, call: Call, request: LLMRequest, tools: list[conversation.Tool]) -> Call:
        """Add tool choice, extra body and response format; only newer models accept a JSON schema."""
        call = with_settings(
            call, tool_choice=messages.tool_choice(request, tools), extra_body=conversation.extra_body(request)
        )
        form = conversation.response_format(request)
        if form == "text":
            return call
        if not isinstance(form, conversation.ResponseSchema):
            raise InvalidRequestError(
                "anthropic answers in JSON only with a schema: use a response_format of type json_schema"
            )
        if not call.model.profile.get("supports_json_schema_output", False):
            raise InvalidRequestError(f"{call.model.model_name} does not support a JSON schema; use a tool instead")
        asked = OutputObjectDefinition(form.schema, form.name, form.description, strict=True)
        return replace(call, parameters=replace(call.parameters, output_mode="native", output_object=asked))

    async def list_models(self) -> list[str]:
        """Return the names of all models that the key may use."""
        return [model.id async for model in self._client.models.list(limit=1000)]

    async def close(self) -> None:
        """Close the connections, unless the HTTP client is the caller's."""
        if self.endpoint.http_client is None:
            await self._client.close()


def open_client(endpoint: Endpoint) -> AnthropicClient:
    """Return a client for the endpoint."""
    return AnthropicClient(endpoint)


class _MessagesModel(AnthropicModel):
    """A model that keeps the usage as it was reported; pydantic-ai fills in zeros."""

    def __init__(self, name: str, *, tap: UsageTap, **options: Any) -> None:
        super().__init__(name, **options)
        self._tap = tap

    def _process_response(self, response: BetaMessage, *args: Any, **options: Any) -> ModelResponse:
        self._tap.usage = as_data(getattr(response, "usage", None))
        self._tap.add_price_context(self._tap.usage, *_PRICE_CONTEXT)
        self._tap.add_model(getattr(response, "model", None))
        return super()._process_response(response.model_copy(update={"usage": _NO_USAGE}), *args, **options)

    async def _process_streamed_response(self, response: Any, *args: Any, **options: Any) -> Any:
        tapped: Any = TappedStream(response, self._observe)
        return await super()._process_streamed_response(tapped, *args, **options)

    def _observe(self, event: Any) -> None:
        match event.type:
            case "message_start":
                self._tap.has_ended = False
                self._add(event.message)
                self._tap.add_model(getattr(event.message, "model", None))
            case "message_delta":
                self._add(event)
            case "message_stop":
                self._tap.has_ended = True

    def _add(self, holder: Any) -> None:
        usage = as_data(getattr(holder, "usage", None))
        self._tap.add(usage)
        self._tap.add_price_context(usage, *_PRICE_CONTEXT)
        holder.usage = _NO_USAGE
