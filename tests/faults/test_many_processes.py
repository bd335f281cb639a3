"""Eight processes on one store."""

from __future__ import annotations

import asyncio

import pytest

from .books import Books, check
from .conftest import MakeBooks
from .processes import Zygote, acknowledged
from .rounds import amount

OWN = 1_000_000
SHARED = (100 * OWN, 101 * OWN)


async def record_together(
    programs: Zygote, books: Books, seconds: float, processes: int = 8, **options: object
) -> tuple[list[int], set[int]]:
    """Processes that open the same store at once, and record calls of their own and, in opposite orders, the same
    ones; how each ended, and what was acknowledged to them."""
    notes = [books.home / f"notes-{number}" for number in range(processes)]
    started = [
        programs.start(
            "record",
            url=books.url,
            notes=str(notes[number]),
            numbers=(number * OWN, number * OWN + 20_000),
            shared=(SHARED[0], SHARED[0] + 20_000),
            backwards=bool(number % 2),
            callers=40,
            seconds=seconds,
            calm=True,
            spool_dir=str(books.spool_dir),
            record_timeout=60,
            **options,
        )
        for number in range(processes)
    ]
    ended = [await asyncio.to_thread(process.wait) for process in started]
    return ended, set().union(*map(acknowledged, notes))


@pytest.mark.parametrize("seconds", [amount(10, 600)])
async def test_eight_processes_on_one_store_are_not_in_each_other_s_way(
    seconds: float, programs: Zygote, new_books: MakeBooks
) -> None:
    books = new_books()
    ended, noted = await record_together(programs, books, seconds)
    assert ended == [0] * 8, programs.log.read_text()[-2000:]
    assert len({number // OWN for number in noted}) == 9
    await check(books, noted)
