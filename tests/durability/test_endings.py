"""If a process ends by itself without closing its database, no acknowledged call is lost."""

from __future__ import annotations

import asyncio
import re

import pytest

from .conftest import MakeDatabase
from .databases import check
from .processes import FOLDER, Zygote, acknowledged

WAYS = re.findall(r"^@way\ndef (\w+)", (FOLDER / "endings.py").read_text(), re.MULTILINE)
#: Those that leave no time for what was not acknowledged.
SUDDEN = {"exits_at_once", "aborts", "is_terminated", "leaves_its_thread"}


@pytest.mark.parametrize("way", WAYS)
async def test_a_process_that_ends_without_closing_its_database_loses_no_call(
    way: str, programs: Zygote, new_database: MakeDatabase
) -> None:
    tested = new_database()
    accepted, noted = tested.home / "accepted", tested.home / "acknowledged"
    process = programs.start(
        way, url=tested.url, spool_dir=str(tested.spool_dir), accepted=str(accepted), acknowledged=str(noted)
    )
    async with asyncio.timeout(120):
        await asyncio.to_thread(process.wait)
    assert acknowledged(noted), programs.log.read_text()[-2000:]
    kept = acknowledged(noted) if way in SUDDEN else acknowledged(accepted)
    await check(tested, kept, acknowledged(accepted))


def test_there_are_twelve_ways() -> None:
    assert len(WAYS) >= 12
