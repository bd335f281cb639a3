"""Data types of the public API: requests, responses, call records, models and usage."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date as Date  # noqa: N812  a field is called `date`, as upstream's is
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, Literal, Self, TypeVar
from uuid import UUID

from pydantic import BaseModel as PydanticModel
from pydantic import ConfigDict, Field, PlainSerializer, model_validator

from ._shared.money import text as money_text
from ._shared.spelling import hint

CallStatus = Literal["success", "error", "timeout", "rate_limited", "cancelled"]
UsageSource = Literal["provider", "partial", "estimated", "synthetic", "none"]
CostSource = Literal["prices", "own_prices", "provider", "caller"]
CostReason = Literal["unknown_model", "unmeasured_usage", "missing_rate", "not_billed", "synthetic"]
RecordStatus = Literal["committed", "spooled", "lost"]


#: Dollars, exact. In JSON it is text without an exponent: `0.0000045`.
Money = Annotated[Decimal, PlainSerializer(money_text, return_type=str, when_used="json")]


class BaseModel(PydanticModel):
    """Common base class. Validators are built at first use, so that the import is cheap."""

    model_config = ConfigDict(defer_build=True, hide_input_in_errors=True)


class Result(BaseModel):
    """Common base class of what public methods return: it does not change, and serialises with money as text."""

    model_config = ConfigDict(frozen=True)


AnyModel = TypeVar("AnyModel", bound=BaseModel)


class Message(BaseModel):
    """One message of a conversation, in OpenAI's format: `content` is text, a list of content parts, or None.

    Its repr shows no content, so that no log or traceback contains a prompt.
    """

    role: Literal["system", "user", "assistant", "tool"]
    content: Any = Field(default=None, repr=False)
    tool_calls: list[dict[str, Any]] | None = Field(default=None, repr=False)
    tool_call_id: str | None = None
    timestamp: datetime | None = None


class LLMRequest(BaseModel):
    """A request to a model.

    `model` is `provider:name`, or a bare name whose provider is known (`gpt-4o`). If it is a list, the next model is
    called when one fails. Fields that are None are not sent. `timeout` is in seconds, for one attempt, and replaces
    that of the bridge. `response_format` is a format as in OpenAI's API, or a pydantic model whose JSON schema the
    response must follow. `extra` is added to the body of the provider's request unchanged; it takes the parameters that
    are no field here. `metadata` is stored in the record of the call and never sent to the provider. So is
    `price_context`, the terms of the price that no response tells, such as `{"processing": "batch"}`; what a response
    tells has priority.
    """

    model_config = ConfigDict(extra="forbid")

    messages: list[Message]
    model: str | list[str]
    temperature: float | None = None
    top_p: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    max_tokens: int | None = None
    stop: str | list[str] | None = None
    seed: int | None = None
    timeout: float | None = None
    response_format: dict[str, Any] | type[PydanticModel] | None = None
    json_response: bool | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    cache: dict[str, Any] | None = None
    metadata: dict[str, Any] | None = None
    price_context: dict[str, str] | None = None
    extra: dict[str, Any] | None = Field(default=None, repr=False)

    @model_validator(mode="before")
    @classmethod
    def _name_unknown_fields(cls, given: Any) -> Any:
        unknown = sorted(given.keys() - cls.model_fields.keys()) if isinstance(given, dict) else []
        if unknown:
            close = hint(unknown[0], cls.model_fields)
            raise ValueError(
                f"LLMRequest has no field {unknown[0]!r}{close}; a parameter of the provider's API that is no field "
                "here goes into `extra`"
            )
        return given

    @property
    def wants_json(self) -> bool:
        """Whether the response must be JSON: as `response_format` says, or `json_response` if there is none."""
        if self.response_format is None:
            return bool(self.json_response)
        if isinstance(self.response_format, dict):
            return self.response_format.get("type") in ("json_object", "json_schema")
        return True


class TokenUsage(BaseModel):
    """Tokens of one call, counted in the same way for every provider. None means not measured, never 0.

    `prompt_tokens` is all input, with cached tokens; `completion_tokens` all output, with reasoning. The others are
    subsets: `cache_read_tokens` and `cache_write_tokens` of the input, `cache_write_1h_tokens` (kept for an hour) of
    `cache_write_tokens`, `reasoning_tokens` of the output. `source` says who counted: the provider, the provider until
    the response broke off (`partial`), an estimate, or none because no provider was called (`synthetic`).

    `usage_details` are all further counts, by the names of units in genai-prices (`input_audio_tokens`,
    `web_searches`); those of tokens are subsets too. `price_context` is what the response says of the terms of its
    price, as it spells them (`service_tier`, `speed`). `response_model` is the model that it names; a provider sets it
    if the response broke off, since a `Completion` has it otherwise.
    """

    model_config = ConfigDict(frozen=True)

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cache_read_tokens: int | None = None
    cache_write_tokens: int | None = None
    cache_write_1h_tokens: int | None = None
    reasoning_tokens: int | None = None
    usage_details: dict[str, int] | None = None
    price_context: dict[str, str] | None = None
    response_model: str | None = None
    source: UsageSource = "provider"

    @property
    def total_tokens(self) -> int | None:
        """Input and output together; None if either was not measured."""
        if self.prompt_tokens is None or self.completion_tokens is None:
            return None
        return self.prompt_tokens + self.completion_tokens


class LLMResponse(BaseModel):
    """Response of a model, with its cost and the state of its record.

    `usage` has `prompt_tokens`, `completion_tokens`, `total_tokens` (None: not measured), and `cost` only if the call
    was priced. `cost` is in dollars; if it is None, `cost_reason` says why. `call_id` is the id of the record and
    `record_status` says where it is; both are None without a database. `parsed` is the response as data if JSON was
    requested: an instance of the model if `response_format` is a pydantic model. If the response does not match,
    `parsed` is None and `parse_error` says why; it names fields and contains no values.
    """

    content: str
    model: str
    usage: dict[str, Any] | None = None
    finish_reason: str | None = None
    tool_calls: list[dict[str, Any]] | None = None
    provider: str | None = None
    cost: Money | None = None
    cost_reason: CostReason | None = None
    call_id: UUID | None = None
    record_status: RecordStatus | None = None
    parsed: Any = None
    parse_error: str | None = None


class LLMChunk(BaseModel):
    """Part of a streamed response: the new text in `content`. The last chunk has no content, but the whole `response`
    with usage and cost."""

    model_config = ConfigDict(frozen=True)

    content: str = ""
    response: LLMResponse | None = None


class LLMModel(BaseModel):
    """Description of a model. Its rates are for information: they do not change the cost of calls by themselves.

    `max_context` and `max_output_tokens` are in tokens, rates in dollars per million tokens; None is unknown.
    `inactive_from` is when the model was retired (None: it is in use). `source` is `user` or `catalog VERSION`.
    `id` is computed from provider and name; it is the same in every database.
    """

    id: int | None = None
    provider: str
    model_name: str
    display_name: str | None = None
    description: str | None = None
    max_context: int | None = None
    max_output_tokens: int | None = None
    supports_vision: bool = False
    supports_function_calling: bool = False
    supports_json_mode: bool = False
    supports_parallel_tool_calls: bool = False
    tool_call_format: str | None = None
    dollars_per_million_tokens_input: Money | None = None
    dollars_per_million_tokens_output: Money | None = None
    source: str = "user"
    inactive_from: datetime | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None

    @property
    def is_active(self) -> bool:
        """Whether the model is still in use."""
        return self.inactive_from is None


class CallRecord(BaseModel):
    """Record of one attempt at a call.

    Tokens are None if they were not measured. `usage_details` are further counts, by the names of units in
    genai-prices. `requested_model` is the caller's text, `model_name` the name that was sent, `response_model` the name
    in the answer. Costs are dollars, exact to 1e-12; if `estimated_cost` is None, `cost_reason` says why. The two rates
    are those that the cost was computed with, in dollars per million tokens. `price_context` is what the answer tells
    of the terms of its price, as it spells them, and `price_factor` multiplied the list price (None: nothing did).
    Durations are milliseconds. `called_at` is the start of the attempt (UTC). `attempt` counts from 1; all attempts of
    one call share `group_id`. After a reprice, `previous_cost` and `previous_cost_reason` are the values before it.
    """

    model_config = ConfigDict(frozen=True)

    id: UUID
    origin: str
    id_at_origin: str | None = None
    provider: str
    model_name: str
    requested_model: str | None = None
    response_model: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None
    cache_read_tokens: int | None = None
    cache_write_tokens: int | None = None
    cache_write_1h_tokens: int | None = None
    reasoning_tokens: int | None = None
    usage_details: dict[str, int] | None = None
    usage_source: UsageSource = "none"
    estimated_cost: Money | None = None
    cost_source: CostSource | None = None
    cost_reason: CostReason | None = None
    dollars_per_million_tokens_input_used: Money | None = None
    dollars_per_million_tokens_output_used: Money | None = None
    price_context: dict[str, str] | None = None
    price_version: str | None = None
    price_factor: Money | None = None
    previous_cost: Money | None = None
    previous_cost_reason: CostReason | None = None
    repriced_at: datetime | None = None
    response_time_ms: int | None = None
    time_to_first_token_ms: int | None = None
    stream: bool = False
    finish_reason: str | None = None
    response_id: str | None = None
    attempt: int = 1
    group_id: UUID | None = None
    temperature: float | None = None
    max_tokens: int | None = None
    tools_used: list[str] | None = None
    system_prompt_hash: str | None = None
    status: CallStatus = "success"
    error_type: str | None = None
    error_message: str | None = None
    metadata: dict[str, Any] | None = None
    called_at: datetime

    @classmethod
    def from_values(cls, values: dict[str, Any]) -> Self:
        """Return a record without validation, for backends that read stored records.

        `values` has a value in canonical form for every field, in the order of the fields. The record keeps the dict
        itself. Validation would take longer than everything else.
        """
        return construct(cls, values, _EVERY_FIELD)


def construct(
    cls: type[AnyModel], values: dict[str, Any], names: set[str], private: dict[str, Any] | None = None
) -> AnyModel:
    """Return an instance of a model without validation, in a fraction of the time of `model_construct`.

    :param values: a value for every field, in the order of the fields; the instance keeps the dict
    :param names: the names of all fields; instances share the set, and pydantic copies it when it copies one of them
    :param private: the values of private attributes
    """
    instance = cls.__new__(cls)
    _put_values(instance, values)
    _put_names(instance, names)
    _put_extra(instance, None)
    _put_private(instance, private)
    return instance


_put_values, _put_names, _put_extra, _put_private = (
    vars(PydanticModel)[slot].__set__
    for slot in ("__dict__", "__pydantic_fields_set__", "__pydantic_extra__", "__pydantic_private__")
)
_EVERY_FIELD = set(CallRecord.model_fields)


class UsageStats(BaseModel):
    """Usage of an origin, or of one of its users, since `since` (UTC). Fields can be read as items too.

    `total_calls` counts attempts, `total_requests` first attempts. `total_tokens` and `total_cost` (dollars) do not
    include `unmeasured_calls` and `unpriced_calls`. `avg_cost_per_call` is the mean over calls that are not unpriced
    (None: there are none). `success_rate` is 0 to 1. `avg_response_time_ms` is the mean over successful calls.
    """

    model_config = ConfigDict(frozen=True)

    since: datetime
    total_calls: int
    total_requests: int
    total_tokens: int
    total_cost: Money
    unpriced_calls: int
    unmeasured_calls: int
    avg_cost_per_call: Money | None
    most_used_model: str | None
    success_rate: Money
    avg_response_time_ms: int | None

    def __getitem__(self, field: str) -> Any:
        if field not in type(self).model_fields:
            raise KeyError(field)
        return getattr(self, field)

    def keys(self) -> Iterator[str]:
        """Yield the fields, so that `dict(stats)` and `**stats` work."""
        return iter(type(self).model_fields)


class DailyAnalytics(BaseModel):
    """Usage of one origin, user, provider and model on one day.

    Tokens and `total_cost` (dollars, exact) do not include `unmeasured_calls` and `unpriced_calls`. `success_rate` is 0
    to 1. `avg_response_time_ms` is the mean over successful calls (None: none was timed).
    """

    model_config = ConfigDict(frozen=True)

    origin: str
    id_at_origin: str | None
    date: Date
    provider: str
    model_name: str
    total_calls: int
    total_tokens: int
    total_prompt_tokens: int
    total_completion_tokens: int
    total_cost: Money
    unpriced_calls: int
    unmeasured_calls: int
    avg_response_time_ms: int | None
    success_rate: Money
    error_count: int
    timeout_count: int
    rate_limit_count: int
    cancelled_count: int
