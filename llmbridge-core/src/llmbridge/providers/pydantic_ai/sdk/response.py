"""From an answer of pydantic-ai to a Completion."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
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

#: A count that nobody can mean; the sum of the few that are added fits 64 bits.
_TOO_MANY = 2**60


@dataclass(slots=True)
class Heard:
    """What a vendor said in one call and its library does not pass on.

    `usage` is the body in which it reported the tokens, as it came (None: it did not yet). `ended` says whether it
    brought a streamed answer to its end itself (None: nothing was streamed, or it did not yet say that it is).
    """

    usage: Any = None
    ended: bool | None = None


class Overheard:
    """A stream of an SDK whose every piece is heard before the library has it. All else is the stream's own."""

    def __init__(self, stream: Any, hear: Callable[[Any], None]) -> None:
        self._stream = stream
        self._hear = hear
        self._pieces: AsyncIterator[Any] | None = None

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        if self._pieces is None:
            self._pieces = aiter(self._stream)
        piece = await anext(self._pieces)
        self._hear(piece)
        return piece

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def completion(answer: ModelResponse, model: str, usage: TokenUsage | None) -> Completion:
    """The answer in the field's common form.

    :raises ContentFilterError: the vendor refused to read the prompt
    :raises InvalidResponseError: it has neither text nor a tool call nor usage
    """
    details = answer.provider_details or {}
    if details.get("block_reason") is not None:
        raise ContentFilterError(f"the safety system refused the messages for {model}", status_code=200, usage=usage)
    refusal = details.get("refusal")
    content = "".join(part.content for part in answer.parts if isinstance(part, TextPart))
    if not content and isinstance(refusal, str):
        content = refusal
    calls = [_tool_call(part) for part in answer.parts if isinstance(part, ToolCallPart)]
    if not content and not calls and usage is None:
        raise InvalidResponseError(f"{model} answered without text, tool call or usage", status_code=200)
    finish_reason = _FINISH_REASONS.get(answer.finish_reason or "")
    return Completion(
        content=content,
        model=answer.model_name or model,
        tool_calls=calls or None,
        finish_reason="tool_calls" if calls and finish_reason == "stop" else finish_reason,
        usage=usage,
        response_id=answer.provider_response_id,
        cost=_cost(details),
    )


def _cost(details: Mapping[str, Any]) -> Any:
    """The dollars that a gateway says it charged, with what the caller's own account upstream was charged beside it."""
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


def plain(reported: Any) -> Any:
    """A body that a vendor sent as data, without what it did not send."""
    return reported.model_dump(warnings=False, exclude_unset=True) if hasattr(reported, "model_dump") else reported


def count(counts: Any, name: str) -> int | None:
    """A number of tokens out of a vendor's body; None for whatever is none."""
    value = counts.get(name) if isinstance(counts, Mapping) else None
    return value if type(value) is int and 0 <= value < _TOO_MANY else None


def total(first: int | None, *more: int | None) -> int | None:
    """A count and those that go on top of it; None when the first was not measured."""
    return None if first is None else first + sum(number or 0 for number in more)


def measured(usage: TokenUsage) -> TokenUsage | None:
    """Usage in which something was measured, else None."""
    return None if usage == TokenUsage() else usage
