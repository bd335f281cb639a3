"""Eight processes write to one database."""

from __future__ import annotations

import asyncio

import pytest

from .conftest import MakeDatabase
from .databases import DatabaseUnderTest, check
from .processes import Zygote, acknowledged
from .programs.calls import numbered
from .rounds import amount

OWN = 1_000_000
#: What is above are the calls that processes share.
SHARED = 100 * OWN


async def record_together(
    programs: Zygote, tested: DatabaseUnderTest, seconds: float, processes: int = 8, **options: object
) -> tuple[list[int], set[int]]:
    """Processes that open the same store at once, and record calls of their own and, in opposite orders, the same
    ones; how each ended, and what was acknowledged to them."""
    notes = [tested.home / f"notes-{number}" for number in range(processes)]
    started = [
        programs.start(
            "record",
            url=tested.url,
            notes=str(notes[number]),
            numbers=(number * OWN, number * OWN + OWN),
            crossing=("up", "down")[number % 2],
            callers=200,
            seconds=seconds,
            calm=True,
            spool_dir=str(tested.spool_dir),
            record_timeout=60,
            **options,
        )
        for number in range(processes)
    ]
    ended = [await asyncio.to_thread(process.wait) for process in started]
    return ended, set().union(*map(acknowledged, notes))


@pytest.mark.parametrize("seconds", [amount(3, 20, 600)])
async def test_eight_processes_on_one_store_are_not_in_each_other_s_way(
    seconds: float, programs: Zygote, new_database: MakeDatabase
) -> None:
    tested = new_database()
    ended, noted = await record_together(programs, tested, seconds)
    assert ended == [0] * 8, programs.log.read_text()[-2000:]
    assert {number // OWN for number in noted if number < SHARED} == set(range(8))
    assert max(noted) >= SHARED
    await check(tested, noted)


async def cross(tested: DatabaseUnderTest) -> None:
    """Write the same calls from two sides, in opposite orders."""
    one, other = tested.backend(), tested.backend()
    async with one, other:
        await one.apply_migrations()
        for first in range(0, 5000, 500):
            calls = [numbered(number) for number in range(first, first + 500)]
            results = await asyncio.gather(
                one.record_calls(calls), other.record_calls(calls[::-1]), return_exceptions=True
            )
            refused = [result for result in results if isinstance(result, Exception)]
            assert not refused, refused[0]
    await check(tested, range(5000), range(5000))


async def test_batches_with_the_same_calls_in_opposite_orders_do_not_wait_in_a_circle(
    new_database: MakeDatabase,
) -> None:
    await cross(new_database())
