"""A server for the test session, a new database for every test, and programs that use it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator

import pytest

from llmbridge_postgres import PostgreSQLBackend

from ...support.postgres_server import OwnServer, Server, own, running


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    with running() as server:
        yield server


@pytest.fixture(scope="module")
def own_server() -> Iterator[OwnServer]:
    """A server of this module's own, to stop, kill and configure."""
    with own() as server:
        yield server


@pytest.fixture(scope="session")
def library(server: Server) -> Iterator[str]:
    """The name of a database for tests to which a schema of their own is enough."""
    with server.database(drop=not isinstance(server, OwnServer)) as name:
        yield name


@pytest.fixture
def database(server: Server) -> Iterator[str]:
    with server.database() as name:
        yield name


@pytest.fixture
def url(server: Server, database: str) -> str:
    return server.database_url(database)


@pytest.fixture
async def backend(url: str) -> AsyncIterator[PostgreSQLBackend]:
    """A connected and migrated store in the new database."""
    async with PostgreSQLBackend(url) as backend:
        await backend.apply_migrations()
        yield backend


@pytest.fixture
def shell(server: Server, database: str) -> Callable[..., list[dict[str, object]]]:
    """Runs statements in the new database as its superuser, and gives the rows of the last."""

    def run(*statements: str) -> list[dict[str, object]]:
        return [dict(row) for row in server.run(*statements, database=database)]

    return run


@pytest.fixture
def python(url: str) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts a program in a process of its own, with the URL of the store as its first argument."""
    started: list[subprocess.Popen[str]] = []

    def start(program: str, *args: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", program, url, *args],
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
