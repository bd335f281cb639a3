"""Workload of the benchmarks: the same call, by a number of callers, in alternating rounds."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from statistics import median
from typing import Any

ROUNDS = 7
CALLS = 12_800
#: Least seconds that each way runs, over all rounds.
SUSTAINED = 20.0
HOW = f"medians of {ROUNDS} rounds, {SUSTAINED:g} s of each way"

FIELDS: dict[str, Any] = {
    "origin": "bench",
    "id_at_origin": "user-1",
    "provider": "openai",
    "model_name": "gpt-4o-mini",
    "prompt_tokens": 812,
    "completion_tokens": 97,
    "response_time_ms": 640,
    "temperature": 0.2,
    "metadata": {"team": "search"},
}

#: Does CALLS pieces of work.
Way = Callable[[], Awaitable[Any]]


async def share(callers: int, each: Callable[[int], Awaitable[Any]]) -> None:
    """Share CALLS pieces of work among `callers` concurrent callers."""

    async def caller(first: int) -> None:
        for number in range(first, CALLS, callers):
            await each(number)

    await asyncio.gather(*(caller(first) for first in range(callers)))


async def seconds(ways: Mapping[str, Way], clock: Callable[[], float], empty: Way) -> dict[str, float]:
    """Return the seconds that a call takes in each way: the median over the rounds.

    Each round measures every way once, for its part of SUSTAINED seconds, and calls `empty` before each repetition.
    """
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, way in ways.items():
            spent, times = 0.0, 0
            while spent < SUSTAINED / ROUNDS:
                await empty()
                started = clock()
                await way()
                spent += clock() - started
                times += 1
            taken[name].append(spent / times)
    return {name: median(times) / CALLS for name, times in taken.items()}
