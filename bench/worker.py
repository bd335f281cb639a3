"""Worker process of `upstream.py`: records calls for some seconds and prints the figures as one JSON object.

It measures the llmbridge that is installed in the running Python, this repository's or llmbridge-py, and records as the
service of each does, price included. It imports nothing else of this repository.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from statistics import median
from typing import Any

USAGE = {"prompt_tokens": 812, "completion_tokens": 97}
MODEL = {"provider": "openai", "model_name": "gpt-4o-mini"}

Record = Callable[[], Awaitable[Any]]


async def ours(url: str, closing: AsyncExitStack) -> Record:
    from llmbridge import LLMDatabase

    db = await closing.enter_async_context(LLMDatabase(url))

    async def record() -> None:
        await db.record_api_call(origin="bench", id_at_origin="user-1", response_time_ms=640, **MODEL, **USAGE)

    return record


async def upstream_on_sqlite(path: str, closing: AsyncExitStack) -> Record:
    from datetime import UTC, datetime
    from decimal import Decimal
    from uuid import uuid4

    from llmbridge.db_sqlite import SQLiteDatabase

    from llmbridge.schemas import CallRecord

    db = await closing.enter_async_context(SQLiteDatabase(path))

    async def record() -> None:
        model = await db.get_model(*MODEL.values())
        rates = model.dollars_per_million_tokens_input, model.dollars_per_million_tokens_output
        cost = Decimal(0)
        for tokens, rate in zip(USAGE.values(), rates, strict=True):
            cost += Decimal(str(tokens)) * rate / Decimal(1000000)
        await db.record_api_call(
            CallRecord(
                id=uuid4(),
                origin="bench",
                id_at_origin="user-1",
                total_tokens=sum(USAGE.values()),
                estimated_cost=cost,
                dollars_per_million_tokens_input_used=rates[0],
                dollars_per_million_tokens_output_used=rates[1],
                called_at=datetime.now(UTC),
                **MODEL,
                **USAGE,
            )
        )

    return record


async def upstream_on_postgres(url: str, closing: AsyncExitStack) -> Record:
    from llmbridge.db import LLMDatabase

    db = LLMDatabase(url)
    await db.initialize()
    closing.push_async_callback(db.close)
    await db.apply_migrations()

    async def record() -> None:
        await db.record_api_call(origin="bench", id_at_origin="user-1", response_time_ms=640, **MODEL, **USAGE)

    return record


async def measure(record: Record, callers: int, seconds: float, pause: float) -> dict[str, float]:
    """Let `callers` callers record calls, each with a pause of 0 to `pause` seconds between two calls."""
    waits: list[float] = []
    await record()
    end = time.perf_counter() + seconds

    async def caller() -> None:
        while (started := time.perf_counter()) < end:
            await record()
            waits.append(time.perf_counter() - started)
            if pause:
                await asyncio.sleep(random.uniform(0, pause))

    began = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(callers)))
    return {"calls": len(waits), "seconds": time.perf_counter() - began, "p50_ms": median(waits) * 1000}


async def run(wanted: argparse.Namespace) -> dict[str, float]:
    make = {"ours": ours, "upstream-sqlite": upstream_on_sqlite, "upstream-postgres": upstream_on_postgres}
    async with AsyncExitStack() as closing:
        record = await make[wanted.library](wanted.store, closing)
        return await measure(record, wanted.callers, wanted.seconds, wanted.pause)


def main() -> None:
    logging.disable(logging.WARNING)  # upstream tells of every query that took long
    parser = argparse.ArgumentParser()
    parser.add_argument("library", choices=("ours", "upstream-sqlite", "upstream-postgres"))
    parser.add_argument("store")
    parser.add_argument("--callers", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--pause", type=float, default=0)
    print(json.dumps(asyncio.run(run(parser.parse_args()))))


if __name__ == "__main__":
    main()
