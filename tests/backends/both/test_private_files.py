"""Files are accessible only for their owner, and their names are synced to the disk."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

import pytest

from llmbridge._recording.spool import Spool
from llmbridge._shared.files import make_private_file
from llmbridge.testing import make_call
from llmbridge_sqlite import SQLiteBackend

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="a folder cannot be synced there")


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Path, set[str]]]:
    """The folders that Python syncs, each with the names in it then."""
    found: list[tuple[Path, set[str]]] = []
    fsync = os.fsync
    folders = {}
    opened = os.open

    def note_open(path: str | Path, flags: int, *args: int) -> int:
        descriptor = opened(path, flags, *args)
        folders[descriptor] = Path(path)
        return descriptor

    def note(descriptor: int) -> None:
        fsync(descriptor)
        found.append((folders[descriptor], set(os.listdir(folders[descriptor]))))

    monkeypatch.setattr(os, "open", note_open)
    monkeypatch.setattr(os, "fsync", note)
    return found


def test_a_file_and_the_folders_above_it_are_the_owner_s_and_synced(tmp_path: Path, synced) -> None:
    path = tmp_path / "a" / "b" / "calls.db"
    make_private_file(path)
    assert synced == [(tmp_path, {"a"}), (tmp_path / "a", {"b"}), (tmp_path / "a" / "b", {"calls.db"})]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert {stat.S_IMODE(folder.stat().st_mode) for folder in (tmp_path / "a", tmp_path / "a" / "b")} == {0o700}
    path.write_text("kept")
    make_private_file(path)
    assert path.read_text() == "kept"
    assert len(synced) == 3


async def test_a_store_and_a_spool_make_their_files_so(tmp_path: Path, synced) -> None:
    async with SQLiteBackend(tmp_path / "books" / "calls.db"):
        pass
    Spool("here", tmp_path / "spool").put([make_call()])
    folders = [folder for folder, _ in synced]
    assert folders.count(tmp_path / "books") == folders.count(tmp_path / "spool") == 1
