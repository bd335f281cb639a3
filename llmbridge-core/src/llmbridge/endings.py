"""How an attempt at a call ended: what goes onto its record, and what the caller gets."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from .errors import (
    InvalidResponseError,
    LLMBridgeError,
    ProviderError,
    ProviderTimeoutError,
    ProviderUnavailableError,
    RecordRejectedError,
)
from .providers.base import Completion
from .records import check_amount
from .schemas import CallRecord, LLMRequest, LLMResponse, RecordStatus

#: So that input and output together still fit 64 bits.
_MOST_TOKENS = 2**62 - 1
_COUNTS = (
    "prompt_tokens",
    "completion_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "cache_write_1h_tokens",
    "reasoning_tokens",
)


def success(completion: Completion) -> dict[str, Any]:
    """The fields of an answered call. Figures that no vendor can mean count as not reported."""
    fields: dict[str, Any] = {"finish_reason": completion.finish_reason, "response_id": completion.response_id}
    usage = completion.usage
    if usage is not None:
        fields |= {name: _count(getattr(usage, name)) for name in _COUNTS}
        fields["usage_source"] = usage.source
    cost = _cost(completion.cost)
    if cost is not None:
        fields |= {"estimated_cost": cost, "cost_source": "provider"}
    return fields


def failure(error: BaseException) -> dict[str, Any]:
    """The fields of a call that raised. The text of a foreign exception may quote the prompt: it is left out."""
    if isinstance(error, asyncio.CancelledError):
        return {"status": "cancelled", "cost_reason": "unmeasured_usage"}
    return {
        "status": error.status if isinstance(error, ProviderError) else "error",
        "error_type": type(error).__name__,
        "error_message": str(error) if isinstance(error, LLMBridgeError) else None,
        "cost_reason": "not_billed" if _is_unbilled(error) else "unmeasured_usage",
    }


def response(
    request: LLMRequest,
    vendor: str,
    completion: Completion,
    record: CallRecord | None,
    status: RecordStatus | None,
) -> LLMResponse:
    """The answer, with its cost and its place on the books."""
    cost = record.estimated_cost if record is not None else None
    usage: dict[str, Any] | None = None
    if completion.usage is not None:
        counted = record if record is not None else completion.usage
        usage = {name: getattr(counted, name) for name in ("prompt_tokens", "completion_tokens", "total_tokens")}
        if cost is not None:
            usage["cost"] = cost
    return LLMResponse(
        content=completion.content,
        model=completion.model,
        usage=usage,
        finish_reason=completion.finish_reason,
        tool_calls=completion.tool_calls,
        provider=vendor,
        cost=cost,
        cost_reason=record.cost_reason if record is not None else None,
        call_id=record.id if record is not None and status is not None else None,
        record_status=status,
        parsed=_parsed(completion.content) if request.wants_json else None,
    )


def _is_unbilled(error: BaseException) -> bool:
    """Whether the vendor refused the attempt, so that it cost nothing; what broke off half-way may have."""
    if isinstance(error, ProviderTimeoutError | InvalidResponseError):
        return False
    if isinstance(error, ProviderUnavailableError):
        return error.status_code is not None
    return isinstance(error, LLMBridgeError)


def _count(tokens: Any) -> int | None:
    return tokens if type(tokens) is int and 0 <= tokens <= _MOST_TOKENS else None


def _cost(reported: Any) -> Any:
    try:
        return check_amount("cost", reported)
    except RecordRejectedError:
        return None


def _parsed(content: str) -> Any:
    try:
        return json.loads(content)
    except ValueError:
        return None
