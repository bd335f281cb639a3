"""Maintenance in slices: long work as many short transactions, between which others write."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace

from ..types import TotalsReport

#: The longest pause in seconds between two slices.
_LONGEST_PAUSE = 0.2


async def in_slices(run: Callable[[], Awaitable[tuple[int, bool]]]) -> int:
    """Run one transaction after the other and return the sum of what they count.

    `run` returns how many rows it changed, and whether there may be more. Other writers, of other processes too, write
    in the pauses, each about as long as the slice before it.
    """
    counted = 0
    while True:
        begun = time.monotonic()
        count, may_go_on = await run()
        counted += count
        if not may_go_on:
            return counted
        await asyncio.sleep(min(time.monotonic() - begun, _LONGEST_PAUSE))


async def check_by_day(
    next_day: Callable[[int], Awaitable[int | None]],
    check: Callable[[int], Awaitable[TotalsReport]],
    *,
    first: int,
    day: int,
) -> TotalsReport:
    """Check the totals of one day after the other and return the sum of the reports.

    :param next_day: returns the start of the first day from a start on that has calls or totals; None: there is none
    :param check: checks the day that begins at a start
    :param first: where to begin
    :param day: the length of a day, in the unit of the starts
    """
    report, start = TotalsReport(), first
    while (found := await next_day(start)) is not None:
        one = await check(found)
        report = replace(
            report,
            checked=report.checked + one.checked,
            wrong=report.wrong + one.wrong,
            repaired=report.repaired + one.repaired,
        )
        start = found + day
    return report
