"""Canonical form of calls, models and own prices: the form in which every backend gets and returns them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from operator import attrgetter
from typing import Any

from pydantic import ValidationError

from .._shared.redaction import redact
from .._shared.text import is_plain
from ..errors import RecordRejectedError
from ..schemas import CallRecord, LLMModel
from ..storage.types import ModelPrice
from .fields import (
    COUNTS,
    FIELDS,
    INT64,
    MAX_ERROR_MESSAGE,
    MAX_NAME,
    MAX_TOOLS,
    RATE_FIELDS,
    SHORT_TEXTS,
    Kind,
    of_kind,
)
from .validation import (
    check_amount,
    check_counts,
    check_finite,
    check_labels,
    check_metadata,
    check_name,
    check_optional_time,
    check_range,
    check_rate,
    check_rates,
    check_time,
    check_user,
    cut_text,
)

_NAMES = of_kind("name")
_TEXTS = of_kind("text")
_AMOUNTS = of_kind("money")
_get_texts = attrgetter(*SHORT_TEXTS)
_get_counts = attrgetter(*COUNTS)
_get_amounts = attrgetter(*_AMOUNTS)


def convert(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return a value for every field of CallRecord, in canonical form.

    :raises RecordRejectedError: a field is missing, of the wrong type, or can never be stored
    """
    try:
        record = CallRecord.model_validate(fields)
    except ValidationError as error:
        raise RecordRejectedError(f"this call cannot be recorded: {_describe(error)}") from None
    return {**vars(record), **_changes(record)}


def canonical_model(model: LLMModel, *, id: int, now: datetime) -> LLMModel:  # noqa: A002
    """Return `model` in canonical form, with its id and times.

    :raises RecordRejectedError: a name, rate, size or time can never be stored
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
    """Return `price` in canonical form.

    :raises RecordRejectedError: a name, time, rate, factor or context can never be stored, a rate in `rates` has a
        field of its own, or there are rates and a factor
    """
    rates = check_rates("rates", price.rates)
    fixed = [getattr(price, name) for name in RATE_FIELDS.values()]
    if price.factor is not None and (rates or fixed != [None] * len(fixed)):
        raise RecordRejectedError("a price has either rates or a factor of list prices, not both")
    return ModelPrice(
        check_name("provider", price.provider),
        check_name("model_name", price.model_name),
        check_time("effective_from", price.effective_from),
        input=check_rate("input rate", price.input),
        output=check_rate("output rate", price.output),
        cache_read=check_rate("cache_read rate", price.cache_read),
        cache_write=check_rate("cache_write rate", price.cache_write),
        cache_write_1h=check_rate("cache_write_1h rate", price.cache_write_1h),
        rates=rates,
        context=check_labels("context", dict(price.context)),
        factor=check_rate("factor", price.factor),
    )


def _changes(call: CallRecord) -> dict[str, Any]:
    """Return the values that differ from `call` in its canonical form."""
    changes: dict[str, Any] = {}
    texts = [text for text in _get_texts(call) if text is not None]
    if not all(texts) or max(map(len, texts)) > MAX_NAME or not is_plain("".join(texts)):
        for name in _NAMES:
            changes[name] = check_name(name, getattr(call, name))
        for name in of_kind("user"):
            changes[name] = check_user(getattr(call, name))
        for name in _TEXTS:
            changes[name] = cut_text(getattr(call, name), MAX_NAME)
    for name, number in zip(COUNTS, _get_counts(call), strict=True):
        if number is not None and not 0 <= number < INT64:
            check_range(name, number, least=0)
    for name, amount in zip(_AMOUNTS, _get_amounts(call), strict=True):
        if amount is not None:
            changes[name] = check_amount(name, amount)
    for name, check in _CHECKS.items():
        value = getattr(call, name)
        if value is not None:
            changes[name] = check(name, value)
    return changes


def _cut_texts(_: str, texts: list[str]) -> list[str | None]:
    return [cut_text(text, MAX_NAME) for text in texts[:MAX_TOOLS]]


def _clean_message(_: str, message: str) -> str | None:
    return cut_text(redact(message), MAX_ERROR_MESSAGE)


#: The check of a value, by kind. Values of other kinds are checked all at once, or by CallRecord itself.
_BY_KIND: Mapping[Kind, Callable[[str, Any], Any]] = {
    "ordinal": lambda name, number: check_range(name, number, least=1),
    "integer": lambda name, number: check_range(name, number, least=-INT64),
    "number": check_finite,
    "texts": _cut_texts,
    "message": _clean_message,
    "json": lambda _, value: check_metadata(value),
    "counts": check_counts,
    "labels": check_labels,
    "time": check_time,
}
_CHECKS = {name: _BY_KIND[field.kind] for name, field in FIELDS.items() if field.kind in _BY_KIND}


def _describe(error: ValidationError) -> str:
    return "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors(include_input=False))
