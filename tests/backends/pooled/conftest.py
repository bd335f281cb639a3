"""A PostgreSQL server behind a pooler, and a new database for every test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ...support.pooler import Pooler, pooling
from ...support.postgres_server import OwnServer, Server, running


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    with running() as server:
        yield server


@pytest.fixture(scope="session")
def pooler(server: Server) -> Iterator[Pooler]:
    with pooling(server) as pooler:
        yield pooler


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
def direct(server: Server, database: str) -> str:
    """The URL of the new database at the server itself."""
    return server.database_url(database)


@pytest.fixture
def pooled(pooler: Pooler, database: str) -> str:
    """Its URL over the pooler, with the flag."""
    return pooler.url(database, pgbouncer="true")


@pytest.fixture
def unflagged(pooler: Pooler, database: str) -> str:
    """Its URL over the pooler, without the flag."""
    return pooler.url(database)
