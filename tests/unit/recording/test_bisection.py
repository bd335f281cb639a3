"""Bisection finds every call that makes a batch fail, and no other."""

from __future__ import annotations

from collections.abc import Collection
from uuid import UUID

import pytest

from llmbridge._recording.bisection import divide


def ids(*numbers: int) -> list[UUID]:
    return [UUID(int=number) for number in numbers]


def same(one: UUID) -> UUID:
    return one


def search(batch: list[UUID], wrong: Collection[UUID], named: Collection[UUID] = ()) -> tuple[list[UUID], int]:
    """Return the calls that were found, in order, and the number of attempts."""
    parts, found, attempts = [batch], [], 0
    while parts:
        part = parts.pop()
        attempts += 1
        if not set(part) & set(wrong):
            continue
        failed, rest = divide(part, named, same)
        found += failed
        parts += rest
    return found, attempts


@pytest.mark.parametrize("wrong", [[0], [999], [500], [0, 1], [3, 400, 998], range(1000), []])
def test_bisection_finds_what_the_error_does_not_name(wrong: Collection[int]) -> None:
    found, attempts = search(ids(*range(1000)), ids(*wrong))
    assert found == ids(*wrong)
    assert attempts <= 2 * len(wrong) * 10 + 1


def test_what_the_error_names_is_found_at_once() -> None:
    found, attempts = search(ids(*range(1000)), ids(7, 8, 900), named=ids(7, 8, 900))
    assert (found, attempts) == (ids(7, 8, 900), 2)
    assert divide(ids(1, 2), ids(1, 2), same) == (ids(1, 2), [])


def test_names_of_other_calls_are_no_names() -> None:
    assert divide(ids(1), ids(5), same) == (ids(1), [])
    assert divide(ids(1, 2, 3), ids(5), same) == ([], [ids(2, 3), ids(1)])
