"""The client for every other provider that pydantic-ai knows by its prefix."""

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
from ..endpoint import Endpoint
from ..table import PROVIDERS
from . import messages
from .client import Call, ProviderClient, with_settings
from .usage import UsageTap, none_if_empty

#: The name of the option for the address in pydantic-ai, if it is not `base_url`.
_ADDRESS_OPTIONS = {"azure": "azure_endpoint", "litellm": "api_base"}

_VARIABLE = re.compile(r"`([A-Z][A-Z0-9_]{2,})`")


class GenericClient(ProviderClient):
    """A client that calls a provider as pydantic-ai does.

    pydantic-ai does not distinguish zero from "not reported", so a count of 0 is taken as not reported.
    """

    takes = frozenset({"image", "image url", "pdf"})

    def __init__(self, endpoint: Endpoint, provider: Provider[Any]) -> None:
        super().__init__(endpoint)
        self._provider = provider

    @property
    def url(self) -> str:
        """Return the base URL of requests."""
        return self._provider.base_url

    def model(self, name: str, tap: UsageTap) -> Model[Any]:
        """Return pydantic-ai's model of that name."""
        return infer_model(f"{self.endpoint.kind}:{name}", lambda _: self._provider)

    def reported_usage(self, tap: UsageTap, answer: ModelResponse | StreamedResponse) -> RequestUsage:
        """Return the counts as pydantic-ai has them; a copy, since a stream adds to its own."""
        tap.add_price_context(answer.provider_details, "service_tier", "traffic_type")
        tap.add_model(answer.model_name)
        return replace(answer.usage)

    def usage(self, reported: RequestUsage) -> TokenUsage | None:
        """Return pydantic-ai's counts: input includes cached tokens, output includes reasoning."""
        counts = {field.name: getattr(reported, field.name) for field in fields(reported)}
        return none_if_empty(
            TokenUsage(
                prompt_tokens=counts["input_tokens"] or None,
                completion_tokens=counts["output_tokens"] or None,
                cache_read_tokens=counts["cache_read_tokens"] or None,
                cache_write_tokens=counts["cache_write_tokens"] or None,
                reasoning_tokens=reported.output_reasoning_tokens or None,
            )
        )

    def has_ended(self, tap: UsageTap, answer: ModelResponse) -> bool:
        """Return whether the provider sent a finish reason; pydantic-ai sets one itself if it did not."""
        return bool((answer.provider_details or {}).get("finish_reason"))

    def adapt(self, call: Call, request: LLMRequest, tools: list[conversation.Tool]) -> Call:
        """Add the options in OpenAI's format if the provider speaks that protocol, else as pydantic-ai does."""
        ignored = call.model._unsupported_settings()
        if "max_retries" not in ignored and not hasattr(self._provider.client, "max_retries"):
            call = with_settings(call, max_retries=0)
        if "timeout" in ignored:
            call = replace(call, settings=_without_timeout(call.settings))
        if self._speaks_openai(call.model):
            from .chat_completions import body

            return with_settings(call, extra_body=body(request, tools))
        if any(part.url is not None for part in messages.media(request)):
            raise InvalidRequestError(f"{self.endpoint.kind} does not take a URL; send the bytes as a data URL")
        call = with_settings(
            call, tool_choice=messages.tool_choice(request, tools), extra_body=conversation.extra_body(request)
        )
        form = conversation.response_format(request)
        if form == "text":
            return call
        can = call.model.profile.get("supports_json_schema_output", False)
        if not can or not isinstance(form, conversation.ResponseSchema):
            raise InvalidRequestError(f"{self.endpoint.kind} does not support this response_format")
        asked = OutputObjectDefinition(form.schema, form.name, form.description, form.strict)
        return replace(call, parameters=replace(call.parameters, output_mode="native", output_object=asked))

    @staticmethod
    def _speaks_openai(model: Model[Any]) -> bool:
        # OpenAI's SDK need not be installed for the others.
        return any(kind.__name__ == "OpenAIChatModel" for kind in type(model).__mro__)

    async def close(self) -> None:
        """Close the connections, unless the HTTP client is the caller's."""
        async with self._provider:
            pass


def _without_timeout(settings: Any) -> Any:
    return {name: value for name, value in settings.items() if name != "timeout"}


def _configure(client: Any, endpoint: Endpoint) -> None:
    """Switch off retries, and keep from the requests what SDKs read from the environment for another address.

    OpenAI's SDK reads an organization, a project and headers for OpenAI, whichever server it is used for.
    """
    if hasattr(client, "max_retries"):  # as a setting of the call it would make a new client, which reads all again
        client.max_retries = 0
    if hasattr(client, "organization"):
        client.organization = client.project = None
    if not hasattr(client, "_custom_headers"):
        return
    foreign = [*PROVIDERS["openai"].variables.headers]
    if not endpoint.from_environment:
        foreign += PROVIDERS[endpoint.kind].variables.headers
    lines = [line for variable in foreign for line in os.environ.get(variable, "").split("\n")]
    dropped = {line.partition(":")[0].strip().lower() for line in lines}
    client._custom_headers = {
        name: text for name, text in client._custom_headers.items() if name.lower() not in dropped
    }


def load(kind: str) -> None:
    """Import the SDK of a provider.

    :raises ImportError: it is not installed
    """
    infer_provider_class(kind)


def open_client(endpoint: Endpoint) -> GenericClient:
    """Return a client for the endpoint.

    :raises AuthenticationError: a key, or another setting that is read from the environment, is missing
    :raises InvalidRequestError: the provider does not have one of the options
    """
    kind = infer_provider_class(endpoint.kind)
    given = {"api_key": endpoint.api_key, "base_url": endpoint.base_url, "http_client": endpoint.http_client}
    if not endpoint.from_environment:
        given["api_key"] = endpoint.key
    options = {}
    for name, value in given.items():
        called = _ADDRESS_OPTIONS.get(endpoint.kind, name) if name == "base_url" else name
        if value is None:
            continue
        if called not in inspect.signature(kind.__init__).parameters:
            raise InvalidRequestError(f"{endpoint.kind} takes no {name}")
        options[called] = value
    try:
        provider = kind(**options)
        _configure(provider.client, endpoint)
    except UserError as error:
        variables = ", ".join(dict.fromkeys(_VARIABLE.findall(str(error)))) or "its variables"
        raise AuthenticationError(f"{endpoint.kind}: no key or address; set {variables}") from None
    return GenericClient(endpoint, provider)
