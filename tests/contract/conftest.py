"""The PostgreSQL server of the session, and one database in it whose schemas the tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ..support.postgres_server import OwnServer, Server, running


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    with running() as server:
        yield server


@pytest.fixture(scope="session")
def library(server: Server) -> Iterator[str]:
    """The name of the database."""
    with server.database(drop=not isinstance(server, OwnServer)) as name:
        yield name
