"""Benchmark of recording, compared with llmbridge-py 0.2.3, and of two processes compared with one.

`bench/worker.py` measures each way in a process of its own, on a new database each time, in alternating rounds; the
medians are compared. LLMBRIDGE_TEST_UPSTREAM_PYTHON names a Python that has llmbridge-py, whose migrations need a
PostgreSQL with pgcrypto.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from statistics import median

from tests.support.postgres_server import OwnServer, Server, running

ROUNDS, SECONDS = 5, 5.0
WORKER = Path(__file__).with_name("worker.py")

Measured = dict[str, float]
Way = Callable[[], Measured]


class Workers:
    """Runs the worker, each time on a new database."""

    def __init__(self, upstream: str, folder: Path, server: Server) -> None:
        self._upstream = upstream
        self._folder = folder
        self._server = server
        self._numbers = count()

    def sqlite(self, *options: str, query: str = "", processes: int = 1) -> Measured:
        """Measure llmbridge on a new file, with `processes` concurrent processes."""
        return _run([[sys.executable, str(WORKER), "ours", f"sqlite:///{self._file()}{query}", *options]] * processes)

    def upstream_on_sqlite(self, *options: str) -> Measured:
        """Measure llmbridge-py on a new file."""
        return _run([[self._upstream, str(WORKER), "upstream-sqlite", str(self._file()), *options]])

    def postgres(self, *options: str) -> Measured:
        """Measure llmbridge in a new PostgreSQL database."""
        with self._database() as url:
            return _run([[sys.executable, str(WORKER), "ours", url, *options]])

    def upstream_on_postgres(self, *options: str) -> Measured:
        """Measure llmbridge-py in a new PostgreSQL database."""
        with self._database() as url:
            return _run([[self._upstream, str(WORKER), "upstream-postgres", url, *options]])

    def _file(self) -> Path:
        return self._folder / f"{next(self._numbers)}.db"

    @contextmanager
    def _database(self) -> Iterator[str]:
        with self._server.database() as name:
            yield self._server.database_url(name)


def _run(commands: list[list[str]]) -> Measured:
    """Run the commands concurrently; return the sum of their calls per second and the worst p50."""
    running_now = [
        subprocess.Popen([*command, "--seconds", str(SECONDS)], stdout=subprocess.PIPE, text=True)
        for command in commands
    ]
    said = [json.loads(worker.communicate()[0]) for worker in running_now]
    return {
        "rate": sum(worker["calls"] / worker["seconds"] for worker in said),
        "p50_ms": max(worker["p50_ms"] for worker in said),
    }


def compare(ways: Mapping[str, Way]) -> dict[str, Measured]:
    """Measure all ways in alternating rounds and return the medians of each."""
    taken: dict[str, list[Measured]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, way in ways.items():
            taken[name].append(way())
    return {
        name: {figure: median(one[figure] for one in rounds) for figure in rounds[0]} for name, rounds in taken.items()
    }


def main() -> None:
    with running() as server, tempfile.TemporaryDirectory() as folder:
        if isinstance(server, OwnServer):
            server.run("ALTER SYSTEM SET fsync = on", "SELECT pg_reload_conf()")
        workers = Workers(os.environ["LLMBRIDGE_TEST_UPSTREAM_PYTHON"], Path(folder), server)
        pausing = ("--pause", "0.04")
        found = compare(
            {
                "SQLite full": workers.sqlite,
                "SQLite normal": lambda: workers.sqlite(query="?synchronous=normal"),
                "SQLite upstream": workers.upstream_on_sqlite,
                "SQLite full, pausing": lambda: workers.sqlite(*pausing),
                "SQLite upstream, pausing": lambda: workers.upstream_on_sqlite(*pausing),
                "SQLite full, two processes": lambda: workers.sqlite(processes=2),
                "PostgreSQL 64": workers.postgres,
                "PostgreSQL 64, upstream": workers.upstream_on_postgres,
                "PostgreSQL 256": lambda: workers.postgres("--callers", "256"),
                "PostgreSQL 256, upstream": lambda: workers.upstream_on_postgres("--callers", "256"),
            }
        )
    print(f"Medians of {ROUNDS} rounds of {SECONDS:g} s; 64 callers unless stated")
    for name, figures in found.items():
        print(f"{name:28} {figures['rate']:10,.0f} calls/s   p50 {figures['p50_ms']:8.2f} ms")
    rate = {name: figures["rate"] for name, figures in found.items()}
    slow, fast = (found[f"SQLite {name}, pausing"]["p50_ms"] for name in ("upstream", "full"))
    for name in ("full", "normal"):
        print(f"SQLite {name} is {rate[f'SQLite {name}'] / rate['SQLite upstream']:.2f} times upstream")
    print(f"pausing 0-40 ms, upstream's p50 is {slow / fast:.2f} times ours")
    print(f"two processes do {rate['SQLite full, two processes'] / rate['SQLite full']:.2f} times what one does")
    for callers in (64, 256):
        ratio = rate[f"PostgreSQL {callers}"] / rate[f"PostgreSQL {callers}, upstream"]
        print(f"PostgreSQL at {callers} callers is {ratio:.2f} times upstream")


if __name__ == "__main__":
    main()
