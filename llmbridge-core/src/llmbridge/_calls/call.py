"""One call: the request, the models to send it to, and the fields that all its records have."""

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

#: The record of an attempt and its status; None as for `LLMDatabase.keep`.
Recorded = Awaitable[tuple[CallRecord | None, RecordStatus | None]]
#: Records an attempt, from the provider's name and fields of CallRecord, even if the caller is cancelled.
Recorder = Callable[[str, Mapping[str, Any]], Recorded]


@dataclass(frozen=True, slots=True)
class Target:
    """A model to send a call to: name and object of its provider, name of the model, the caller's model string, and the
    terms of the price that were configured for the provider."""

    provider_name: str
    provider: BaseLLMProvider
    model: str
    requested: str
    price_context: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Call:
    """A validated request and the number of attempts so far.

    `sent` is the request as providers get it. `common_fields` are the same in the records of all attempts. `timeout` is
    in seconds, for one attempt. `group_id` is the id of the first attempt, and in the records of all.
    """

    request: LLMRequest
    sent: LLMRequest
    targets: tuple[Target, ...]
    common_fields: Mapping[str, Any]
    record: Recorder
    timeout: float
    group_id: UUID = field(default_factory=new_id)
    attempts: int = 0

    def next_attempt(self) -> dict[str, Any]:
        """Count the next attempt and return the fields of its record that identify it."""
        self.attempts += 1
        call_id = self.group_id if self.attempts == 1 else new_id()
        return {"id": call_id, "group_id": self.group_id, "attempt": self.attempts}


def tool_names(request: LLMRequest) -> list[str] | None:
    """Return the names of the request's tools; None if it has none.

    :raises InvalidRequestError: a tool has no name
    """
    return [_tool_name(tool) for tool in request.tools] if request.tools else None


def system_prompt_hash(request: LLMRequest) -> str | None:
    """Return the hash of all system messages; None if there are none."""
    prompts = [str(message.content) for message in request.messages if message.role == "system"]
    return hash_prompt("\n".join(prompts)) if prompts else None


def _tool_name(tool: dict[str, Any]) -> str:
    function = tool.get("function", tool)
    name = function.get("name") if isinstance(function, dict) else None
    if not isinstance(name, str):
        raise InvalidRequestError("a tool has no name: give it one in function.name")
    return name
