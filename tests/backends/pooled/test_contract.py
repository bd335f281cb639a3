"""PostgreSQL behind a pooler in transaction mode fulfils the storage contract, except for migrating."""

from __future__ import annotations

import asyncio
from contextlib import AbstractContextManager
from itertools import count

import pytest

from llmbridge.testing import StorageContract
from llmbridge_postgres import PostgreSQLBackend

from ...support.pooler import Pooler
from ...support.postgres_server import Server

_numbers = count(1)


async def migrate(url: str) -> None:
    async with PostgreSQLBackend(url) as backend:
        await backend.apply_migrations()


class TestPooled(StorageContract):
    # These migrate a new store, which is done at the server itself.
    test_an_empty_store_has_no_schema_and_says_what_is_pending = None
    test_migrating_applies_what_is_pending_and_reports_it = None
    test_many_migrators_at_once_migrate_once = None
    test_several_backends_opening_a_new_shared_store_migrate_it_once = None

    @pytest.fixture
    def storage_url(self, server: Server, pooler: Pooler, library: str) -> str:
        schema = f"contract_{next(_numbers)}"
        asyncio.run(migrate(server.database_url(library, schema=schema)))
        return pooler.url(library, pgbouncer="true", schema=schema)

    @pytest.fixture
    def storage_outage(self, pooler: Pooler) -> AbstractContextManager[None]:
        return pooler.stopped()
