"""How an attempt at a call ended: what goes onto its record, and what the caller gets."""

from __future__ import annotations

import asyncio
from typing import Any

from .._records.fields import of_kind
from .._records.validation import check_amount
from ..errors import (
    InvalidResponseError,
    LLMBridgeError,
    ProviderError,
    ProviderTimeoutError,
    ProviderUnavailableError,
    RecordRejectedError,
)
from ..providers.base import Completion
from ..schemas import CallRecord, LLMRequest, LLMResponse, RecordStatus, TokenUsage
from . import structured_output

#: So that input and output together still fit 64 bits.
_MOST_TOKENS = 2**62 - 1
#: The counts that a provider may report; the total is computed.
_COUNTS = tuple(name for name in of_kind("tokens") if name in TokenUsage.model_fields)


def success(completion: Completion) -> dict[str, Any]:
    """The fields of an answered call. Figures that no vendor can mean count as not reported."""
    fields: dict[str, Any] = {"finish_reason": completion.finish_reason, "response_id": completion.response_id}
    if completion.usage is not None:
        fields |= _counted(completion.usage)
    cost = _cost(completion.cost)
    if cost is not None:
        fields |= {"estimated_cost": cost, "cost_source": "provider"}
    return fields


def failure(error: BaseException, usage: TokenUsage | None = None, *, begun: bool = False) -> dict[str, Any]:
    """The fields of a call that raised. The text of a foreign exception may quote the prompt: it is left out.

    `usage` is what the vendor had reported of an answer that broke off, and `begun` says that there was one. What the
    error itself brings of it goes first.
    """
    fields: dict[str, Any] = {"status": "cancelled"}
    if not isinstance(error, asyncio.CancelledError | GeneratorExit):
        fields = {
            "status": error.status if isinstance(error, ProviderError) else "error",
            "error_type": type(error).__name__,
            "error_message": str(error) if isinstance(error, LLMBridgeError) else None,
        }
    counted = error.usage if isinstance(error, ProviderError) else None
    if counted is None and usage is not None:
        counted = usage if usage.source == "synthetic" else usage.model_copy(update={"source": "partial"})
    if counted is not None:
        fields |= _counted(counted)
        if fields["prompt_tokens"] is not None or fields["completion_tokens"] is not None:
            return fields
    fields["cost_reason"] = "not_billed" if not begun and _is_unbilled(error) else "unmeasured_usage"
    return fields


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
    parsed, parse_error = structured_output.parse(request, completion.content)
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
        parsed=parsed,
        parse_error=parse_error,
    )


def _is_unbilled(error: BaseException) -> bool:
    """Whether the vendor refused the attempt, so that it cost nothing; what broke off half-way may have."""
    if isinstance(error, ProviderTimeoutError | InvalidResponseError):
        return False
    if isinstance(error, ProviderUnavailableError):
        return error.status_code is not None
    return isinstance(error, LLMBridgeError)


def _counted(usage: TokenUsage) -> dict[str, Any]:
    return {**{name: _count(getattr(usage, name)) for name in _COUNTS}, "usage_source": usage.source}


def _count(tokens: Any) -> int | None:
    return tokens if type(tokens) is int and 0 <= tokens <= _MOST_TOKENS else None


def _cost(reported: Any) -> Any:
    try:
        return check_amount("cost", reported)
    except RecordRejectedError:
        return None
