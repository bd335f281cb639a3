"""Fixtures: the databases and the processes that faults are injected into."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest

from ..support.postgres_server import OwnServer, Server, own, running
from .databases import DatabaseUnderTest, PostgreSQLUnderTest, SQLiteUnderTest
from .processes import Zygote, zygote

MakeDatabase = Callable[[], DatabaseUnderTest]


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    with running() as server:
        yield server


@pytest.fixture(scope="module")
def own_server() -> Iterator[OwnServer]:
    """A server of this module's own, to stop and to kill."""
    with own() as server:
        yield server


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Zygote]:
    with zygote(tmp_path_factory.mktemp("programs") / "log") as started:
        yield started


@pytest.fixture
def new_sqlite(tmp_path: Path) -> MakeDatabase:
    numbers = count()

    def make() -> DatabaseUnderTest:
        return SQLiteUnderTest(tmp_path / f"database-{next(numbers)}")

    return make


@pytest.fixture
def new_postgres(server: Server, tmp_path: Path) -> Iterator[MakeDatabase]:
    numbers = count()
    databases = []

    def make() -> DatabaseUnderTest:
        database = server.database()
        databases.append(database)
        return PostgreSQLUnderTest(server, database.__enter__(), tmp_path / f"database-{next(numbers)}")

    yield make
    for database in databases:
        database.__exit__(None, None, None)


@pytest.fixture(params=["sqlite", "postgres"])
def new_database(request: pytest.FixtureRequest) -> MakeDatabase:
    """Return a function that creates a new database."""
    made: MakeDatabase = request.getfixturevalue(f"new_{request.param}")
    return made
