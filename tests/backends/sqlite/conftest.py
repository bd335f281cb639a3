"""A migrated database in a new file, and other programs that read it."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from llmbridge_sqlite import SQLiteBackend


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "calls.db"


@pytest.fixture
async def backend(path: Path) -> AsyncIterator[SQLiteBackend]:
    async with SQLiteBackend(path) as backend:
        await backend.apply_migrations()
        yield backend


@pytest.fixture
def other(path: Path) -> Iterator[Callable[..., sqlite3.Connection]]:
    """Opens the file as another program would; every connection is closed at the end."""
    opened: list[sqlite3.Connection] = []

    def connect(**options: Any) -> sqlite3.Connection:
        connection = sqlite3.connect(path, isolation_level=None, **options)
        connection.row_factory = sqlite3.Row
        opened.append(connection)
        return connection

    yield connect
    for connection in opened:
        connection.close()


@pytest.fixture
def python(path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts a program in a process of its own, with the path of the store as its first argument."""
    started: list[subprocess.Popen[str]] = []

    def start(program: str, *args: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", program, str(path), *args],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        with process:
            process.kill()


@pytest.fixture
def shell(path: Path) -> Callable[[str], list[sqlite3.Row]]:
    """Runs statements on the file with Python's own sqlite3, committed, and gives the rows of the last."""

    def run(script: str) -> list[sqlite3.Row]:
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.row_factory = sqlite3.Row
            rows: list[sqlite3.Row] = []
            for statement in filter(str.strip, script.split(";")):
                rows = connection.execute(statement).fetchall()
            return rows

    return run
