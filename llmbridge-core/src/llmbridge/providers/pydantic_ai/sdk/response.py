"""Converts a response of pydantic-ai to a Completion."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from pydantic_ai.messages import ModelResponse, TextPart, ToolCallPart

from ....errors import ContentFilterError, InvalidResponseError
from ....schemas import TokenUsage
from ...base import Completion

_FINISH_REASONS = {
    "stop": "stop",
    "length": "length",
    "tool_call": "tool_calls",
    "content_filter": "content_filter",
}


def completion(response: ModelResponse, model: str, usage: TokenUsage | None) -> Completion:
    """Return the response as a Completion.

    :raises ContentFilterError: the provider refused the prompt
    :raises InvalidResponseError: the response has neither text nor a tool call nor usage
    """
    details = response.provider_details or {}
    if details.get("block_reason") is not None:
        raise ContentFilterError(f"the safety system refused the messages for {model}", status_code=200, usage=usage)
    refusal = details.get("refusal")
    content = "".join(part.content for part in response.parts if isinstance(part, TextPart))
    if not content and isinstance(refusal, str):
        content = refusal
    calls = [_tool_call(part) for part in response.parts if isinstance(part, ToolCallPart)]
    if not content and not calls and usage is None:
        raise InvalidResponseError(f"{model} answered without text, tool call or usage", status_code=200)
    finish_reason = _FINISH_REASONS.get(response.finish_reason or "")
    return Completion(
        content=content,
        model=response.model_name or model,
        tool_calls=calls or None,
        finish_reason="tool_calls" if calls and finish_reason == "stop" else finish_reason,
        usage=usage,
        response_id=response.provider_response_id,
        cost=_cost(details),
    )


def _cost(details: Mapping[str, Any]) -> Any:
    """Return the cost in dollars that a gateway reports, with the cost of the caller's own account upstream."""
    charged, upstream = details.get("cost"), details.get("upstream_inference_cost")
    if charged is None or not details.get("is_byok"):
        return charged
    return None if upstream is None else Decimal(repr(charged)) + Decimal(repr(upstream))


def _tool_call(part: ToolCallPart) -> dict[str, Any]:
    arguments = part.args if isinstance(part.args, str) else part.args_as_json_str()
    return {
        "id": part.tool_call_id,
        "type": "function",
        "function": {"name": part.tool_name, "arguments": arguments or "{}"},
    }
