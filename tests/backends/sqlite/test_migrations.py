"""Migrations are applied once, stored by name and checksum, and applied completely or not at all."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from llmbridge.storage import (
    CallQuery,
    MigrationError,
    SchemaOutdatedError,
    SchemaTooNewError,
    StorageRefusedError,
    StorageUnavailableError,
    UsageQuery,
)
from llmbridge.testing import make_call, make_model
from llmbridge_sqlite import SQLiteBackend, connection, preflight, schema

HEADER = "-- writable-from: 1\n"
NEWER = "INSERT INTO migration_history (name, checksum, writable_from, applied_at) VALUES ('{}', 'x', {}, 'now')"


def folder(path: Path, **files: str) -> Path:
    path.mkdir(exist_ok=True)
    for name, text in files.items():
        (path / f"{name}.sql").write_text(text)
    return path


def names(db: sqlite3.Connection) -> set[str]:
    rows = db.execute("SELECT name FROM sqlite_master WHERE name NOT LIKE 'sqlite_%'")
    return {name for (name,) in rows}


def memory() -> sqlite3.Connection:
    return sqlite3.connect(":memory:", isolation_level=None, factory=connection.Connection)


async def test_the_history_names_each_migration_with_its_checksum(backend, shell):
    rows = shell("SELECT name, checksum, writable_from FROM migration_history")
    assert [tuple(row) for row in rows] == [(m.name, m.checksum, m.writable_from) for m in schema.shipped()]


async def test_every_object_of_a_migrated_store_is_among_the_names_that_joining_looks_for(backend, shell):
    assert {row["name"] for row in shell("SELECT name FROM sqlite_master WHERE name NOT LIKE 'sqlite_%'")} == (
        preflight.NAMES
    )


async def test_none_of_our_names_is_one_of_llmbridge_py():
    theirs = {"llm_models", "llm_api_calls", "usage_analytics_daily", "models", "api_calls", "schema_migrations"}
    assert not theirs & preflight.NAMES


async def test_a_path_of_migrations_is_accepted_and_ignored(path, tmp_path):
    async with SQLiteBackend(path) as backend:
        report = await backend.apply_migrations(tmp_path / "nothing")
        assert report["applied"] == [schema.shipped()[0].name]


async def test_a_migration_applied_with_another_text_is_an_error(backend, shell):
    shell("UPDATE migration_history SET checksum = 'another'")
    with pytest.raises(MigrationError, match=r"001_baseline.*different text"):
        await backend.apply_migrations()


async def test_an_applied_migration_that_is_not_shipped_is_an_error(backend, shell):
    shell(NEWER.format("001_ledger", 1))
    with pytest.raises(MigrationError, match="001_ledger"):
        await backend.apply_migrations()


async def test_a_newer_schema_that_lets_us_write_is_written(backend, shell):
    shell(NEWER.format("999_more", len(schema.shipped())))
    status = await backend.schema_status()
    assert (status.current, status.pending, status.writable) == ("999_more", [], True)
    assert (await backend.apply_migrations()).applied == []
    assert (await backend.record_calls([make_call()])).inserted == 1


async def test_a_schema_too_new_is_read_and_not_written(backend, shell):
    await backend.record_calls([make_call()])
    shell(NEWER.format("999_more", 999))
    assert (await backend.schema_status()).writable is False
    for write in (
        backend.apply_migrations(),
        backend.record_calls([make_call(1)]),
        backend.upsert_models([make_model()]),
        backend.set_prices([]),
        backend.retire_models([], make_call().called_at),
    ):
        with pytest.raises(SchemaTooNewError, match="upgrade"):
            await write
    assert len((await backend.list_calls(CallQuery())).calls) == 1


async def test_a_store_without_a_schema_says_how_to_migrate(path):
    async with SQLiteBackend(path) as backend:
        for call in (backend.record_calls([make_call()]), backend.summarize_usage(UsageQuery()), backend.list_models()):
            with pytest.raises(SchemaOutdatedError, match="storage migrate"):
                await call


async def test_migrating_while_another_program_holds_the_lock_can_be_tried_again(path, other, monkeypatch):
    monkeypatch.setattr(connection, "BUSY_SECONDS", 0.05)
    async with SQLiteBackend(path) as backend:
        holder = other()
        holder.execute("BEGIN IMMEDIATE")
        with pytest.raises(StorageUnavailableError, match="locked"):
            await backend.apply_migrations()
        holder.execute("ROLLBACK")
        assert (await backend.apply_migrations()).applied


def test_a_failing_migration_leaves_nothing(tmp_path):
    migrations = schema.load(
        folder(
            tmp_path / "m",
            **{
                "001_good": HEADER + "CREATE TABLE a (x);",
                "002_bad": HEADER + "CREATE TABLE b (x); INSERT INTO c VALUES (1);",
            },
        )
    )
    with closing(memory()) as db:
        with pytest.raises(MigrationError, match=r"002_bad.*no such table"):
            db.execute(lambda connection: schema.apply(connection, migrations, "x"))
        assert names(db) == {"a", "migration_history"}
        assert not db.in_transaction
        assert schema.status(db, migrations, "x").pending == ["002_bad"]


def test_statements_are_not_split_at_semicolons_within_them():
    script = """
    -- one; two
    CREATE TABLE a (x TEXT DEFAULT ';'); /* ; */ INSERT INTO a VALUES ('a;b');
    CREATE TRIGGER t AFTER INSERT ON a BEGIN DELETE FROM a; SELECT 1; END;
    -- the end;
    """
    assert [statement[-18:] for statement in schema.split(script)] == [
        "(x TEXT DEFAULT ';');"[-18:],
        "INSERT INTO a VALUES ('a;b');"[-18:],
        "DELETE FROM a; SELECT 1; END;"[-18:],
    ]


def test_an_unfinished_statement_is_an_error():
    with pytest.raises(MigrationError, match="ends within"):
        schema.split("CREATE TABLE a (x); CREATE TABLE b (x)")


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({}, "has no migrations"),
        ({"002_b": HEADER}, "has 002_b.sql instead of migration 001"),
        ({"001_a": HEADER, "003_c": HEADER}, "has 003_c.sql instead of migration 002"),
        ({"books": HEADER}, "books.sql"),
        ({"001_a": "CREATE TABLE a (x);"}, "writable-from"),
    ],
)
def test_a_package_with_missing_migrations_is_an_error(tmp_path, files, said):
    with pytest.raises(MigrationError, match=said):
        schema.load(folder(tmp_path / "m", **files))


def test_names_taken_between_connecting_and_migrating_are_refused():
    with closing(memory()) as db:
        db.execute("CREATE TABLE call_log (x)")
        with pytest.raises(StorageRefusedError, match="call_log"):
            schema.apply(db, schema.shipped(), "x")
        assert names(db) == {"call_log"}
