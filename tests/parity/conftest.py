"""The three databases that must agree, and the number of sequences."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ..support.postgres_server import Server, running
from .stores import Arena, MemoryStore, PostgreSQLStore, SQLiteStore


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    with running() as server:
        yield server


@pytest.fixture
def arena(server: Server, tmp_path: Path) -> Iterator[Arena]:
    with (
        server.database() as name,
        Arena.of(MemoryStore(), SQLiteStore(tmp_path), PostgreSQLStore(server.database_url(name))) as arena,
    ):
        yield arena
