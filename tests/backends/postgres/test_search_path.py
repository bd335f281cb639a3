"""Names in a search path that others may fill lead to no function, operator, type or table of theirs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import asyncpg
import pytest
from pgdbm import AsyncDatabaseManager

from llmbridge.storage import CallQuery, CostChange, LLMModel, ModelPrice, UsageQuery
from llmbridge.storage.reference import summarize
from llmbridge.storage.types import EARLIEST
from llmbridge.testing import make_call
from llmbridge.testing.comparison import assert_same
from llmbridge_postgres import PostgreSQLBackend

from ...support.postgres_server import Server

Shell = Callable[..., list[dict[str, object]]]
Open = Callable[[], Any]

#: Every function and operator of PostgreSQL once more, such that using it fails. Those that only its own code can call
#: are left out.
PLANT = """
DO $plant$
DECLARE
    it record;
BEGIN
    SET LOCAL check_function_bodies = off;
    FOR it IN
        SELECT DISTINCT proname AS name, pg_get_function_identity_arguments(oid) AS arguments
        FROM pg_proc
        WHERE pronamespace = 'pg_catalog'::regnamespace AND provariadic = 0 AND proallargtypes IS NULL
            AND NOT EXISTS (
                SELECT FROM unnest(proargtypes::oid[]) AS argument
                WHERE argument IN ('internal'::regtype, 'cstring'::regtype, '"any"'::regtype, 'trigger'::regtype)
            )
    LOOP
        BEGIN
            EXECUTE format(
                'CREATE FUNCTION evil.%I(%s) RETURNS text LANGUAGE plpgsql AS $$BEGIN RAISE ''hijacked''; END$$',
                it.name, regexp_replace(it.arguments, 'ORDER BY', ', ')
            );
        EXCEPTION WHEN others THEN NULL;
        END;
    END LOOP;
    FOR it IN
        SELECT
            oprname AS name, oprleft::regtype::text AS left_type, oprright::regtype::text AS right_type,
            oprresult::regtype::text AS result, oprkind AS kind
        FROM pg_operator WHERE oprnamespace = 'pg_catalog'::regnamespace
    LOOP
        BEGIN
            IF it.kind = 'b' THEN
                EXECUTE format(
                    'CREATE FUNCTION evil.op(%s, %s) RETURNS %s LANGUAGE plpgsql AS $$BEGIN RAISE ''hijacked''; END$$',
                    it.left_type, it.right_type, it.result
                );
                EXECUTE format(
                    'CREATE OPERATOR evil.%s (FUNCTION = evil.op, LEFTARG = %s, RIGHTARG = %s)',
                    it.name, it.left_type, it.right_type
                );
                EXECUTE format('ALTER FUNCTION evil.op(%s, %s) RENAME TO op_%s', it.left_type, it.right_type,
                    md5(it.name || it.left_type || it.right_type));
            END IF;
        EXCEPTION WHEN others THEN NULL;
        END;
    END LOOP;
    -- Types and tables of the same names.
    FOR it IN
        SELECT typname AS name FROM pg_type
        WHERE typnamespace = 'pg_catalog'::regnamespace AND typtype = 'b' AND typname !~ '^_'
    LOOP
        EXECUTE format('CREATE TABLE evil.%I (hijacked int)', it.name);
    END LOOP;
    FOREACH it.name IN ARRAY ARRAY[
        'pg_class', 'pg_namespace', 'pg_type', 'llmbridge_calls', 'llmbridge_state', 'llmbridge_lots',
        'llmbridge_schema', 'llmbridge_migrations', 'llmbridge_models', 'llmbridge_prices', 'llmbridge_incoming',
        'llmbridge_usage_by_user', 'llmbridge_usage_by_time', 'call_log', 'usage_summary', 'usage_hours'
    ] LOOP
        EXECUTE format('CREATE TABLE evil.%I (hijacked int)', it.name);
    END LOOP;
END
$plant$
"""
#: A function that fits literals better than that of PostgreSQL, also where the path names PostgreSQL's schema first.
FITTING_BETTER = """
CREATE FUNCTION evil.date_bin(text, timestamptz, text) RETURNS timestamptz
LANGUAGE plpgsql AS $$BEGIN RAISE 'hijacked'; END$$
"""
PATHS = ["evil, pg_catalog", "public, evil", "nonsense"]


async def _keep(connection: asyncpg.Connection) -> None:
    """Reset nothing: what asyncpg does itself would call functions by the search path of the pool."""


@pytest.fixture
def planted(shell: Shell) -> None:
    shell("CREATE SCHEMA evil", PLANT, FITTING_BETTER)
    for kind, prefix, least in (("proc", "pro", 2_000), ("operator", "opr", 600)):
        [row] = shell(f"SELECT count(*) AS planted FROM pg_{kind} WHERE {prefix}namespace = 'evil'::regnamespace")
        assert int(str(row["planted"])) > least


@pytest.fixture(params=["of the role", "of a borrowed pool"])
def open_store(request: pytest.FixtureRequest, planted: None, url: str, server: Server, database: str) -> Open:
    """Open the store where the search path is that of the role, or of a connection of the host application."""

    @asynccontextmanager
    async def of_role(path: str) -> AsyncIterator[PostgreSQLBackend]:
        server.run(f"ALTER DATABASE {database} SET search_path TO {path}")
        async with PostgreSQLBackend(url, fold_after=10) as backend:
            yield backend

    @asynccontextmanager
    async def borrowed(path: str) -> AsyncIterator[PostgreSQLBackend]:
        async with asyncpg.create_pool(
            url, min_size=1, max_size=3, server_settings={"search_path": path}, reset=_keep
        ) as pool:
            async with PostgreSQLBackend(db_manager=AsyncDatabaseManager(pool=pool), fold_after=10) as backend:
                yield backend
            shown = await pool.fetch("SHOW search_path")
            assert [row["search_path"] for row in shown] == [path]

    return of_role if request.param == "of the role" else borrowed


@pytest.mark.parametrize("path", PATHS)
async def test_every_operation_uses_the_functions_of_postgresql(open_store: Open, path: str) -> None:
    at = datetime(2024, 3, 1, tzinfo=UTC)
    calls = [
        make_call(
            number,
            called_at=at + timedelta(hours=7 * number),
            metadata={"team": "a"},
            tools_used=["t"],
            id_at_origin=f"user-{number % 3}",
            estimated_cost=Decimal("0.25"),
            response_time_ms=100 + number,
        )
        for number in range(40)
    ]
    queries = [
        UsageQuery(),
        UsageQuery(group_by=("origin", "id_at_origin", "provider", "model_name", "status")),
        UsageQuery(group_by=("tag:team",), filters={"tag:team": ("a", None)}),
        UsageQuery(group_by=("period",), edges=tuple(at + timedelta(hours=hour) for hour in range(0, 200, 3))),
        UsageQuery(group_by=("period",), filters={"origin": ("app",)}, edges=(EARLIEST, at, at + timedelta(days=3))),
    ]
    async with open_store(path) as backend:
        await backend.apply_migrations()
        status = await backend.schema_status()
        assert (status.pending, status.writable, status.read_only) == ([], True, False)
        assert (await backend.record_calls(calls)).inserted == len(calls)
        assert (await backend.record_calls(calls)).duplicates == len(calls)
        for _ in range(2):  # before and after folding
            for query in queries:
                assert_same(await backend.summarize_usage(query), summarize(calls, query))
            await backend.fold_totals()
        newest = await backend.list_calls(CallQuery(since=at, limit=10, filters={"origin": (calls[0].origin,)}))
        assert_same(newest.calls, calls[:-11:-1])
        page = await backend.list_calls(CallQuery(ids=[calls[0].id], until=at + timedelta(days=1)))
        assert_same(page.calls, calls[:1])
        change = CostChange(
            id=calls[0].id, cost=Decimal(3), cost_source="own_prices", cost_reason=None, price_version="1", at=at
        )
        assert await backend.reprice_calls([change]) == 1
        model = LLMModel(provider="openai", model_name="gpt-4o")
        assert (await backend.upsert_models([model])).inserted == 1
        assert (await backend.upsert_models([model])).updated == 1
        assert len(await backend.list_models("openai", "gpt-4o")) == 1
        assert await backend.retire_models([("openai", "gpt-4o")], at) == 1
        await backend.set_prices([ModelPrice("openai", "gpt-4o", at, input=Decimal(1))])
        assert len(await backend.list_prices()) == 1
        assert await backend.erase_user(calls[0].origin, "user-1") == 13
        assert (await backend.check_totals(repair=True)).wrong == 0
        assert await backend.purge_calls(at + timedelta(days=5)) > 0
        totals = await backend.read_totals()
        await backend.write_totals(totals.rows, totals.watermark)
        assert await backend.erase_user(calls[0].origin, "user-2") > 0
        assert (await backend.summarize_usage(UsageQuery()))[0].calls == len(calls)
        await backend.ping()
        for view in ("call_log", "usage_summary", "usage_hours"):
            assert await backend.fetch_all(f"SELECT * FROM {{{{tables.{view}}}}} LIMIT 3")
