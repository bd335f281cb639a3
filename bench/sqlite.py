"""Benchmark of recording in a SQLite file, compared with the standard library's sqlite3 alone.

sqlite3 writes the same rows into the same table, in transactions of as many rows as there are callers.
"""

from __future__ import annotations

import asyncio
import sqlite3
import tempfile
import time
from contextlib import closing
from pathlib import Path

from llmbridge._shared.ids import new_id
from llmbridge.db import LLMDatabase
from llmbridge.storage import CallQuery
from llmbridge_sqlite.codec import CALL_COLUMNS, encode_call

from .workload import CALLS, FIELDS, HOW, seconds, share

CALLERS = 64
#: Settings of `synchronous`, with the least share of the rate of sqlite3 alone.
LEVELS = {"normal": 0.35, "full": 0.45}

INSERT = " ".join(
    ("INSERT INTO llmbridge_calls (", ", ".join(CALL_COLUMNS), ") VALUES (", ", ".join("?" * len(CALL_COLUMNS)), ")")
)


async def compare(file: Path, level: str) -> float:
    """Measure, print the figures, and return our rate as a share of that of sqlite3 alone."""
    async with LLMDatabase(f"sqlite:///{file}?synchronous={level}") as db:
        backend = db.backend
        assert backend is not None
        with closing(sqlite3.connect(file, isolation_level=None)) as alone:
            alone.execute(f"PRAGMA synchronous = {level}")
            await share(CALLERS, lambda _: db.record_api_call(**FIELDS))
            [call] = (await backend.list_calls(CallQuery(limit=1))).calls
            rows = [encode_call(call.model_copy(update={"id": new_id()})) for _ in range(CALLS)]

            async def write() -> None:
                for first in range(0, CALLS, CALLERS):
                    alone.execute("BEGIN IMMEDIATE")
                    alone.executemany(INSERT, rows[first : first + CALLERS])
                    alone.execute("COMMIT")

            async def empty() -> None:
                alone.execute("DELETE FROM llmbridge_calls")
                alone.execute("UPDATE llmbridge_state SET folded = 0")

            taken = await seconds(
                {"ours": lambda: share(CALLERS, lambda _: db.record_api_call(**FIELDS)), "alone": write},
                time.perf_counter,
                empty,
            )
    for name, each in taken.items():
        print(f"synchronous={level:8} {name:6} {1 / each:10,.0f} calls/s")
    return taken["alone"] / taken["ours"]


def main() -> None:
    print(f"SQLite {sqlite3.sqlite_version}, a file, {CALLERS} callers; {HOW}")
    with tempfile.TemporaryDirectory(prefix="llmbridge-") as folder:
        for level, least in LEVELS.items():
            part = asyncio.run(compare(Path(folder) / f"{level}.db", level))
            print(f"synchronous={level}: {part:.2f} of sqlite3 alone (at least {least})")


if __name__ == "__main__":
    main()
