"""A database that this user may not write to can be read, and says clearly why it takes no calls."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from llmbridge import LLMDatabase
from llmbridge.cli import main
from llmbridge.errors import StorageRefusedError

from ...support.unprivileged import open_folder, without_root

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows has no rights of files in this form")

CALL = {"origin": "o", "provider": "p", "model": "m"}


@pytest.fixture
def folder() -> Iterator[Path]:
    with open_folder() as folder:
        yield folder


async def make(file: Path) -> None:
    async with LLMDatabase(str(file)) as db:
        await db.record_api_call(**CALL)


def protect(file: Path, *, folder_too: bool) -> None:
    file.chmod(0o444)
    file.parent.chmod(0o555 if folder_too else 0o777)


@pytest.mark.parametrize("folder_too", [True, False], ids=["folder", "file"])
async def test_a_file_that_may_not_be_written_is_read(folder: Path, folder_too: bool, tmp_path: Path) -> None:
    file = folder / "calls.db"
    await make(file)
    protect(file, folder_too=folder_too)
    with without_root():
        async with LLMDatabase(str(file), on_storage_error="log", record_timeout=0.2) as db:
            assert (await db.usage())[0].calls == 1
            assert len((await db.find_calls()).calls) == 1
            assert (await db.health_check())["status"] == "healthy"
            status = await db.schema_status()
            assert status is not None
            assert (status.read_only, status.writable) == (True, True)
            with pytest.raises(StorageRefusedError, match="can only be read: this user may not write"):
                await db.record_api_call(**CALL)
            with pytest.raises(StorageRefusedError, match="can only be read"):
                await db.purge("2020-01-01")
    assert sorted(path.name for path in folder.iterdir()) == ["calls.db"]


async def test_a_read_only_copy_with_its_log_is_read(folder: Path) -> None:
    """The log has calls that are not in the file yet, as in a copy of a database in use."""
    file = folder / "calls.db"
    async with LLMDatabase(str(file)) as db:
        await db.record_api_call(**CALL)
        copy = folder / "copy"
        copy.mkdir()
        for path in folder.glob("calls.db*"):
            (copy / path.name).write_bytes(path.read_bytes())
    copied = copy / "calls.db"
    for path in copy.iterdir():
        path.chmod(0o444)
    copy.chmod(0o555)
    with without_root():
        async with LLMDatabase(str(copied), on_storage_error="log") as db:
            assert (await db.usage())[0].calls == 1


async def test_views_of_a_read_only_file_are_read(folder: Path) -> None:
    file = folder / "calls.db"
    await make(file)
    protect(file, folder_too=True)
    with without_root(), closing(sqlite3.connect(f"{file.as_uri()}?immutable=1", uri=True)) as connection:
        assert connection.execute("SELECT SUM(call_count) FROM usage_summary").fetchone() == (1,)


def test_the_command_line_reads_it_and_says_that_it_is_read_only(
    folder: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = folder / "calls.db"
    monkeypatch.chdir(folder)
    assert main(["init-db", "--db", str(file)]) == 0
    for command in ("usage", "calls", "health"):  # what they import may lie where only root can read
        assert main([command, "--db", str(file)]) == 0
    protect(file, folder_too=True)
    with without_root():
        assert main(["storage", "status", "--db", str(file)]) == 0
        assert "writable: no: this user may only read it" in capfd.readouterr().out
        assert main(["usage", "--db", str(file)]) == 0
        assert main(["calls", "--db", str(file)]) == 0
        assert main(["health", "--db", str(file)]) == 0
        assert main(["purge", "--older-than", "90d", "--db", str(file)]) == 1
        assert "can only be read" in capfd.readouterr().err
