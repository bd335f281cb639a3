"""Benchmark of the event loop's share in recording a call, in multiples of making one CallRecord.

This is what an application loses for its own work, whatever the speed of the database is.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from tests.support.postgres_server import running

from llmbridge._shared.ids import new_id
from llmbridge.db import LLMDatabase
from llmbridge.schemas import CallRecord

from .workload import CALLS, FIELDS, HOW, seconds, share

CALLERS = 64
#: Recording a call may take at most this many times the work of making a CallRecord.
MOST = {"SQLite": 6, "PostgreSQL": 12}


async def compare(urls: dict[str, str]) -> None:
    """Measure both backends and print the figures."""
    fields = {**FIELDS, "id": new_id(), "called_at": datetime.now(UTC)}
    made = "making a CallRecord"

    async def make() -> None:
        for _ in range(CALLS):
            CallRecord(**fields)

    async with LLMDatabase(urls["SQLite"]) as sqlite, LLMDatabase(urls["PostgreSQL"]) as postgres:

        async def record(db: LLMDatabase) -> None:
            await share(CALLERS, lambda _: db.record_api_call(**FIELDS))

        await record(sqlite)
        await record(postgres)
        taken = await seconds(
            {made: make, "SQLite": lambda: record(sqlite), "PostgreSQL": lambda: record(postgres)},
            time.thread_time,
            lambda: asyncio.sleep(0),
        )
    for name, each in taken.items():
        print(f"{name:20} {each * 1e6:6.1f} us of the event loop's thread a call")
    for name, most in MOST.items():
        print(f"{name}: {taken[name] / taken[made]:.1f} times the work of {made} (at most {most})")


def main() -> None:
    print(f"{CALLERS} callers; {HOW}")
    with running() as server, server.database() as name, tempfile.TemporaryDirectory(prefix="llmbridge-") as folder:
        urls = {"SQLite": f"sqlite:///{Path(folder) / 'calls.db'}", "PostgreSQL": server.database_url(name)}
        asyncio.run(compare(urls))


if __name__ == "__main__":
    main()
