"""Benchmark of the CPU time of LiteLLM's `acompletion` with a mocked response. Needs LiteLLM, and not llmbridge."""

from __future__ import annotations

import asyncio
import json
import os
import time

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # otherwise it downloads prices

import litellm

CALLS = 400
WARM_UP = 50
CALLERS = (1, 64)


async def cpu(callers: int) -> float:
    """Return the CPU time of one call in microseconds, with `callers` concurrent callers."""

    async def caller(calls: int) -> None:
        for _ in range(calls):
            await litellm.acompletion(
                model="gpt-4o-mini",
                messages=[{"role": "user", "content": "What does it cost?"}],
                mock_response="Nothing but time.",
                user="user-1",
            )

    await caller(WARM_UP)
    started = time.process_time()
    await asyncio.gather(*(caller(CALLS // callers) for _ in range(callers)))
    return (time.process_time() - started) / (CALLS // callers * callers) * 1e6


async def main() -> None:
    print(json.dumps({callers: await cpu(callers) for callers in CALLERS}))


if __name__ == "__main__":
    asyncio.run(main())
