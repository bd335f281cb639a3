"""The stores and the processes that faults are injected into."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest

from ..support.postgres_server import OwnServer, Server, own, running
from .books import Books, PostgreSQLBooks, SQLiteBooks
from .processes import Zygote, zygote

MakeBooks = Callable[[], Books]


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
def new_sqlite(tmp_path: Path) -> MakeBooks:
    numbers = count()

    def make() -> Books:
        return SQLiteBooks(tmp_path / f"books-{next(numbers)}")

    return make


@pytest.fixture
def new_postgres(server: Server, tmp_path: Path) -> Iterator[MakeBooks]:
    numbers = count()
    databases = []

    def make() -> Books:
        database = server.database()
        databases.append(database)
        return PostgreSQLBooks(server, database.__enter__(), tmp_path / f"books-{next(numbers)}")

    yield make
    for database in databases:
        database.__exit__(None, None, None)


@pytest.fixture(params=["sqlite", "postgres"])
def new_books(request: pytest.FixtureRequest) -> MakeBooks:
    """Makes books in a new store."""
    made: MakeBooks = request.getfixturevalue(f"new_{request.param}")
    return made
