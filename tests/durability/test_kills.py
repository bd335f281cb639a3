"""Processes that write are killed at any moment."""

from __future__ import annotations

import asyncio
import random
import time
from pathlib import Path

from .conftest import MakeDatabase
from .databases import DatabaseUnderTest, check
from .processes import Zygote, acknowledged, until
from .rounds import rounds

CALLS = 10_000


async def kill_one(
    programs: Zygote, tested: DatabaseUnderTest, notes: Path, first: int, dice: random.Random, **options: object
) -> None:
    """Kill a process that opens, migrates, records, closes and starts again, at a random moment."""
    ready = tested.home / f"ready-{first}"
    process = programs.start(
        "record",
        url=tested.url,
        notes=str(notes),
        numbers=(first, first + CALLS),
        callers=dice.choice((1, 8, 64)),
        each=dice.choice((3, 40, 400)),
        ready=str(ready),
        spool_dir=str(tested.spool_dir),
        **options,
    )
    if dice.random() < 0.5:
        await asyncio.to_thread(until, ready.exists)
    await asyncio.to_thread(time.sleep, dice.random() * dice.choice((0.05, 0.3)))
    process.kill()
    assert await asyncio.to_thread(process.wait) == -9


async def test_a_writer_killed_at_any_instant_loses_nothing_that_was_acknowledged(
    programs: Zygote, new_database: MakeDatabase, tmp_path: Path
) -> None:
    tested, used = new_database(), 0
    notes = tmp_path / "notes"
    for dice in rounds(20, 1000):
        await kill_one(programs, tested, notes, used * CALLS, dice)
        used += 1
        await check(tested, acknowledged(notes), range(used * CALLS))
        if dice.random() < 0.3:
            tested, used = new_database(), 0
            notes.unlink(missing_ok=True)
