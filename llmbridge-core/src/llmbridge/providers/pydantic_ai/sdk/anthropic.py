"""Anthropic's messages."""

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
from ..endpoint import Access
from . import messages
from .client import Call, Server, with_settings
from .response import Heard, Overheard, count, measured, plain, total

#: What the library is given instead of the usage that it would trip over where some of it is missing.
_NOTHING = BetaUsage.construct(input_tokens=0, output_tokens=0)


class Messages(Server):
    """The messages API of one server that speaks Anthropic's protocol."""

    takes = frozenset({"image", "image url", "pdf", "pdf url"})

    def __init__(self, access: Access) -> None:
        super().__init__(access)
        self._client = anthropic.AsyncAnthropic(
            api_key=access.key,
            base_url=access.address,
            max_retries=0,
            # A redirect would take the prompt to a server that nobody chose.
            http_client=access.http_client
            or anthropic.DefaultAsyncHttpxClient(follow_redirects=False, auth=access.login),
        )
        if not access.from_environment:
            # The library reads them itself and knows no argument for "none".
            self._client._custom_headers = {}
        self._provider = AnthropicProvider(anthropic_client=self._client)

    @property
    def url(self) -> str:
        """Where requests go."""
        return str(self._client.base_url)

    def model(self, name: str, heard: Heard) -> AnthropicModel:
        """Messages by the model of that name."""
        return _MessagesModel(
            name,
            heard=heard,
            provider=self._provider,
            profile=merge_profile(
                AnthropicProvider.model_profile(name),
                # With them the library drops a temperature, or lowers max_tokens, that it thinks the model does not
                # take.
                AnthropicModelProfile(
                    anthropic_disallows_sampling_settings=False,
                    anthropic_max_output_tokens=None,
                    anthropic_enforces_strict_schema_limits=False,
                ),
            ),
        )

    def usage(self, reported: Any) -> TokenUsage | None:
        """Anthropic's counts: input is what was neither read from a cache nor written to one, output includes
        thinking.

        https://platform.claude.com/docs/en/build-with-claude/prompt-caching#tracking-cache-performance
        """
        if not isinstance(reported, Mapping):
            return None
        read, written = count(reported, "cache_read_input_tokens"), count(reported, "cache_creation_input_tokens")
        return measured(
            TokenUsage(
                prompt_tokens=total(count(reported, "input_tokens"), read, written),
                completion_tokens=count(reported, "output_tokens"),
                cache_read_tokens=read,
                cache_write_tokens=written,
                cache_write_1h_tokens=count(reported.get("cache_creation"), "ephemeral_1h_input_tokens"),
                reasoning_tokens=count(reported.get("output_tokens_details"), "thinking_tokens"),
            )
        )

    def shape(self, call: Call, request: LLMRequest, tools: list[conversation.Tool]) -> Call:
        """The form of the answer is native to newer models, for a schema."""
        call = with_settings(
            call, tool_choice=messages.tool_choice(request, tools), extra_body=conversation.additions(request)
        )
        form = conversation.answer_form(request)
        if form == "text":
            return call
        if not isinstance(form, conversation.AnswerSchema):
            raise InvalidRequestError("anthropic answers in JSON by a schema alone: response_format of json_schema")
        if not call.model.profile.get("supports_json_schema_output", False):
            raise InvalidRequestError(f"{call.model.model_name} does not keep to a JSON schema; a tool may serve")
        asked = OutputObjectDefinition(form.schema, form.name, form.description, strict=True)
        return replace(call, parameters=replace(call.parameters, output_mode="native", output_object=asked))

    async def list_models(self) -> list[str]:
        """The names of all models that the key may use."""
        return [model.id async for model in self._client.models.list(limit=1000)]

    async def close(self) -> None:
        """Close the connections that are ours."""
        if self.access.http_client is None:
            await self._client.close()


def open_server(access: Access) -> Messages:
    """The server of that access."""
    return Messages(access)


class _MessagesModel(AnthropicModel):
    """Messages with usage as the vendor reported it; the library fills in zeros."""

    def __init__(self, name: str, *, heard: Heard, **options: Any) -> None:
        super().__init__(name, **options)
        self._heard = heard

    def _process_response(self, response: BetaMessage, *args: Any, **options: Any) -> ModelResponse:
        self._heard.usage = plain(getattr(response, "usage", None))
        return super()._process_response(response.model_copy(update={"usage": _NOTHING}), *args, **options)

    async def _process_streamed_response(self, response: Any, *args: Any, **options: Any) -> Any:
        overheard: Any = Overheard(response, self._hear)
        return await super()._process_streamed_response(overheard, *args, **options)

    def _hear(self, event: Any) -> None:
        match event.type:
            case "message_start":
                self._heard.ended = False
                self._add(event.message)
            case "message_delta":
                self._add(event)
            case "message_stop":
                self._heard.ended = True

    def _add(self, holder: Any) -> None:
        """Later counts replace earlier ones; those that are not repeated stay."""
        reported = plain(getattr(holder, "usage", None))
        if isinstance(reported, Mapping):
            known = {name: value for name, value in reported.items() if value is not None}
            self._heard.usage = {**(self._heard.usage or {}), **known}
        holder.usage = _NOTHING
