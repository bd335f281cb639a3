"""Stores that llmbridge-py made: ours live beside its tables, which stay as they are and go on working."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from llmbridge import LLMBridge, LLMRequest, Message
from llmbridge.db import LLMDatabase

from ...support.postgres_server import OwnServer

Upstream = Callable[..., Any]

REQUEST = LLMRequest(model="echo:parrot", messages=[Message(role="user", content="Hi")])

#: Opens its store, records a call and says how many calls there are.
POSTGRESQL = """
import asyncio, json, sys
from llmbridge.db import LLMDatabase

async def main():
    db = LLMDatabase(sys.argv[1])
    await db.initialize()
    await db.apply_migrations()
    await db.record_api_call(
        origin="app", id_at_origin="user-1", provider="openai", model_name="gpt-4o", prompt_tokens=10,
        completion_tokens=20, response_time_ms=30,
    )
    print(json.dumps(len(await db.list_recent_calls("app"))))
    await db.close()

asyncio.run(main())
"""

SQLITE = """
import asyncio, json, sys
from datetime import datetime, timezone
from decimal import Decimal
from uuid import uuid4
from llmbridge.db_sqlite import SQLiteDatabase
from llmbridge.schemas import CallRecord

async def main():
    async with SQLiteDatabase(sys.argv[1]) as db:
        await db.record_api_call(CallRecord(
            id=uuid4(), origin="app", id_at_origin="user-1", provider="openai", model_name="gpt-4o", prompt_tokens=10,
            completion_tokens=20, total_tokens=30, estimated_cost=Decimal("0.5"), status="success",
            called_at=datetime.now(timezone.utc),
        ))
        print(json.dumps(len(await db.get_recent_calls())))

asyncio.run(main())
"""


async def keep_books(url: str, caplog: pytest.LogCaptureFixture) -> str:
    """Use a store as an application does, and give its one warning."""
    with caplog.at_level(logging.WARNING):
        async with LLMBridge(url) as bridge:
            response = await bridge.chat(REQUEST, id_at_origin="user-1")
            assert response.record_status == "committed"
            stats = await bridge.get_usage_stats("user-1")
            assert stats is not None
            assert stats.total_calls == 1
    [warning] = caplog.records
    return warning.getMessage()


#: What llmbridge-py makes, by its text; the names are those of its migration.
MADE = """
SELECT indexdef AS text FROM pg_indexes WHERE schemaname = 'llmbridge' AND tablename = ANY ($tables)
UNION ALL SELECT pg_get_triggerdef(oid) FROM pg_trigger
WHERE tgrelid::regclass::text = ANY (SELECT 'llmbridge.' || unnest($tables)) AND NOT tgisinternal
UNION ALL SELECT pg_get_functiondef(oid) FROM pg_proc WHERE pronamespace = 'llmbridge'::regnamespace
UNION ALL SELECT table_name || column_name || data_type || coalesce(column_default, '')
FROM information_schema.columns WHERE table_schema = 'llmbridge' AND table_name = ANY ($tables)
ORDER BY 1
"""
TABLES = ("llm_api_calls", "llm_models", "schema_migrations", "usage_analytics_daily")


def contents_of(server: OwnServer, database: str) -> dict[str, list[str]]:
    """All that llmbridge-py keeps: every row of its tables, and the text of all that it made."""
    names = ", ".join(f"'{table}'" for table in TABLES)
    made = server.run(MADE.replace("$tables", f"ARRAY[{names}]"), database=database)
    rows = {
        table: sorted(map(str, server.run(f"SELECT * FROM llmbridge.{table}", database=database))) for table in TABLES
    }
    return {**rows, "made": [row["text"] for row in made]}


async def test_a_database_of_upstream_is_joined_and_left_as_it_is(
    server: OwnServer, upstream: Upstream, caplog: pytest.LogCaptureFixture
) -> None:
    with server.database("ENCODING 'UTF8'") as database:
        url = server.database_url(database)
        where = f"postgresql://postgres@/{database}?host={server.socket}"
        assert upstream(POSTGRESQL, where) == 1
        before = contents_of(server, database)
        warning = await keep_books(url, caplog)
        assert "llm_api_calls" in warning
        assert contents_of(server, database) == before
        assert upstream(POSTGRESQL, where) == 2
        db = LLMDatabase(url)
        await db.initialize()
        assert (await db.schema_status()).pending == []
        assert len(await db.list_recent_calls("llmbridge")) == 1
        await db.close()


async def test_upstream_opens_a_database_of_ours(server: OwnServer, upstream: Upstream) -> None:
    with server.database("ENCODING 'UTF8'") as database:
        async with LLMBridge(server.database_url(database)) as bridge:
            await bridge.chat(REQUEST)
            assert upstream(POSTGRESQL, f"postgresql://postgres@/{database}?host={server.socket}") == 1
            assert (await bridge.chat(REQUEST)).record_status == "committed"


async def test_a_file_of_upstream_is_joined_and_left_as_it_is(
    tmp_path: Path, upstream: Upstream, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "calls.db"

    def theirs() -> list[str]:
        with closing(sqlite3.connect(path)) as connection:
            made = connection.execute(
                "SELECT sql FROM sqlite_master WHERE tbl_name IN ('models', 'api_calls') ORDER BY sql"
            ).fetchall()
            rows = [connection.execute(f"SELECT * FROM {table}").fetchall() for table in ("models", "api_calls")]
        return [str(made), *map(str, rows)]

    assert upstream(SQLITE, str(path)) == 1
    before = theirs()
    warning = await keep_books(f"sqlite:///{path}", caplog)
    assert "api_calls" in warning
    assert theirs() == before
    assert upstream(SQLITE, str(path)) == 2
