"""What LiteLLM's `acompletion` costs with a mocked answer, as CPU time. Runs where LiteLLM is, and llmbridge is not."""

from __future__ import annotations

import asyncio
import json
import os
import time

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # else it asks the network for prices

import litellm

CALLS = 400
WARM_UP = 50
CALLERS = (1, 64)


async def cpu(callers: int) -> float:
    """Microseconds of CPU that one call takes of this process, with so many callers at a time."""

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
