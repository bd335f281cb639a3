"""One call: the request, the models that may answer it, and what stands on the record of each attempt."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from .._shared.ids import new_id
from .._shared.text import hash_prompt
from ..errors import InvalidRequestError
from ..providers.base import BaseLLMProvider
from ..schemas import CallRecord, LLMRequest, RecordStatus

#: The record of an attempt, and what became of it.
Kept = Awaitable[tuple[CallRecord | None, RecordStatus | None]]
#: Puts the fields of an attempt at a vendor on the books, to the end, whoever waits for it.
Keep = Callable[[str, Mapping[str, Any]], Kept]


@dataclass(frozen=True, slots=True)
class Target:
    """A model that may answer: its vendor's name and provider, its own name, and what the caller wrote for it."""

    vendor: str
    provider: BaseLLMProvider
    model: str
    requested: str


@dataclass(slots=True)
class Call:
    """A request that was checked, and how many attempts were made at it.

    `sent` is the request as providers get it, `known` what every record of it says alike. `timeout` is in seconds, for
    one attempt; `group_id` is the id of the first attempt, and stands on all.
    """

    request: LLMRequest
    sent: LLMRequest
    targets: tuple[Target, ...]
    known: Mapping[str, Any]
    keep: Keep
    timeout: float
    group_id: UUID = field(default_factory=new_id)
    attempts: int = 0

    def next_attempt(self) -> dict[str, Any]:
        """The id and the number of the next attempt, as they stand on its record."""
        self.attempts += 1
        call_id = self.group_id if self.attempts == 1 else new_id()
        return {"id": call_id, "group_id": self.group_id, "attempt": self.attempts}


def tool_names(request: LLMRequest) -> list[str] | None:
    """The names of the tools on offer; None when there are none.

    :raises InvalidRequestError: a tool has no name
    """
    return [_tool_name(tool) for tool in request.tools] if request.tools else None


def system_prompt_hash(request: LLMRequest) -> str | None:
    """The hash of all system messages; None when there are none."""
    prompts = [str(message.content) for message in request.messages if message.role == "system"]
    return hash_prompt("\n".join(prompts)) if prompts else None


def _tool_name(tool: dict[str, Any]) -> str:
    function = tool.get("function", tool)
    name = function.get("name") if isinstance(function, dict) else None
    if not isinstance(name, str):
        raise InvalidRequestError("a tool has no name")
    return name
