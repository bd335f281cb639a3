"""Every other vendor that pydantic-ai knows by its prefix, with what it knows of them."""

from __future__ import annotations

import inspect
import os
import re
from dataclasses import fields, replace
from typing import Any

from pydantic_ai.exceptions import UserError
from pydantic_ai.messages import ModelResponse
from pydantic_ai.models import Model, StreamedResponse, infer_model
from pydantic_ai.output import OutputObjectDefinition
from pydantic_ai.providers import Provider, infer_provider_class
from pydantic_ai.usage import RequestUsage

from ....errors import AuthenticationError, InvalidRequestError
from ....schemas import LLMRequest, TokenUsage
from .. import request as conversation
from ..endpoint import Access
from . import messages
from .client import Call, Server, with_settings
from .response import Heard, measured

#: What pydantic-ai calls the address, where it is not `base_url`.
_ADDRESSES = {"azure": "azure_endpoint", "litellm": "api_base"}

_VARIABLE = re.compile(r"`([A-Z][A-Z0-9_]{2,})`")


class Other(Server):
    """A vendor as pydantic-ai reaches it.

    Its library tells zero from "not reported" in no count, so that a count of 0 is taken for one that was not
    measured.
    """

    takes = frozenset({"image", "image url", "pdf"})

    def __init__(self, access: Access, provider: Provider[Any]) -> None:
        super().__init__(access)
        self._provider = provider

    @property
    def url(self) -> str:
        """Where requests go."""
        return self._provider.base_url

    def model(self, name: str, heard: Heard) -> Model[Any]:
        """The model of that name."""
        return infer_model(f"{self.access.kind}:{name}", lambda _: self._provider)

    def reported(self, heard: Heard, answer: ModelResponse | StreamedResponse) -> RequestUsage:
        """The counts as pydantic-ai has them; a copy, since a stream adds to its own."""
        return replace(answer.usage)

    def usage(self, reported: RequestUsage) -> TokenUsage | None:
        """pydantic-ai's counts: input includes what was cached, output includes reasoning."""
        counts = {field.name: getattr(reported, field.name) for field in fields(reported)}
        return measured(
            TokenUsage(
                prompt_tokens=counts["input_tokens"] or None,
                completion_tokens=counts["output_tokens"] or None,
                cache_read_tokens=counts["cache_read_tokens"] or None,
                cache_write_tokens=counts["cache_write_tokens"] or None,
                reasoning_tokens=reported.output_reasoning_tokens or None,
            )
        )

    def has_ended(self, heard: Heard, answer: ModelResponse) -> bool:
        """Whether the vendor gave a reason for the end; pydantic-ai makes one up for those who give none."""
        return bool((answer.provider_details or {}).get("finish_reason"))

    def shape(self, call: Call, request: LLMRequest, tools: list[conversation.Tool]) -> Call:
        """As the OpenAI protocol has it where the vendor speaks it, else as pydantic-ai can."""
        ignored = call.model._unsupported_settings()
        if "max_retries" not in ignored and not hasattr(self._provider.client, "max_retries"):
            call = with_settings(call, max_retries=0)
        if "timeout" in ignored:
            call = replace(call, settings=_without_timeout(call.settings))
        if self._speaks_openais(call.model):
            from .chat_completions import body

            return with_settings(call, extra_body=body(request, tools))
        if any(part.url is not None for part in messages.media(request)):
            raise InvalidRequestError(f"{self.access.kind} does not take a URL; send the bytes as a data URL")
        call = with_settings(
            call, tool_choice=messages.tool_choice(request, tools), extra_body=conversation.additions(request)
        )
        form = conversation.answer_form(request)
        if form == "text":
            return call
        can = call.model.profile.get("supports_json_schema_output", False)
        if not can or not isinstance(form, conversation.AnswerSchema):
            raise InvalidRequestError(f"{self.access.kind} does not answer in the form of that response_format")
        asked = OutputObjectDefinition(form.schema, form.name, form.description, form.strict)
        return replace(call, parameters=replace(call.parameters, output_mode="native", output_object=asked))

    @staticmethod
    def _speaks_openais(model: Model[Any]) -> bool:
        # OpenAI's SDK need not be installed for the others.
        return any(kind.__name__ == "OpenAIChatModel" for kind in type(model).__mro__)

    async def close(self) -> None:
        """Close the connections that are ours."""
        async with self._provider:
            pass


def _without_timeout(settings: Any) -> Any:
    return {name: value for name, value in settings.items() if name != "timeout"}


def _tame(client: Any) -> None:
    """No retries, and nothing for others of what OpenAI's SDK reads for OpenAI, whatever server it is used for."""
    if hasattr(client, "max_retries"):  # as a setting of the call it would make a new client, which reads all again
        client.max_retries = 0
    if not hasattr(client, "organization"):
        return
    client.organization = client.project = None
    ours = {line.partition(":")[0].strip().lower() for line in os.environ.get("OPENAI_CUSTOM_HEADERS", "").split("\n")}
    client._custom_headers = {name: text for name, text in client._custom_headers.items() if name.lower() not in ours}


def load(kind: str) -> None:
    """Import the vendor's SDK.

    :raises ImportError: it is not installed
    """
    infer_provider_class(kind)


def open_server(access: Access) -> Other:
    """The server of that access.

    :raises AuthenticationError: a key, or another thing that the environment is asked for, is missing
    :raises InvalidRequestError: the vendor has no such option
    """
    kind = infer_provider_class(access.kind)
    given = {"api_key": access.api_key, "base_url": access.base_url, "http_client": access.http_client}
    if not access.from_environment:
        given["api_key"] = access.key
    options = {}
    for name, value in given.items():
        called = _ADDRESSES.get(access.kind, name) if name == "base_url" else name
        if value is None:
            continue
        if called not in inspect.signature(kind.__init__).parameters:
            raise InvalidRequestError(f"{access.kind} takes no {name}")
        options[called] = value
    try:
        provider = kind(**options)
        _tame(provider.client)
    except UserError as error:
        variables = ", ".join(dict.fromkeys(_VARIABLE.findall(str(error)))) or "its variables"
        raise AuthenticationError(f"{access.kind}: no key or address; set {variables}") from None
    return Other(access, provider)
