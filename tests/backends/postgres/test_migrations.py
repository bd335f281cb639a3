"""Migrations: many processes at once, slow ones, few privileges, other releases, and existing tables."""

from __future__ import annotations

import asyncio
import logging
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from llmbridge.db import LLMDatabase
from llmbridge.errors import MigrationError, SchemaTooNewError, StorageRefusedError, StorageUnavailableError
from llmbridge.storage import CallQuery, ModelPrice, UsageQuery
from llmbridge.testing import make_call, make_model
from llmbridge.testing.records import EPOCH
from llmbridge_postgres import PostgreSQLBackend, schema
from llmbridge_postgres.codec import CALL_COLUMNS
from llmbridge_postgres.pool import OwnPool

from ...support.postgres_server import Server

Shell = Callable[..., list[dict[str, object]]]
Python = Callable[..., "subprocess.Popen[str]"]

#: Forks processes that begin at the same moment, once it has made them all.
STARTER = """
import asyncio, os, sys
from llmbridge.testing import make_call
from llmbridge_postgres import PostgreSQLBackend, backend

async def start(number):
    async with PostgreSQLBackend(sys.argv[1], max_connections=int(sys.argv[3])) as backend:
        report = await backend.apply_migrations()
        await backend.record_calls([make_call(number)])
        os.write(1, b"%d\\n" % len(report.applied))

ready, go = os.pipe()
children = []
for number in range(int(sys.argv[2])):
    child = os.fork()
    if child == 0:
        os.close(go)
        os.read(ready, 1)
        asyncio.run(start(number))
        os._exit(0)
    children.append(child)
os.close(go)
sys.exit(sum(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 0 for child in children))
"""

#: What a migration does, at its own pace: longer than the 5 seconds for which pgdbm waits for a lock.
SLOWLY = (
    "CREATE FUNCTION public.dawdle() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(3); END'",
    "CREATE EVENT TRIGGER dawdle ON ddl_command_start WHEN TAG IN ('CREATE VIEW') EXECUTE FUNCTION public.dawdle()",
)


def start_together(python: Python, number: int, max_connections: int = 5) -> list[str]:
    """How many migrations each of so many processes says to have applied."""
    program = python(STARTER, str(number), str(max_connections))
    out, err = program.communicate(timeout=200)
    assert program.returncode == 0, err
    return sorted(out.split())


async def calls_in(url: str) -> int:
    async with PostgreSQLBackend(url) as backend:
        return (await backend.summarize_usage(UsageQuery()))[0].calls


async def test_thirty_two_processes_start_together_on_a_fresh_database(python: Python, url: str) -> None:
    assert start_together(python, 32) == ["0"] * 31 + ["1"]
    assert await calls_in(url) == 32


async def test_processes_wait_while_one_migrates_for_longer_than_pgdbm_would(
    python: Python, url: str, shell: Shell
) -> None:
    shell(*SLOWLY)
    assert start_together(python, 32, max_connections=1) == ["0"] * 31 + ["1"]
    assert await calls_in(url) == 32


async def test_a_waiting_process_holds_no_connection(server: Server, url: str, database: str, shell: Shell) -> None:
    async with PostgreSQLBackend(url, max_connections=1) as first, PostgreSQLBackend(url, max_connections=1) as second:
        shell(*SLOWLY)
        migrating = asyncio.create_task(first.apply_migrations())
        while not shell("SELECT FROM pg_locks WHERE locktype = 'advisory' AND granted"):
            await asyncio.sleep(0.01)
        waiting = asyncio.create_task(second.apply_migrations())
        for _ in range(20):
            await second.ping()
        assert not waiting.done()
        reports = await asyncio.gather(migrating, waiting)
    assert [bool(report.applied) for report in reports] == [True, False]


async def test_a_pool_of_one_migrates(url: str) -> None:
    async with PostgreSQLBackend(url, max_connections=1) as backend:
        assert (await backend.apply_migrations()).applied == list(schema.MIGRATIONS)
        assert (await backend.record_calls([make_call()])).inserted == 1


async def test_a_cancelled_migration_leaves_nothing_locked(url: str, shell: Shell) -> None:
    shell(*SLOWLY)
    async with PostgreSQLBackend(url) as backend:
        migrating = asyncio.create_task(backend.apply_migrations())
        while not shell("SELECT FROM pg_stat_activity WHERE wait_event = 'PgSleep'"):
            await asyncio.sleep(0.01)
        migrating.cancel()
        await asyncio.gather(migrating, return_exceptions=True)
        assert (await backend.schema_status()).pending
        shell("DROP EVENT TRIGGER dawdle")
        assert (await backend.apply_migrations()).applied


async def test_a_migration_whose_connection_is_lost_can_be_tried_again(url: str, shell: Shell) -> None:
    shell(*SLOWLY)
    async with PostgreSQLBackend(url) as backend:
        migrating = asyncio.create_task(backend.apply_migrations())
        while not shell("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'PgSleep'"):
            await asyncio.sleep(0.01)
        with pytest.raises(StorageUnavailableError):
            await migrating
        shell("DROP EVENT TRIGGER dawdle")
        assert (await backend.apply_migrations()).applied


async def test_limits_of_a_pool_do_not_cut_a_migration(server: Server, database: str, shell: Shell) -> None:
    shell(*SLOWLY)
    url = server.database_url(database, options="-c statement_timeout=1000 -c lock_timeout=1000")
    async with PostgreSQLBackend(url) as backend:
        await backend.apply_migrations()
        assert await backend.fetch_value("SHOW statement_timeout") == "1s"


async def test_one_role_migrates_and_another_uses_without_deleting(server: Server, database: str, shell: Shell) -> None:
    with server.role([database]) as maker, server.role([database]) as user:
        shell(f"CREATE SCHEMA books AUTHORIZATION {maker}", f"REVOKE CREATE ON DATABASE {database} FROM PUBLIC")
        async with PostgreSQLBackend(server.database_url(database, user=maker), schema="books") as backend:
            await backend.apply_migrations()
        shell(
            f"GRANT USAGE ON SCHEMA books TO {user}",
            f"GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA books TO {user}",
        )
        async with PostgreSQLBackend(server.database_url(database, user=user), schema="books") as backend:
            assert not (await backend.schema_status()).pending
            assert (await backend.apply_migrations()).applied == []
            await backend.ping()
            assert (await backend.upsert_models([make_model()])).inserted == 1
            assert (await backend.upsert_models([make_model()])).updated == 1
            assert await backend.retire_models([("openai", "gpt-4o-mini")], EPOCH) == 1
            assert len(await backend.list_models(active_only=False)) == 1
            await backend.set_prices([ModelPrice("openai", "gpt-4o", EPOCH)] * 2)
            assert len(await backend.list_prices()) == 1
            assert (await backend.record_calls([make_call(), make_call()])).inserted == 1
            assert len((await backend.list_calls(CallQuery())).calls) == 1
            assert (await backend.summarize_usage(UsageQuery()))[0].calls == 1
            assert await backend.fetch_value("SELECT count(*) FROM {{tables.usage_summary}}") == 1


async def test_a_role_that_may_only_read_is_told_from_one_that_may_write(
    server: Server, url: str, database: str
) -> None:
    async with PostgreSQLBackend(url) as backend:
        assert not (await backend.schema_status()).read_only
        await backend.apply_migrations()
        assert not (await backend.schema_status()).read_only
    with server.role([database]) as reader:
        server.run(
            f"GRANT USAGE ON SCHEMA llmbridge TO {reader}",
            f"GRANT SELECT ON ALL TABLES IN SCHEMA llmbridge TO {reader}",
            database=database,
        )
        # No catalog is stored yet, and this role cannot store it.
        async with LLMDatabase(server.database_url(database, user=reader), on_storage_error="log") as db:
            assert (await db.usage())[0].calls == 0
            status = await db.schema_status()
            assert status is not None
            assert (status.writable, status.read_only) == (True, True)


async def test_a_role_with_create_on_an_existing_schema_migrates(server: Server, database: str, shell: Shell) -> None:
    with server.role([database]) as maker:
        shell("CREATE SCHEMA books", f"GRANT USAGE, CREATE ON SCHEMA books TO {maker}")
        async with PostgreSQLBackend(server.database_url(database, user=maker), schema="books") as backend:
            assert (await backend.apply_migrations()).applied
            assert (await backend.record_calls([make_call()])).inserted == 1


async def test_a_role_without_a_right_to_migrate_is_told_which_it_needs(server: Server, database: str) -> None:
    with server.role() as nobody:
        async with PostgreSQLBackend(server.database_url(database, user=nobody)) as backend:
            with pytest.raises(StorageRefusedError, match="CREATE"):
                await backend.apply_migrations()


async def test_a_missing_file_is_an_error(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema, "_FOLDER", tmp_path / "nowhere")
    async with PostgreSQLBackend(url) as backend:
        with pytest.raises(MigrationError, match=r"damaged.*001_baseline.*install it again"):
            await backend.apply_migrations()
        assert (await backend.schema_status()).current is None


async def test_a_failing_migration_leaves_nothing(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = shutil.copytree(schema._FOLDER, tmp_path / "migrations")
    with (folder / "001_baseline.sql").open("a") as file:
        file.write("SELECT 1 / 0;")
    monkeypatch.setattr(schema, "_FOLDER", folder)
    async with PostgreSQLBackend(url) as backend:
        with pytest.raises(MigrationError, match="division by zero"):
            await backend.apply_migrations()
        assert (await backend.schema_status()).current is None
        monkeypatch.undo()
        assert (await backend.apply_migrations()).applied == list(schema.MIGRATIONS)


async def test_an_applied_migration_of_another_text_is_an_error(backend: PostgreSQLBackend) -> None:
    await backend.execute("UPDATE {{tables.llmbridge_migrations}} SET checksum = 'other'")
    with pytest.raises(MigrationError, match="different text"):
        await backend.apply_migrations()


async def test_an_applied_migration_that_we_do_not_have_is_an_error(backend: PostgreSQLBackend) -> None:
    await backend.execute("UPDATE {{tables.llmbridge_migrations}} SET filename = '001_other.sql'")
    with pytest.raises(MigrationError, match="001_other"):
        await backend.apply_migrations()


async def test_a_newer_release_that_lets_us_write_is_no_hindrance(backend: PostgreSQLBackend) -> None:
    await from_a_newer_release(backend, writable_from=1)
    status = await backend.schema_status()
    assert (status.current, status.pending, status.writable) == ("999_later", [], True)
    assert (await backend.apply_migrations()).applied == []
    assert (await backend.record_calls([make_call()])).inserted == 1


async def test_a_newer_release_that_does_not_stops_every_writer(backend: PostgreSQLBackend) -> None:
    await backend.record_calls([make_call()])
    await from_a_newer_release(backend, writable_from=999)
    assert (await backend.schema_status()).writable is False
    for write in (
        backend.record_calls([make_call(1)]),
        backend.record_calls([make_call()]),
        backend.record_calls([make_call(number) for number in range(1, 200)]),
        backend.upsert_models([make_model()]),
        backend.retire_models([("a", "b")], EPOCH),
        backend.set_prices([ModelPrice("a", "b", EPOCH)]),
        backend.apply_migrations(),
    ):
        with pytest.raises(SchemaTooNewError, match="upgrade"):
            await write
    assert (await backend.summarize_usage(UsageQuery()))[0].calls == 1


async def from_a_newer_release(backend: PostgreSQLBackend, writable_from: int) -> None:
    await backend.execute(
        "INSERT INTO {{tables.llmbridge_schema}} (migration, writable_from) VALUES ('999_later', $1)", writable_from
    )
    await backend.execute(
        "INSERT INTO {{tables.llmbridge_migrations}} (filename, checksum, module_name) VALUES ($1, $2, $3)",
        "999_later.sql",
        "x",
        "llmbridge_postgres",
    )


async def test_tables_of_our_names_that_are_not_ours_are_refused_and_left_alone(url: str, shell: Shell) -> None:
    shell(
        "CREATE SCHEMA llmbridge",
        "CREATE TABLE llmbridge.usage_summary (theirs integer)",
        "CREATE TABLE llmbridge.llmbridge_incoming (theirs integer)",
    )
    with pytest.raises(StorageRefusedError, match=r"llmbridge_incoming, usage_summary.*schema="):
        await PostgreSQLBackend(url).connect()
    async with PostgreSQLBackend(url, schema="books") as backend:
        await backend.apply_migrations()
    assert shell("SELECT * FROM llmbridge.usage_summary") == []


async def test_a_schema_named_like_a_word_of_sql_is_refused(url: str) -> None:
    async with PostgreSQLBackend(url, schema="order") as backend:
        with pytest.raises(MigrationError, match="choose another"):
            await backend.apply_migrations()


async def test_two_schemas_of_one_database_do_not_see_each_other(url: str) -> None:
    async with PostgreSQLBackend(url, schema="one") as one, PostgreSQLBackend(url, schema="two") as two:
        await asyncio.gather(one.apply_migrations(), two.apply_migrations())
        await one.record_calls([make_call()])
        assert (await two.summarize_usage(UsageQuery()))[0].calls == 0


async def test_a_database_of_llmbridge_py_is_joined_and_left_as_it_is(
    url: str, shell: Shell, caplog: pytest.LogCaptureFixture
) -> None:
    """Its tables by their names and its history, as llmbridge-py 0.2.3 makes them."""
    shell(
        "CREATE SCHEMA llmbridge",
        "CREATE TABLE llmbridge.schema_migrations (id serial, filename text, checksum text, module_name text)",
        "INSERT INTO llmbridge.schema_migrations VALUES (1, '001_llm_schema.sql', 'x', 'llmbridge')",
        "CREATE TABLE llmbridge.llm_models (id serial PRIMARY KEY, provider text, model_name text)",
        "CREATE TABLE llmbridge.llm_api_calls (id uuid PRIMARY KEY, origin text)",
        "CREATE TABLE llmbridge.usage_analytics_daily (id uuid PRIMARY KEY)",
    )
    before = tables_of(shell)
    with caplog.at_level(logging.WARNING, logger="llmbridge"):
        async with PostgreSQLBackend(url) as backend:
            await backend.apply_migrations()
            await backend.record_calls([make_call()])
            await backend.disconnect()
            await backend.connect()
    [warning] = caplog.records
    assert "llm_api_calls" in warning.getMessage()
    after = tables_of(shell)
    assert {name: after[name] for name in before} == before
    assert shell("SELECT module_name FROM llmbridge.schema_migrations") == [{"module_name": "llmbridge"}]


def tables_of(shell: Shell) -> dict[object, object]:
    rows = shell(
        "SELECT c.relname, string_agg(a.attname || ' ' || a.atttypid::regtype, ', ' ORDER BY attnum) AS columns "
        "FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid "
        "WHERE relnamespace = 'llmbridge'::regnamespace AND relkind = 'r' AND attnum > 0 GROUP BY 1"
    )
    return {row["relname"]: row["columns"] for row in rows}


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("TABLE", "llmbridge_schema"),
        ("TABLE", "llmbridge_calls"),
        ("TABLE", "llmbridge_models"),
        ("TABLE", "llmbridge_prices"),
        ("TYPE", "llmbridge_incoming"),
    ],
)
async def test_what_was_dropped_is_told_at_the_start(
    backend: PostgreSQLBackend, url: str, shell: Shell, kind: str, name: str
) -> None:
    shell(f"DROP {kind} llmbridge.{name} CASCADE")
    for use in (backend.schema_status(), backend.apply_migrations(), LLMDatabase(url).initialize()):
        with pytest.raises(StorageRefusedError, match=f"lost {name}.*backup"):
            await use


async def test_a_schema_that_was_created_again_is_used_by_backends_that_knew_the_old_one(
    backend: PostgreSQLBackend, url: str, shell: Shell
) -> None:
    await backend.record_calls([make_call(1)])
    shell("DROP SCHEMA llmbridge CASCADE")
    async with PostgreSQLBackend(url) as other:
        await other.apply_migrations()
    assert (await backend.record_calls([make_call(number) for number in range(60)])).inserted == 60


def test_what_is_sent_stands_in_the_order_of_its_type(backend: PostgreSQLBackend, shell: Shell) -> None:
    rows = shell(
        "SELECT attname, format_type(atttypid, atttypmod) AS kind FROM pg_attribute "
        "WHERE attrelid = 'llmbridge.llmbridge_incoming'::regclass ORDER BY attnum"
    )
    written = {"timestamptz": "timestamp with time zone"}
    assert [(row["attname"], row["kind"]) for row in rows] == [
        (name, written.get(kind, kind)) for name, kind in CALL_COLUMNS.items()
    ]


async def test_nothing_is_created_before_migrating(url: str, shell: Shell) -> None:
    async with PostgreSQLBackend(url) as backend:
        await backend.schema_status()
    assert shell("SELECT FROM pg_namespace WHERE nspname = 'llmbridge'") == []


async def test_no_extension_is_made(backend: PostgreSQLBackend, shell: Shell) -> None:
    assert shell("SELECT extname FROM pg_extension") == [{"extname": "plpgsql"}]


async def test_at_most_five_connections_are_open(server: Server, backend: PostgreSQLBackend, database: str) -> None:
    await asyncio.gather(
        *(backend.record_calls([make_call(number)]) for number in range(40)),
        *(backend.summarize_usage(UsageQuery()) for _ in range(40)),
    )
    assert 2 <= len(server.backends(database)) <= 5
    assert isinstance(backend._source, OwnPool)
