"""What every measurement does: the same call, by so many callers, round after round."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from statistics import median
from typing import Any

ROUNDS = 7
CALLS = 12_800
#: Seconds of the clock that each way works at least, over all rounds.
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
    """Let so many callers do CALLS pieces of work, each one after the other."""

    async def caller(first: int) -> None:
        for number in range(first, CALLS, callers):
            await each(number)

    await asyncio.gather(*(caller(first) for first in range(callers)))


async def seconds(ways: Mapping[str, Way], clock: Callable[[], float], empty: Way) -> dict[str, float]:
    """Seconds of the clock that a call takes each way: the median of the rounds, of which each takes every way in turn,
    again and again after `empty` for its part of SUSTAINED seconds."""
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
