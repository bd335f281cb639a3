"""Conversion of records to rows and back.

A row is a tuple in the order of the columns that are listed here. Money is an integer of units of 1e-12 dollar, a time
an integer of microseconds since 1970 in UTC, a UUID its 16 bytes, a bool 0 or 1. Lists and mappings are compact JSON
text.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from operator import itemgetter
from typing import Any
from uuid import UUID

from llmbridge.storage import CallRecord, LLMModel, ModelPrice, encode_json, from_units, to_units
from llmbridge.storage.histogram import bucket

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

#: Fields of a call that are stored without conversion.
_PLAIN = (
    "origin",
    "id_at_origin",
    "provider",
    "model_name",
    "status",
    "attempt",
    "prompt_tokens",
    "completion_tokens",
    "total_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "cache_write_1h_tokens",
    "reasoning_tokens",
    "cost_reason",
    "response_time_ms",
    "time_to_first_token_ms",
    "error_type",
    "requested_model",
    "response_model",
    "usage_source",
    "cost_source",
    "price_version",
    "previous_cost_reason",
    "finish_reason",
    "response_id",
    "temperature",
    "max_tokens",
    "system_prompt_hash",
    "error_message",
)
_CONVERTED = (
    "id",
    "called_at",
    "estimated_cost",
    "dollars_per_million_tokens_input_used",
    "dollars_per_million_tokens_output_used",
    "previous_cost",
    "repriced_at",
    "stream",
    "group_id",
    "tools_used",
    "metadata",
    "usage_details",
    "price_context",
    "price_factor",
)
_get_plain = itemgetter(*_PLAIN)
_get_converted = itemgetter(*_CONVERTED)

#: Cached, because each call of a model has the same rates.
_rate_units = lru_cache(maxsize=4096)(to_units)

#: The columns that are read of a call, and those that are written: the same columns and the buckets.
CALL_FIELDS = (*_CONVERTED, *_PLAIN)
CALL_COLUMNS = (*CALL_FIELDS, "response_bucket", "first_token_bucket")

_MODEL_PLAIN = (
    "provider",
    "model_name",
    "id",
    "display_name",
    "description",
    "max_context",
    "max_output_tokens",
    "tool_call_format",
    "source",
)
_MODEL_FLAGS = (
    "supports_vision",
    "supports_function_calling",
    "supports_json_mode",
    "supports_parallel_tool_calls",
)
_MODEL_RATES = ("dollars_per_million_tokens_input", "dollars_per_million_tokens_output")
_MODEL_TIMES = ("inactive_from", "created_at", "updated_at")
MODEL_COLUMNS = (*_MODEL_PLAIN, *_MODEL_FLAGS, *_MODEL_RATES, *_MODEL_TIMES)

_RATES = ("input", "output", "cache_read", "cache_write", "cache_write_1h")
PRICE_COLUMNS = ("provider", "model_name", "context", "effective_from", *_RATES, "rates", "factor")


def to_micros(at: datetime) -> int:
    """Return the microseconds since 1970 of an aware time."""
    since = at - _EPOCH
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def from_micros(micros: int) -> datetime:
    """Return the UTC time of microseconds since 1970."""
    return _EPOCH + timedelta(microseconds=micros)


def encode_call(call: CallRecord) -> tuple[Any, ...]:
    """Return the row of a call, in the order of CALL_COLUMNS."""
    values = vars(call)
    (
        id_,
        called_at,
        cost,
        input_rate,
        output_rate,
        previous,
        repriced_at,
        stream,
        group,
        tools,
        metadata,
        details,
        context,
        factor,
    ) = _get_converted(values)
    succeeded = call.status == "success"
    response, first_token = call.response_time_ms, call.time_to_first_token_ms
    return (
        id_.bytes,
        to_micros(called_at),
        None if cost is None else to_units(cost),
        None if input_rate is None else _rate_units(input_rate),
        None if output_rate is None else _rate_units(output_rate),
        None if previous is None else to_units(previous),
        None if repriced_at is None else to_micros(repriced_at),
        int(stream),
        None if group is None else group.bytes,
        None if tools is None else encode_json(tools),
        None if metadata is None else encode_json(metadata),
        None if details is None else encode_json(details),
        None if context is None else encode_json(context),
        None if factor is None else _rate_units(factor),
        *_get_plain(values),
        bucket(response) if succeeded and response is not None else None,
        bucket(first_token) if succeeded and first_token is not None else None,
    )


def decode_call(row: tuple[Any, ...]) -> CallRecord:
    """Return the call of a row in the order of CALL_FIELDS."""
    fields: dict[str, Any] = dict.fromkeys(CallRecord.model_fields)
    fields.update(zip(CALL_FIELDS, row, strict=True))
    fields["id"] = UUID(bytes=fields["id"])
    fields["called_at"] = from_micros(fields["called_at"])
    fields["estimated_cost"] = _dollars(fields["estimated_cost"])
    fields["dollars_per_million_tokens_input_used"] = _dollars(fields["dollars_per_million_tokens_input_used"])
    fields["dollars_per_million_tokens_output_used"] = _dollars(fields["dollars_per_million_tokens_output_used"])
    fields["previous_cost"] = _dollars(fields["previous_cost"])
    fields["repriced_at"] = _time(fields["repriced_at"])
    fields["stream"] = bool(fields["stream"])
    fields["group_id"] = None if fields["group_id"] is None else UUID(bytes=fields["group_id"])
    fields["tools_used"] = None if fields["tools_used"] is None else json.loads(fields["tools_used"])
    fields["metadata"] = None if fields["metadata"] is None else json.loads(fields["metadata"])
    fields["usage_details"] = None if fields["usage_details"] is None else json.loads(fields["usage_details"])
    fields["price_context"] = None if fields["price_context"] is None else json.loads(fields["price_context"])
    fields["price_factor"] = _dollars(fields["price_factor"])
    return CallRecord.from_values(fields)


def encode_model(model: LLMModel) -> tuple[Any, ...]:
    """Return the row of a model, in the order of MODEL_COLUMNS."""
    return (
        *(getattr(model, name) for name in _MODEL_PLAIN),
        *(int(getattr(model, name)) for name in _MODEL_FLAGS),
        *(_units(getattr(model, name)) for name in _MODEL_RATES),
        *(_micros(getattr(model, name)) for name in _MODEL_TIMES),
    )


def decode_model(row: tuple[Any, ...]) -> LLMModel:
    """Return the model of a row in the order of MODEL_COLUMNS."""
    fields = dict(zip(MODEL_COLUMNS, row, strict=True))
    fields.update({name: bool(fields[name]) for name in _MODEL_FLAGS})
    fields.update({name: _dollars(fields[name]) for name in _MODEL_RATES})
    fields.update({name: _time(fields[name]) for name in _MODEL_TIMES})
    return LLMModel.model_construct(**fields)


def encode_price(price: ModelPrice) -> tuple[Any, ...]:
    """Return the row of an own price, in the order of PRICE_COLUMNS."""
    rates = (_units(getattr(price, name)) for name in _RATES)
    others = encode_json({unit: to_units(rate) for unit, rate in price.rates.items()}) if price.rates else None
    key = (price.provider, price.model_name, price.context_text, to_micros(price.effective_from))
    return (*key, *rates, others, _units(price.factor))


def decode_price(row: tuple[Any, ...]) -> ModelPrice:
    """Return the own price of a row in the order of PRICE_COLUMNS."""
    provider, model_name, context, effective_from, *rates, others, factor = row
    of_input, of_output, cache_read, cache_write, cache_write_1h = rates
    return ModelPrice(
        provider,
        model_name,
        from_micros(effective_from),
        input=_dollars(of_input),
        output=_dollars(of_output),
        cache_read=_dollars(cache_read),
        cache_write=_dollars(cache_write),
        cache_write_1h=_dollars(cache_write_1h),
        rates={unit: from_units(units) for unit, units in json.loads(others or "{}").items()},
        context=json.loads(context),
        factor=_dollars(factor),
    )


def _units(dollars: Decimal | None) -> int | None:
    return None if dollars is None else to_units(dollars)


def _dollars(units: int | None) -> Decimal | None:
    return None if units is None else from_units(units)


def _micros(at: datetime | None) -> int | None:
    return None if at is None else to_micros(at)


def _time(micros: int | None) -> datetime | None:
    return None if micros is None else from_micros(micros)
