"""What `chat` costs beside the vendor's own call, as CPU time, beside LiteLLM's with a mocked answer in the same run.

The vendor is in this process and answers at once; the books are a SQLite file, and every call is durable before it
returns. LiteLLM keeps no books here. Both are measured in processes of their own, in turn, round after round, with all
their threads, and the medians are compared. LLMBRIDGE_BENCH_LITELLM names a Python that has LiteLLM; without it only
`chat` is measured.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from statistics import median

from llmbridge import BaseLLMProvider, LLMBridge, LLMRequest, Message
from llmbridge.providers import Completion
from llmbridge.schemas import TokenUsage

ROUNDS = 5
CALLS = 2_000
WARM_UP = 100
CALLERS = (1, 64)
MOST = 0.2
QUESTION, ANSWER = "What does it cost?", "Nothing but time."


class AtOnce(BaseLLMProvider):
    """A vendor that takes no time."""

    answer = Completion(
        content=ANSWER,
        model="gpt-4o-mini",
        finish_reason="stop",
        usage=TokenUsage(prompt_tokens=12, completion_tokens=5),
        response_id="response-1",
    )

    async def complete(self, request: LLMRequest, model: str, *, timeout: float) -> Completion:
        return self.answer


async def cpu(call: Callable[[], Awaitable[object]], callers: int) -> float:
    """Microseconds of CPU that one call takes of this process, with so many callers at a time."""

    async def caller(calls: int) -> None:
        for _ in range(calls):
            await call()

    await caller(WARM_UP)
    started = time.process_time()
    await asyncio.gather(*(caller(CALLS // callers) for _ in range(callers)))
    return (time.process_time() - started) / (CALLS // callers * callers) * 1e6


async def ours() -> dict[str, float]:
    """`chat`, less the vendor's own call."""
    vendor = AtOnce()

    def request() -> LLMRequest:
        return LLMRequest(model="acme:gpt-4o-mini", messages=[Message(role="user", content=QUESTION)])

    asked = request()
    with tempfile.TemporaryDirectory() as folder:
        async with LLMBridge(f"sqlite:///{folder}/calls.db") as bridge:
            bridge.register_provider("acme", vendor, priced_as="openai")
            bare = await cpu(lambda: vendor.complete(asked, "gpt-4o-mini", timeout=60), 1)
            return {
                str(callers): await cpu(lambda: bridge.chat(request(), id_at_origin="user-1"), callers) - bare
                for callers in CALLERS
            }


def measured(python: str, module: str) -> dict[int, float]:
    """What another process measures."""
    done = subprocess.run([python, "-m", module, "measure"], stdout=subprocess.PIPE, check=True)
    return {int(callers): took for callers, took in json.loads(done.stdout.splitlines()[-1]).items()}


def compare() -> None:
    """Measure in turn, and report."""
    ways = {"chat": (sys.executable, "bench.chat")}
    if litellm := os.environ.get("LLMBRIDGE_BENCH_LITELLM"):
        ways["acompletion"] = (str(Path(litellm)), "bench.litellm_mock")
    rounds = [{name: measured(*way) for name, way in ways.items()} for _ in range(ROUNDS)]
    print(f"CPU beside the vendor's call, microseconds, medians of {ROUNDS} rounds of {CALLS:,} calls")
    for callers in CALLERS:
        took = {name: median(each[name][callers] for each in rounds) for name in ways}
        told = ", ".join(f"{name} {us:,.0f}" for name, us in took.items())
        if "acompletion" in took:
            share = took["chat"] / took["acompletion"]
            told += f": {share:.2f} of LiteLLM's ({'within' if share <= MOST else 'MORE THAN'} {MOST})"
        print(f"{callers:3} callers: {told}")


if __name__ == "__main__":
    if sys.argv[1:] == ["measure"]:
        print(json.dumps(asyncio.run(ours())))
    else:
        compare()
