"""The calls that are recorded under faults. Each has a number, so that the stored calls can be compared."""

from __future__ import annotations

from uuid import UUID

from llmbridge.schemas import CallRecord
from llmbridge.testing import make_call

_ID = 0x01900000_0000_7000_8000_000000000000


def numbered(number: int) -> CallRecord:
    """The call of that number; neighbours lie in different totals."""
    return make_call(
        number % 86_400,
        id=UUID(int=_ID + number),
        id_at_origin=f"user-{number % 5}",
        model_name=("gpt-4o-mini", "gpt-4o", "o3")[number % 3],
        prompt_tokens=number,
        total_tokens=number + 5,
        metadata={"number": number},
    )


def number_of(id_: UUID) -> int:
    """The number of the call with that id."""
    return id_.int - _ID
