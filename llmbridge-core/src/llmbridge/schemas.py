"""What callers send and get: requests, responses, records of calls, models, usage."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date as Date  # noqa: N812  a field is called `date`, as upstream's is
from datetime import datetime
from decimal import Decimal
from typing import Any, Literal, Self
from uuid import UUID

from pydantic import BaseModel as PydanticModel
from pydantic import ConfigDict

CallStatus = Literal["success", "error", "timeout", "rate_limited", "cancelled"]
UsageSource = Literal["provider", "partial", "estimated", "synthetic", "none"]
CostSource = Literal["prices", "own_prices", "provider", "caller"]
CostReason = Literal["unknown_model", "unmeasured_usage", "missing_rate", "not_billed", "synthetic"]
RecordStatus = Literal["committed", "spooled", "lost"]


class BaseModel(PydanticModel):
    """What all have in common: they are made ready at first use, so that importing them is cheap."""

    model_config = ConfigDict(defer_build=True, hide_input_in_errors=True)


class Message(BaseModel):
    """One message of a conversation, in OpenAI's form: `content` is text, a list of content parts, or None."""

    role: Literal["system", "user", "assistant", "tool"]
    content: Any = None
    tool_calls: list[dict[str, Any]] | None = None
    tool_call_id: str | None = None
    timestamp: datetime | None = None


class LLMRequest(BaseModel):
    """A request to a model.

    `model` is `vendor:name`, or a bare name whose vendor is well known (`gpt-4o`); of several the next is asked where
    one fails. What is None is not sent. `timeout` is in seconds, for one attempt, and replaces the bridge's.
    `response_format` is a format in OpenAI's form, or a pydantic model whose JSON schema the answer shall follow.
    `extra` reaches the vendor's request body unchanged. `metadata` goes onto the record of the call and never to the
    vendor.
    """

    model_config = ConfigDict(extra="forbid")

    messages: list[Message]
    model: str | list[str] | None = None
    temperature: float | None = None
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
    extra: dict[str, Any] | None = None

    @property
    def wants_json(self) -> bool:
        """Whether the answer is to be JSON: `response_format` decides, and without one `json_response`."""
        if self.response_format is None:
            return bool(self.json_response)
        if isinstance(self.response_format, dict):
            return self.response_format.get("type") in ("json_object", "json_schema")
        return True


class TokenUsage(BaseModel):
    """The tokens of one call, counted alike for every vendor. None means not measured, never 0.

    `prompt_tokens` is all input, cached included; `completion_tokens` all output, reasoning included. The others are
    subsets: of the input what was read from a cache and what was written to one, of the latter what is kept for an
    hour, of the output the reasoning. `source` says who counted: the vendor, the vendor in part (a cut stream), an
    estimate, or nobody real (`synthetic`).
    """

    model_config = ConfigDict(frozen=True)

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cache_read_tokens: int | None = None
    cache_write_tokens: int | None = None
    cache_write_1h_tokens: int | None = None
    reasoning_tokens: int | None = None
    source: UsageSource = "provider"

    @property
    def total_tokens(self) -> int | None:
        """Input and output together; None when either was not measured."""
        if self.prompt_tokens is None or self.completion_tokens is None:
            return None
        return self.prompt_tokens + self.completion_tokens


class LLMResponse(BaseModel):
    """A model's answer and its entry in the books.

    `usage` has `prompt_tokens`, `completion_tokens`, `total_tokens` (None: not measured), and `cost` only when
    the call was priced. `cost` is in dollars; None comes with its `cost_reason`. `call_id` is the id of the
    record and `record_status` what became of it; both are None without a database. `parsed` is the answer as
    data where JSON was asked for, and an instance of the model where `response_format` was one. An answer that is
    not what was asked for leaves it None, and `parse_error` then says why, by the names of fields and no values.
    """

    content: str
    model: str
    usage: dict[str, Any] | None = None
    finish_reason: str | None = None
    tool_calls: list[dict[str, Any]] | None = None
    provider: str | None = None
    cost: Decimal | None = None
    cost_reason: CostReason | None = None
    call_id: UUID | None = None
    record_status: RecordStatus | None = None
    parsed: Any = None
    parse_error: str | None = None


class LLMChunk(BaseModel):
    """A piece of an answer as it comes: the `content` that is new. The last one has the whole `response`, with usage
    and cost, and no content."""

    model_config = ConfigDict(frozen=True)

    content: str = ""
    response: LLMResponse | None = None


class LLMModel(BaseModel):
    """What is known of a model. It describes and never prices: rates here change no cost by themselves.

    `max_context` and `max_output_tokens` are in tokens, rates in dollars per million tokens; None is unknown.
    `inactive_from` is when the model was retired (None: in use). `source` is `user` or `catalog VERSION`.
    `id` is made by core from provider and name, the same in every store.
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
    dollars_per_million_tokens_input: Decimal | None = None
    dollars_per_million_tokens_output: Decimal | None = None
    source: str = "user"
    inactive_from: datetime | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None

    @property
    def is_active(self) -> bool:
        """Whether the model is still in use."""
        return self.inactive_from is None


class CallRecord(BaseModel):
    """One attempt at one call, as it stands in the books.

    Tokens are None when not measured. Costs are dollars, exact to 1e-12; `estimated_cost` is None when unknown
    and `cost_reason` then says why. The two rates are the dollars per million tokens that were used.
    Times are milliseconds. `called_at` is the start of the attempt (UTC). `attempt` counts from 1; the attempts
    of one request share `group_id`. After a reprice `previous_cost` and `previous_cost_reason` are what stood
    before.
    """

    model_config = ConfigDict(frozen=True)

    id: UUID
    origin: str
    id_at_origin: str | None = None
    provider: str
    model_name: str
    requested_model: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None
    cache_read_tokens: int | None = None
    cache_write_tokens: int | None = None
    cache_write_1h_tokens: int | None = None
    reasoning_tokens: int | None = None
    usage_source: UsageSource = "none"
    estimated_cost: Decimal | None = None
    cost_source: CostSource | None = None
    cost_reason: CostReason | None = None
    dollars_per_million_tokens_input_used: Decimal | None = None
    dollars_per_million_tokens_output_used: Decimal | None = None
    price_version: str | None = None
    previous_cost: Decimal | None = None
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
        """The record of a value for every field, in the order of the fields and in canonical form. For stores that read
        what was recorded: nothing is checked, which takes longer than the rest, and `values` becomes the record's own.
        """
        record = cls.__new__(cls)
        _put_values(record, values)
        _put_names(record, _EVERY_FIELD)
        _put_extra(record, None)
        _put_private(record, None)
        return record


_put_values, _put_names, _put_extra, _put_private = (
    vars(PydanticModel)[slot].__set__
    for slot in ("__dict__", "__pydantic_fields_set__", "__pydantic_extra__", "__pydantic_private__")
)
#: Shared by records that are frozen; pydantic copies it where it makes another record of one.
_EVERY_FIELD = set(CallRecord.model_fields)


class UsageStats(BaseModel):
    """Usage of an origin or of one of its users since `since` (UTC). Fields can be read as items too.

    `total_calls` counts attempts, `total_requests` first attempts. `total_tokens` and `total_cost` (dollars)
    leave out `unmeasured_calls` and `unpriced_calls`. `avg_cost_per_call` is over the calls that are not
    unpriced, None when there is none. `success_rate` is 0 to 1. `avg_response_time_ms` is over successful calls.
    """

    model_config = ConfigDict(frozen=True)

    since: datetime
    total_calls: int
    total_requests: int
    total_tokens: int
    total_cost: Decimal
    unpriced_calls: int
    unmeasured_calls: int
    avg_cost_per_call: Decimal | None
    most_used_model: str | None
    success_rate: Decimal
    avg_response_time_ms: int | None

    def __getitem__(self, field: str) -> Any:
        if field not in type(self).model_fields:
            raise KeyError(field)
        return getattr(self, field)

    def keys(self) -> Iterator[str]:
        """The fields, so that `dict(stats)` and `**stats` work."""
        return iter(type(self).model_fields)


class DailyAnalytics(BaseModel):
    """Usage of one origin, user, vendor and model on one day.

    Tokens and `total_cost` (dollars, exact) leave out `unmeasured_calls` and `unpriced_calls`. `success_rate` is 0 to
    1. `avg_response_time_ms` is over successful calls (None: none was timed).
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
    total_cost: Decimal
    unpriced_calls: int
    unmeasured_calls: int
    avg_response_time_ms: int | None
    success_rate: Decimal
    error_count: int
    timeout_count: int
    rate_limit_count: int
    cancelled_count: int
