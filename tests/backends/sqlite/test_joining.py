"""Which files can be opened: new ones, those of llmbridge, and those of other programs with other tables. Other files
are refused and not changed."""

from __future__ import annotations

import hashlib
import logging
import os
import sqlite3
import stat
from contextlib import closing
from pathlib import Path

import pytest

from llmbridge.storage import CallQuery, StorageRefusedError
from llmbridge.storage.url import StorageURL
from llmbridge.testing import make_call
from llmbridge_sqlite import SQLiteBackend, llmbridge_storage


def fingerprint(folder: Path) -> dict[str, str]:
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.iterdir()}


async def assert_refused(path: Path, said: str) -> None:
    before = fingerprint(path.parent)
    with pytest.raises(StorageRefusedError, match=said):
        await SQLiteBackend(path).connect()
    assert fingerprint(path.parent) == before


@pytest.mark.parametrize("content", [b"%PDF-1.7 not a database" * 100, b"short", os.urandom(8192)])
async def test_what_is_no_database_is_refused(path, content):
    path.write_bytes(content)
    await assert_refused(path, "not a SQLite database")


async def test_a_cut_database_is_refused(path, shell):
    shell("CREATE TABLE t (x); INSERT INTO t VALUES (randomblob(100000))")
    path.write_bytes(path.read_bytes()[:8192])
    await assert_refused(path, "damaged")


async def test_a_database_with_a_damaged_schema_is_refused(path, shell):
    shell("CREATE TABLE t (x)")
    content = bytearray(path.read_bytes())
    content[100:120] = b"\xff" * 20
    path.write_bytes(content)
    await assert_refused(path, "damaged")


async def test_a_file_with_a_damaged_table_is_refused(path, shell):
    async with SQLiteBackend(path) as backend:
        await backend.apply_migrations()
        await backend.record_calls([make_call(number) for number in range(100)])
    (root, size) = shell(
        "SELECT rootpage, page_size FROM sqlite_master, pragma_page_size WHERE name = 'llmbridge_calls'"
    )[0]
    content = bytearray(path.read_bytes())
    content[(root - 1) * size : root * size] = b"\xff" * size
    path.write_bytes(content)
    await assert_refused(path, "damaged")


@pytest.mark.parametrize("journal", ["DELETE", "WAL"])
@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE usage_summary (x)",
        "CREATE TABLE Call_Log (x)",
        "CREATE VIEW call_log AS SELECT 1",
        "CREATE TABLE llmbridge_calls (id)",
        "CREATE TABLE migration_history (id INTEGER PRIMARY KEY, filename TEXT, applied_at TEXT, checksum TEXT)",
        "CREATE TABLE t (x); CREATE INDEX llmbridge_calls_by_time ON t (x)",
    ],
)
async def test_names_of_ours_that_are_not_ours_are_refused(path, shell, statement, journal):
    shell(f"PRAGMA journal_mode = {journal}; {statement}")
    await assert_refused(path, "did not create")


async def test_a_folder_is_refused(tmp_path):
    with pytest.raises(StorageRefusedError, match="directory"):
        await SQLiteBackend(tmp_path).connect()


async def test_a_file_below_a_file_is_refused(path):
    path.write_bytes(b"")
    with pytest.raises(StorageRefusedError, match="directory"):
        await SQLiteBackend(path / "calls.db").connect()


async def test_a_schema_too_new_is_opened_and_nothing_is_written(path, shell):
    shell(
        "CREATE TABLE migration_history (id, name, checksum, writable_from, applied_at);"
        "INSERT INTO migration_history VALUES (1, '999_more', 'x', 999, 'now')"
    )
    before = fingerprint(path.parent)
    async with SQLiteBackend(path) as backend:
        assert (await backend.schema_status()).writable is False
    assert fingerprint(path.parent) == before


async def test_a_database_with_other_tables_is_joined(path, shell):
    shell("CREATE TABLE customers (name); INSERT INTO customers VALUES ('Ada')")
    async with SQLiteBackend(path) as backend:
        await backend.apply_migrations()
        await backend.record_calls([make_call()])
        assert len((await backend.list_calls(CallQuery())).calls) == 1
    assert [row["name"] for row in shell("SELECT name FROM customers")] == ["Ada"]


async def test_the_tables_of_llmbridge_py_are_left_alone_and_told_of_once(path, shell, caplog):
    shell(
        "CREATE TABLE models (id INTEGER PRIMARY KEY, provider TEXT, model_name TEXT);"
        "CREATE TABLE api_calls (id TEXT PRIMARY KEY, origin TEXT, id_at_origin TEXT, model_id INTEGER,"
        " estimated_cost REAL, called_at TIMESTAMP);"
        "INSERT INTO api_calls VALUES ('a', 'app', 'user', 1, 0.5, '2024-01-01')"
    )
    backend = SQLiteBackend(path)
    with caplog.at_level(logging.WARNING, logger="llmbridge.sqlite"):
        for _ in range(2):
            async with backend:
                await backend.apply_migrations()
                await backend.record_calls([make_call()])
    [record] = caplog.records
    assert (record.name, record.levelname) == ("llmbridge.sqlite", "WARNING")
    assert "api_calls" in record.getMessage()
    assert [tuple(row) for row in shell("SELECT * FROM api_calls")] == [("a", "app", "user", 1, 0.5, "2024-01-01")]


async def test_files_are_for_their_owner_alone(tmp_path):
    path = tmp_path / "new" / "folder" / "calls.db"
    async with SQLiteBackend(path) as backend:
        await backend.apply_migrations()
        await backend.record_calls([make_call()])
        files = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    assert files == {"calls.db": 0o600, "calls.db-wal": 0o600, "calls.db-shm": 0o600}
    assert {stat.S_IMODE(folder.stat().st_mode) for folder in (path.parent, path.parent.parent)} == {0o700}


async def test_what_exists_keeps_its_rights(path, shell):
    shell("CREATE TABLE customers (name)")
    path.chmod(0o640)
    async with SQLiteBackend(path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o640


async def test_disconnecting_leaves_one_file(path):
    async with SQLiteBackend(path) as backend:
        await backend.apply_migrations()
        await backend.record_calls([make_call()])
    assert [file.name for file in path.parent.iterdir()] == ["calls.db"]


@pytest.mark.parametrize(
    "name",
    ["100%.db", "%41.db", "a b?c#d&mode=memory.db", "'\"; DROP.db", "ünï\U0001f600.db", "x=y:z", "back\\slash.db"],
)
async def test_odd_names_are_taken_literally(tmp_path, name):
    async with SQLiteBackend(tmp_path / name) as backend:
        await backend.apply_migrations()
        await backend.record_calls([make_call()])
        assert len((await backend.list_calls(CallQuery())).calls) == 1
    assert [file.name for file in tmp_path.iterdir()] == [name]


async def test_home_and_relative_paths(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    backends = [SQLiteBackend("~/x.db"), SQLiteBackend(Path("~/y.db")), SQLiteBackend("z.db")]
    monkeypatch.chdir("/")
    for backend in backends:
        async with backend:
            await backend.ping()
    assert sorted(file.name for file in tmp_path.rglob("*.db")) == ["x.db", "y.db", "z.db"]
    assert (tmp_path / "z.db").exists()


@pytest.mark.parametrize("path", ["", "a\0b", "sqlite:///x.db"])
def test_what_is_no_path_is_a_value_error(path):
    with pytest.raises(ValueError, match="path"):
        SQLiteBackend(path)


@pytest.mark.parametrize(("options", "level"), [({}, 2), ({"synchronous": "full"}, 2), ({"synchronous": "normal"}, 1)])
async def test_commits_are_durable_unless_asked_otherwise(path, options, level):
    backend = llmbridge_storage().create(StorageURL("sqlite", path=str(path)), {"schema": "x", **options})
    async with backend:
        assert await backend.fetch_value("PRAGMA synchronous") == level
        assert await backend.fetch_value("PRAGMA journal_mode") == "wal"
        assert await backend.fetch_value("PRAGMA foreign_keys") == 1


@pytest.mark.parametrize("synchronous", ["off", "FULL", "", "extra"])
def test_other_ways_to_commit_are_refused(path, synchronous):
    with pytest.raises(ValueError, match="full or normal"):
        SQLiteBackend(path, synchronous=synchronous)


async def test_all_tables_are_strict(backend, path):
    with closing(sqlite3.connect(path)) as connection:
        rows = connection.execute("SELECT name, strict FROM pragma_table_list WHERE type = 'table'").fetchall()
    assert all(strict for name, strict in rows if not name.startswith("sqlite_"))


async def test_a_store_of_a_version_before_plain_rollups_is_refused_and_left_as_it_is(path, shell):
    async with SQLiteBackend(path) as backend:
        await backend.apply_migrations()
    shell("UPDATE migration_history SET name = '001_books'")
    before = path.read_bytes()
    for _ in range(2):
        with pytest.raises(StorageRefusedError, match=r"nothing was written.*llmbridge storage copy.*previous version"):
            await SQLiteBackend(path).connect()
    assert path.read_bytes() == before
