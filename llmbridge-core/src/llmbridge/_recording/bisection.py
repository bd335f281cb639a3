"""Bisection: finds the calls that make a batch fail."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import TypeVar
from uuid import UUID

T = TypeVar("T")


def divide(
    batch: Sequence[T], named: Collection[UUID], id_of: Callable[[T], UUID | None]
) -> tuple[list[T], list[list[T]]]:
    """Return the calls that are known to make a batch fail, and the parts of the others that are to be written again,
    the one to write first at the end.

    These are the calls that the error has `named`. If it named none of the batch, a single call is the cause, and
    several are written again in two halves: so n calls of a batch of m are found in at most 2 n log2(m) attempts.
    """
    failed = [one for one in batch if id_of(one) in named]
    if failed:
        rest = [one for one in batch if id_of(one) not in named]
        return failed, [rest] if rest else []
    if len(batch) < 2:
        return list(batch), []
    middle = len(batch) // 2
    return [], [list(batch[middle:]), list(batch[:middle])]
