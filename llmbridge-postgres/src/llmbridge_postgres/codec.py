"""Conversion of records to rows and back.

A row is a tuple in the order of the columns that are listed here, with the Python types that asyncpg takes. Money is an
integer of units of 1e-12 dollar. Lists and mappings are compact JSON text.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache
from operator import itemgetter
from typing import Any
from uuid import UUID

from llmbridge.storage import CallRecord, LLMModel, ModelPrice, encode_json, from_units, to_units
from llmbridge.storage.histogram import bucket

#: Fields of a call that are stored without conversion, with the PostgreSQL types that they are sent as.
_PLAIN = {
    "called_at": "timestamptz",
    "origin": "text",
    "id_at_origin": "text",
    "provider": "text",
    "model_name": "text",
    "status": "text",
    "attempt": "bigint",
    "prompt_tokens": "bigint",
    "completion_tokens": "bigint",
    "total_tokens": "bigint",
    "cache_read_tokens": "bigint",
    "cache_write_tokens": "bigint",
    "cache_write_1h_tokens": "bigint",
    "reasoning_tokens": "bigint",
    "cost_reason": "text",
    "response_time_ms": "bigint",
    "time_to_first_token_ms": "bigint",
    "error_type": "text",
    "requested_model": "text",
    "response_model": "text",
    "usage_source": "text",
    "cost_source": "text",
    "price_version": "text",
    "previous_cost_reason": "text",
    "repriced_at": "timestamptz",
    "stream": "boolean",
    "finish_reason": "text",
    "response_id": "text",
    "temperature": "double precision",
    "max_tokens": "bigint",
    "system_prompt_hash": "text",
    "error_message": "text",
}
_CONVERTED = {
    "id": "uuid",
    "group_id": "uuid",
    "estimated_cost": "bigint",
    "dollars_per_million_tokens_input_used": "bigint",
    "dollars_per_million_tokens_output_used": "bigint",
    "previous_cost": "bigint",
    "tools_used": "text",
    "metadata": "text",
    "usage_details": "text",
    "price_context": "text",
    "price_factor": "bigint",
}
_get_plain = itemgetter(*_PLAIN)
_get_converted = itemgetter(*_CONVERTED)

#: Cached, because each call of a model has the same rates.
_rate_units = lru_cache(maxsize=4096)(to_units)

#: The columns that are read of a call, and those that are written, with their types, in the order of the type
#: `llmbridge_incoming`: the same columns and the buckets.
CALL_FIELDS = (*_CONVERTED, *_PLAIN)
CALL_COLUMNS = {**_CONVERTED, **_PLAIN, "response_bucket": "integer", "first_token_bucket": "integer"}
#: These columns are sent and read as text, because connections of a host application may have codecs for JSON.
JSON_COLUMNS = ("tools_used", "metadata", "usage_details", "price_context", "rates")

_MODEL_RATES = ("dollars_per_million_tokens_input", "dollars_per_million_tokens_output")
_MODEL_TIMES = ("inactive_from", "created_at", "updated_at")
MODEL_COLUMNS = {
    "provider": "text",
    "model_name": "text",
    "id": "bigint",
    "display_name": "text",
    "description": "text",
    "max_context": "bigint",
    "max_output_tokens": "bigint",
    "tool_call_format": "text",
    "source": "text",
    "supports_vision": "boolean",
    "supports_function_calling": "boolean",
    "supports_json_mode": "boolean",
    "supports_parallel_tool_calls": "boolean",
    **dict.fromkeys(_MODEL_TIMES, "timestamptz"),
    **dict.fromkeys(_MODEL_RATES, "bigint"),
}

_RATES = ("input", "output", "cache_read", "cache_write", "cache_write_1h")
PRICE_COLUMNS = {
    "provider": "text",
    "model_name": "text",
    "context": "text",
    "effective_from": "timestamptz",
    **dict.fromkeys(_RATES, "bigint"),
    "rates": "text",
    "factor": "bigint",
}


def encode_call(call: CallRecord) -> tuple[Any, ...]:
    """Return the row of a call, in the order of CALL_COLUMNS."""
    values = vars(call)
    id_, group, cost, input_rate, output_rate, previous, tools, metadata, details, context, factor = _get_converted(
        values
    )
    succeeded = call.status == "success"
    response, first_token = call.response_time_ms, call.time_to_first_token_ms
    return (
        id_,
        group,
        None if cost is None else to_units(cost),
        None if input_rate is None else _rate_units(input_rate),
        None if output_rate is None else _rate_units(output_rate),
        None if previous is None else to_units(previous),
        None if tools is None else encode_json(tools),
        None if metadata is None else encode_json(metadata),
        None if details is None else encode_json(details),
        None if context is None else encode_json(context),
        None if factor is None else _rate_units(factor),
        *_get_plain(values),
        bucket(response) if succeeded and response is not None else None,
        bucket(first_token) if succeeded and first_token is not None else None,
    )


def decode_call(row: Sequence[Any]) -> CallRecord:
    """Return the call of a row in the order of CALL_FIELDS."""
    fields: dict[str, Any] = dict.fromkeys(CallRecord.model_fields)
    fields.update(zip(CALL_FIELDS, row, strict=True))
    fields["id"] = _uuid(fields["id"])
    fields["group_id"] = None if fields["group_id"] is None else _uuid(fields["group_id"])
    fields["estimated_cost"] = _dollars(fields["estimated_cost"])
    fields["dollars_per_million_tokens_input_used"] = _dollars(fields["dollars_per_million_tokens_input_used"])
    fields["dollars_per_million_tokens_output_used"] = _dollars(fields["dollars_per_million_tokens_output_used"])
    fields["previous_cost"] = _dollars(fields["previous_cost"])
    fields["called_at"] = _utc(fields["called_at"])
    fields["repriced_at"] = _utc(fields["repriced_at"])
    fields["tools_used"] = None if fields["tools_used"] is None else json.loads(fields["tools_used"])
    fields["metadata"] = None if fields["metadata"] is None else json.loads(fields["metadata"])
    fields["usage_details"] = None if fields["usage_details"] is None else json.loads(fields["usage_details"])
    fields["price_context"] = None if fields["price_context"] is None else json.loads(fields["price_context"])
    fields["price_factor"] = _dollars(fields["price_factor"])
    return CallRecord.from_values(fields)


def encode_model(model: LLMModel) -> tuple[Any, ...]:
    """Return the row of a model, in the order of MODEL_COLUMNS."""
    return tuple(
        _units(getattr(model, name)) if name in _MODEL_RATES else getattr(model, name) for name in MODEL_COLUMNS
    )


def decode_model(row: Sequence[Any]) -> LLMModel:
    """Return the model of a row in the order of MODEL_COLUMNS."""
    fields = dict(zip(MODEL_COLUMNS, row, strict=True))
    fields.update({name: _dollars(fields[name]) for name in _MODEL_RATES})
    fields.update({name: _utc(fields[name]) for name in _MODEL_TIMES})
    return LLMModel.model_construct(**fields)


def encode_price(price: ModelPrice) -> tuple[Any, ...]:
    """Return the row of an own price, in the order of PRICE_COLUMNS."""
    rates = (_units(getattr(price, name)) for name in _RATES)
    others = encode_json({unit: to_units(rate) for unit, rate in price.rates.items()}) if price.rates else None
    return (*price.key, *rates, others, _units(price.factor))


def decode_price(row: Sequence[Any]) -> ModelPrice:
    """Return the own price of a row in the order of PRICE_COLUMNS."""
    provider, model_name, context, effective_from, *rates, others, factor = row
    of_input, of_output, cache_read, cache_write, cache_write_1h = rates
    return ModelPrice(
        provider,
        model_name,
        effective_from.replace(tzinfo=UTC),
        input=_dollars(of_input),
        output=_dollars(of_output),
        cache_read=_dollars(cache_read),
        cache_write=_dollars(cache_write),
        cache_write_1h=_dollars(cache_write_1h),
        rates={unit: from_units(units) for unit, units in json.loads(others or "{}").items()},
        context=json.loads(context),
        factor=_dollars(factor),
    )


def by_column(rows: Sequence[tuple[Any, ...]], columns: int) -> list[list[Any]]:
    """Return the rows as one list for each column."""
    return [list(column) for column in zip(*rows, strict=True)] if rows else [[] for _ in range(columns)]


def _uuid(value: Any) -> UUID:
    """Convert asyncpg's own class of UUID, or a text: connections of a host application may read UUIDs as text."""
    return UUID(bytes=value.bytes) if isinstance(value, UUID) else UUID(value)


def _utc(at: datetime | None) -> datetime | None:
    """Add the time zone, which asyncpg omits for the first instant of year 1: it stores that as -infinity."""
    return None if at is None else at.replace(tzinfo=UTC)


def _units(dollars: Decimal | None) -> int | None:
    return None if dollars is None else to_units(dollars)


def _dollars(units: int | None) -> Decimal | None:
    return None if units is None else from_units(units)
