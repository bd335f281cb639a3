"""Benchmark of the overhead of `chat`: CPU time per call without the provider's part, compared with LiteLLM.

The provider runs in this process and returns at once. llmbridge commits every call to a SQLite file before it returns;
LiteLLM returns a mocked response and records nothing. Each library is measured in a process of its own, with all its
threads, in alternating rounds, and the medians are compared. LLMBRIDGE_BENCH_LITELLM names a Python that has LiteLLM;
without it only `chat` is measured.
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
    """Provider that returns at once."""

    response = Completion(
        content=ANSWER,
        model="gpt-4o-mini",
        finish_reason="stop",
        usage=TokenUsage(prompt_tokens=12, completion_tokens=5),
        response_id="response-1",
    )

    async def complete(self, request: LLMRequest, model: str, *, timeout: float) -> Completion:
        return self.response


async def cpu(call: Callable[[], Awaitable[object]], callers: int) -> float:
    """Return the CPU time of one call in microseconds, with `callers` concurrent callers."""

    async def caller(calls: int) -> None:
        for _ in range(calls):
            await call()

    await caller(WARM_UP)
    started = time.process_time()
    await asyncio.gather(*(caller(CALLS // callers) for _ in range(callers)))
    return (time.process_time() - started) / (CALLS // callers * callers) * 1e6


async def ours() -> dict[str, float]:
    """Return the CPU time of `chat` per number of callers, without the provider's own part."""
    provider = AtOnce()

    def request() -> LLMRequest:
        return LLMRequest(model="acme:gpt-4o-mini", messages=[Message(role="user", content=QUESTION)])

    asked = request()
    with tempfile.TemporaryDirectory() as folder:
        async with LLMBridge(f"sqlite:///{folder}/calls.db") as bridge:
            bridge.register_provider("acme", provider, priced_as="openai")
            bare = await cpu(lambda: provider.complete(asked, "gpt-4o-mini", timeout=60), 1)
            return {
                str(callers): await cpu(lambda: bridge.chat(request(), id_at_origin="user-1"), callers) - bare
                for callers in CALLERS
            }


def measured(python: str, module: str) -> dict[int, float]:
    """Run one measurement in another process and return its figures."""
    done = subprocess.run([python, "-m", module, "measure"], stdout=subprocess.PIPE, check=True)
    return {int(callers): took for callers, took in json.loads(done.stdout.splitlines()[-1]).items()}


def compare() -> None:
    """Run the rounds and print the medians."""
    ways = {"chat": (sys.executable, "bench.chat")}
    if litellm := os.environ.get("LLMBRIDGE_BENCH_LITELLM"):
        ways["acompletion"] = (str(Path(litellm)), "bench.litellm_mock")
    rounds = [{name: measured(*way) for name, way in ways.items()} for _ in range(ROUNDS)]
    print(f"CPU time without the provider, microseconds, medians of {ROUNDS} rounds of {CALLS:,} calls")
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
