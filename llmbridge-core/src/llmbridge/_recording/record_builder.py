"""Builder of call records: fills in id, time, total and cost of the fields that a caller gave."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from .._pricing.price_book import PriceBook
from .._records.canonical import convert
from .._records.fast_path import try_convert
from .._records.fields import INT64
from .._records.validation import check_amount, check_count
from .._shared.ids import new_id
from .._shared.money import MAX_DOLLARS, MIN_DOLLARS
from .._shared.spelling import hint
from .._shared.text import hash_prompt
from .._usage.query import ALIASES
from ..schemas import CallRecord

#: Parameters of llmbridge-py's `record_api_call` that have no column: they go to the metadata if they are set.
_PARAMETERS = (
    "top_p",
    "stop_sequences",
    "json_mode",
    "response_format",
    "seed",
    "tool_choice",
    "parallel_tool_calls",
)
_FIELDS = frozenset(CallRecord.model_fields)
_REFUSED = ("error", "rate_limited")


def complete(given: Mapping[str, Any], prices: PriceBook, priced_as: str | None = None) -> CallRecord:
    """Return the record of the given fields, in canonical form, with missing fields filled in.

    A call that has neither a cost nor a cost reason is priced.

    :param priced_as: the provider whose price list applies (None: the one that was called)
    :raises TypeError: neither CallRecord nor llmbridge-py's `record_api_call` has a field of that name
    :raises RecordRejectedError: the record can never be stored
    """
    values = try_convert(given)
    if values is None:
        given = _convert_fields(dict(given))
        values = try_convert(given) or convert({"id": new_id(), "called_at": datetime.now(UTC), **given})
    if values["id"] is None:
        values["id"] = new_id()
    if values["called_at"] is None:
        values["called_at"] = datetime.now(UTC)
    _fill_usage(values, given)
    record = CallRecord.from_values(values)
    if values["estimated_cost"] is not None:
        values["cost_source"], values["cost_reason"] = values["cost_source"] or "caller", None
    elif values["cost_reason"] is None:
        _fill_cost(values, record, prices, priced_as)
    return record


def _convert_fields(fields: dict[str, Any]) -> dict[str, Any]:
    """Return fields with those of llmbridge-py converted to fields of CallRecord."""
    prompt = fields.pop("system_prompt", None)
    if prompt is not None:
        fields.setdefault("system_prompt_hash", hash_prompt(str(prompt)))
    parameters = {name: value for name in _PARAMETERS if not _is_unset(value := fields.pop(name, None))}
    if parameters:
        fields["metadata"] = {**parameters, **(fields.get("metadata") or {})}
    for alias, field in ALIASES.items():
        if alias in fields:
            if field in fields:
                raise TypeError(f"give {field} or {alias}, which are the same, not both")
            fields[field] = fields.pop(alias)
    for name in sorted(fields.keys() - _FIELDS):
        known = (*_FIELDS, *ALIASES, *_PARAMETERS, "system_prompt")
        raise TypeError(f"record_api_call() has no parameter {name!r}{hint(name, known)}")
    return fields


def _is_unset(value: Any) -> bool:
    return value is None or value is False


def _fill_usage(values: dict[str, Any], given: Mapping[str, Any]) -> None:
    """Fill in the usage source and the total, if the caller did not give them."""
    prompt, completion = values["prompt_tokens"], values["completion_tokens"]
    if "usage_source" not in given:
        values["usage_source"] = "none" if prompt is None and completion is None else "provider"
    if values["total_tokens"] is None and prompt is not None and completion is not None:
        total = prompt + completion
        values["total_tokens"] = total if total < INT64 else check_count("total_tokens", total)


def _fill_cost(values: dict[str, Any], call: CallRecord, prices: PriceBook, priced_as: str | None) -> None:
    """Fill in the cost, its source or reason, the rates and the price version of a call."""
    if values["usage_source"] == "synthetic":
        values["cost_reason"] = "synthetic"
        return
    if values["status"] in _REFUSED and values["prompt_tokens"] is None and values["completion_tokens"] is None:
        values["cost_reason"] = "not_billed"
        return
    cost, source, reason, input_rate, output_rate, version, factor = prices.price(
        values["provider"], values["model_name"], call, values["called_at"], priced_as=priced_as
    )
    if cost is not None and not MIN_DOLLARS < cost < MAX_DOLLARS:
        check_amount("estimated_cost", cost)
    values["estimated_cost"] = cost
    values["cost_source"] = source
    values["cost_reason"] = reason
    values["dollars_per_million_tokens_input_used"] = input_rate
    values["dollars_per_million_tokens_output_used"] = output_rate
    values["price_version"] = version
    values["price_factor"] = factor
