"""The PostgreSQL backend fulfils the whole storage contract, also over a pool of one connection."""

from __future__ import annotations

from contextlib import AbstractContextManager
from itertools import count

import pytest

from llmbridge.storage import StorageBackend
from llmbridge.testing import StorageContract
from llmbridge_postgres import PostgreSQLBackend

from ..support.postgres_server import Server

_numbers = count(1)


class TestPostgreSQL(StorageContract):
    @pytest.fixture
    def storage_url(self, server: Server, library: str) -> str:
        return server.database_url(library, schema=f"contract_{next(_numbers)}")

    @pytest.fixture
    def other_storage_url(self, server: Server, library: str) -> str:
        return server.database_url(library, schema=f"contract_{next(_numbers)}")

    @pytest.fixture
    def storage_outage(self, server: Server, library: str) -> AbstractContextManager[None]:
        return server.without(library)


class TestFoldedAtOnce(TestPostgreSQL):
    """Totals are folded after every batch, beside what the test goes on to do."""

    def make_backend(self, url: str) -> StorageBackend:
        return PostgreSQLBackend(url, fold_after=1)


class TestPoolOfOne(TestPostgreSQL):
    @pytest.fixture
    def storage_url(self, server: Server, library: str) -> str:
        return server.database_url(library, schema=f"contract_{next(_numbers)}", max_connections=1)
