"""Outcome of an attempt: the fields of its record, and the response for the caller."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from .._records.fields import of_kind
from .._records.validation import check_amount, check_counts, check_labels
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

#: Most tokens of a count, so that input and output together still fit 64 bits.
_MAX_TOKENS = 2**62 - 1
#: The counts that a provider may report; the total is computed.
_COUNTS = tuple(name for name in of_kind("tokens") if name in TokenUsage.model_fields)


def success_fields(completion: Completion) -> dict[str, Any]:
    """Return the fields of a completion. Impossible counts and costs are treated as not reported."""
    fields: dict[str, Any] = {"finish_reason": completion.finish_reason, "response_id": completion.response_id}
    if completion.usage is not None:
        fields |= _usage_fields(completion.usage)
    fields["response_model"] = _name(completion.model)
    cost = _cost(completion.cost)
    if cost is not None:
        fields |= {"estimated_cost": cost, "cost_source": "provider"}
    return fields


def failure_fields(error: BaseException, usage: TokenUsage | None = None, *, begun: bool = False) -> dict[str, Any]:
    """Return the fields of an attempt that raised.

    The text of an exception that is not llmbridge's own may quote the prompt, so it is omitted.

    :param usage: the tokens that the provider reported before the response broke off; the error's own usage has
        priority
    :param begun: whether the response had begun
    """
    fields: dict[str, Any] = {"status": "cancelled"}
    if not isinstance(error, asyncio.CancelledError | GeneratorExit):
        fields = {
            "status": error.status if isinstance(error, ProviderError) else "error",
            "error_type": type(error).__name__,
            "error_message": str(error) if isinstance(error, LLMBridgeError) else None,
        }
    reported = error.usage if isinstance(error, ProviderError) else None
    if reported is None and usage is not None:
        reported = usage if usage.source == "synthetic" else usage.model_copy(update={"source": "partial"})
    if reported is not None:
        fields |= _usage_fields(reported)
        if fields["prompt_tokens"] is not None or fields["completion_tokens"] is not None:
            return fields
    fields["cost_reason"] = "not_billed" if not begun and _is_unbilled(error) else "unmeasured_usage"
    return fields


def response(
    request: LLMRequest,
    provider: str,
    completion: Completion,
    record: CallRecord | None,
    status: RecordStatus | None,
) -> LLMResponse:
    """Return the response, with its cost and the status of its record."""
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
        provider=provider,
        cost=cost,
        cost_reason=record.cost_reason if record is not None else None,
        call_id=record.id if record is not None and status is not None else None,
        record_status=status,
        parsed=parsed,
        parse_error=parse_error,
    )


def _is_unbilled(error: BaseException) -> bool:
    """Return whether the provider refused the attempt, so that it cost nothing. An interrupted one may cost money."""
    if isinstance(error, ProviderTimeoutError | InvalidResponseError):
        return False
    if isinstance(error, ProviderUnavailableError):
        return error.status_code is not None
    return isinstance(error, LLMBridgeError)


def _usage_fields(usage: TokenUsage) -> dict[str, Any]:
    return {
        **{name: _count(getattr(usage, name)) for name in _COUNTS},
        "usage_details": _checked(check_counts, "usage_details", usage.usage_details),
        "price_context": _checked(check_labels, "price_context", usage.price_context),
        "response_model": _name(usage.response_model),
        "usage_source": usage.source,
    }


def _checked(check: Callable[[str, Any], Any], name: str, reported: Any) -> Any:
    try:
        return None if reported is None else check(name, reported)
    except RecordRejectedError:
        return None


def _count(tokens: Any) -> int | None:
    return tokens if type(tokens) is int and 0 <= tokens <= _MAX_TOKENS else None


def _name(reported: Any) -> str | None:
    return reported if isinstance(reported, str) and reported else None


def _cost(reported: Any) -> Any:
    try:
        return check_amount("cost", reported)
    except RecordRejectedError:
        return None
