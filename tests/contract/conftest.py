"""The PostgreSQL server of the test session, and one database whose schemas the tests share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:  # the contract of the memory backend is also tested where no driver of PostgreSQL is installed
    from ..support.postgres_server import Server


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    from ..support.postgres_server import running

    with running() as server:
        yield server


@pytest.fixture(scope="session")
def library(server: Server) -> Iterator[str]:
    """The name of the database."""
    from ..support.postgres_server import OwnServer

    with server.database(drop=not isinstance(server, OwnServer)) as name:
        yield name
