"""Canonical form of calls, models and own prices: what every backend is given and gives back."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from operator import attrgetter
from typing import Any

from pydantic import ValidationError

from .._shared.redaction import redact
from .._shared.text import is_plain
from ..errors import RecordRejectedError
from ..schemas import CallRecord, LLMModel
from ..storage.types import ModelPrice
from .fields import INT64, MAX_ERROR_MESSAGE, MAX_NAME, NATURALS
from .validation import (
    check_amount,
    check_finite,
    check_metadata,
    check_name,
    check_optional_time,
    check_range,
    check_rate,
    check_time,
    check_user,
    cut_text,
)

_NAMES = ("origin", "provider", "model_name")
_SHORT_TEXTS = ("requested_model", "price_version", "finish_reason", "response_id", "system_prompt_hash", "error_type")
_AMOUNTS = (
    "estimated_cost",
    "dollars_per_million_tokens_input_used",
    "dollars_per_million_tokens_output_used",
    "previous_cost",
)
_get_texts = attrgetter(*_NAMES, "id_at_origin", *_SHORT_TEXTS)
_get_naturals = attrgetter(*NATURALS)
_get_amounts = attrgetter(*_AMOUNTS)


def convert(fields: Mapping[str, Any]) -> dict[str, Any]:
    """A value for every field of CallRecord, in canonical form, whatever the fields are.

    :raises RecordRejectedError: a field is missing, of the wrong type, or can never be stored
    """
    try:
        record = CallRecord.model_validate(fields)
    except ValidationError as error:
        raise RecordRejectedError(f"this call cannot be recorded: {_what_is_wrong(error)}") from None
    return {**vars(record), **_changes(record)}


def canonical_model(model: LLMModel, *, id: int, now: datetime) -> LLMModel:  # noqa: A002
    """`model` as every store will give it back, with its id and times.

    :raises RecordRejectedError: a name, rate, size or time that can never be stored
    """
    changes: dict[str, Any] = {"id": id, "created_at": now, "updated_at": now}
    for name in ("provider", "model_name"):
        changes[name] = check_name(name, getattr(model, name))
    for name in ("display_name", "description", "tool_call_format", "source"):
        changes[name] = cut_text(getattr(model, name), MAX_ERROR_MESSAGE)
    for name in ("max_context", "max_output_tokens"):
        check_range(name, getattr(model, name), least=0)
    for name in ("dollars_per_million_tokens_input", "dollars_per_million_tokens_output"):
        changes[name] = check_rate(name, getattr(model, name))
    changes["inactive_from"] = check_optional_time("inactive_from", model.inactive_from)
    return model.model_copy(update=changes)


def canonical_price(price: ModelPrice) -> ModelPrice:
    """`price` as every store will give it back.

    :raises RecordRejectedError: a name, time or rate that can never be stored
    """
    return ModelPrice(
        check_name("provider", price.provider),
        check_name("model_name", price.model_name),
        check_time("effective_from", price.effective_from),
        input=check_rate("input rate", price.input),
        output=check_rate("output rate", price.output),
        cache_read=check_rate("cache_read rate", price.cache_read),
        cache_write=check_rate("cache_write rate", price.cache_write),
        cache_write_1h=check_rate("cache_write_1h rate", price.cache_write_1h),
    )


def _changes(call: CallRecord) -> dict[str, Any]:
    """What has to change in `call` for its canonical form."""
    changes: dict[str, Any] = {}
    texts = [text for text in _get_texts(call) if text is not None]
    if not all(texts) or max(map(len, texts)) > MAX_NAME or not is_plain("".join(texts)):
        for name in _NAMES:
            changes[name] = check_name(name, getattr(call, name))
        changes["id_at_origin"] = check_user(call.id_at_origin)
        for name in _SHORT_TEXTS:
            changes[name] = cut_text(getattr(call, name), MAX_NAME)
    for name, number in zip(NATURALS, _get_naturals(call), strict=True):
        if number is not None and not 0 <= number < INT64:
            check_range(name, number, least=0)
    check_range("attempt", call.attempt, least=1)
    check_range("max_tokens", call.max_tokens, least=-INT64)
    for name, amount in zip(_AMOUNTS, _get_amounts(call), strict=True):
        if amount is not None:
            changes[name] = check_amount(name, amount)
    if call.temperature is not None:
        changes["temperature"] = check_finite("temperature", call.temperature)
    if call.tools_used is not None:
        changes["tools_used"] = [cut_text(tool, MAX_NAME) for tool in call.tools_used]
    if call.error_message is not None:
        changes["error_message"] = cut_text(redact(call.error_message), MAX_ERROR_MESSAGE)
    if call.metadata is not None:
        changes["metadata"] = check_metadata(call.metadata)
    changes["called_at"] = check_time("called_at", call.called_at)
    if call.repriced_at is not None:
        changes["repriced_at"] = check_optional_time("repriced_at", call.repriced_at)
    return changes


def _what_is_wrong(error: ValidationError) -> str:
    return "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors(include_input=False))
