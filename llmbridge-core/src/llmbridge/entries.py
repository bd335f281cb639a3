"""From what a caller knows of a call to its complete record: id, time, total, cost."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache
from typing import Any

from .money import MAX_DOLLARS
from .pricing import PriceBook
from .records import build, check_amount, check_count, complete_in_place, hash_prompt, new_id
from .schemas import CallRecord

#: Parameters of upstream's `record_api_call` that have no column: they go to the metadata when set.
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
    """The canonical record of the fields that the caller gave, with what is missing filled in.

    A call without a cost and without a reason for that is priced; `priced_as` is the vendor whose list applies
    (None: the call's own).

    :raises TypeError: a field that neither CallRecord nor upstream's `record_api_call` has
    :raises RecordRejectedError: it can never be stored
    """
    fields = dict(given)
    if not _FIELDS.issuperset(fields):
        fields = _own_fields(fields)
    if "id" not in fields:
        fields["id"] = new_id()
    if "called_at" not in fields:
        fields["called_at"] = datetime.now(UTC)
    record = build(fields)
    changes = _counted(record, fields)
    if record.estimated_cost is not None:
        changes.update(cost_source=record.cost_source or "caller", cost_reason=None)
    elif record.cost_reason is None:
        changes.update(_charge(record, prices, priced_as))
    complete_in_place(record, changes)
    return record


def _own_fields(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields of CallRecord that fields with some of upstream's stand for."""
    prompt = fields.pop("system_prompt", None)
    if prompt is not None:
        fields.setdefault("system_prompt_hash", hash_prompt(str(prompt)))
    parameters = {name: value for name in _PARAMETERS if not _is_unset(value := fields.pop(name, None))}
    if parameters:
        fields["metadata"] = {**parameters, **(fields.get("metadata") or {})}
    unknown = fields.keys() - _FIELDS
    if unknown:
        raise TypeError(f"record_api_call() has no parameter {', '.join(sorted(unknown))}")
    return fields


def _is_unset(value: Any) -> bool:
    return value is None or value is False


def _counted(record: CallRecord, given: Mapping[str, Any]) -> dict[str, Any]:
    """Who counted, where the caller did not say, and the total of what was counted."""
    prompt, completion = record.prompt_tokens, record.completion_tokens
    changes: dict[str, Any] = {}
    if "usage_source" not in given:
        changes["usage_source"] = "none" if prompt is None and completion is None else "provider"
    if record.total_tokens is None and prompt is not None and completion is not None:
        changes["total_tokens"] = check_count("total_tokens", prompt + completion)
    return changes


def _charge(record: CallRecord, prices: PriceBook, priced_as: str | None) -> dict[str, Any]:
    measured = record.prompt_tokens is not None or record.completion_tokens is not None
    if record.usage_source == "synthetic":
        return {"cost_reason": "synthetic"}
    if not measured and record.status in _REFUSED:
        return {"cost_reason": "not_billed"}
    price = prices.price(record.provider, record.model_name, record, record.called_at, priced_as=priced_as)
    return {
        "estimated_cost": _checked("estimated_cost", price.cost),
        "cost_source": price.source,
        "cost_reason": price.reason,
        "dollars_per_million_tokens_input_used": _checked_rate("input rate", price.input_rate),
        "dollars_per_million_tokens_output_used": _checked_rate("output rate", price.output_rate),
        "price_version": price.version,
    }


def _checked(field: str, cost: Decimal | None) -> Decimal | None:
    """A cost that pricing made, and so is rounded already."""
    return cost if cost is None or -MAX_DOLLARS < cost < MAX_DOLLARS else check_amount(field, cost)


#: A model's rates come with each of its calls.
_checked_rate = lru_cache(maxsize=4096)(check_amount)
