"""The user's state directory, and files in it that are replaced in one step."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import platformdirs
import pytest
from platformdirs import windows
from platformdirs.api import PlatformDirsABC
from platformdirs.macos import MacOS
from platformdirs.unix import Unix
from platformdirs.windows import Windows

from llmbridge._pricing.genai_prices import editions
from llmbridge._recording.spool import Spool
from llmbridge._shared import files, paths

#: What each system's environment says, and the place of the state directory below the home directory.
SYSTEMS = [
    (Unix, {}, ".local/state/llmbridge"),
    (Unix, {"XDG_STATE_HOME": "{home}/state"}, "state/llmbridge"),
    (Unix, {"XDG_STATE_HOME": ""}, ".local/state/llmbridge"),
    (Unix, {"XDG_STATE_HOME": "relative/state"}, ".local/state/llmbridge"),
    (MacOS, {}, "Library/Application Support/llmbridge"),
    (Windows, {"LOCALAPPDATA": "{home}/AppData/Local"}, "AppData/Local/llmbridge"),
]


@pytest.mark.parametrize(("system", "environment", "expected"), SYSTEMS)
def test_price_data_and_spool_are_in_one_state_directory(
    system: type[PlatformDirsABC],
    environment: dict[str, str],
    expected: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(platformdirs, "PlatformDirs", system)
    # What the shell of Windows would be asked is in the environment too.
    monkeypatch.setattr(windows, "get_win_folder", windows.get_win_folder_from_env_vars)
    monkeypatch.delenv("LLMBRIDGE_SPOOL_DIR", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name, value in environment.items():
        monkeypatch.setenv(name, value.format(home=tmp_path))
    assert paths.state_directory() == tmp_path / expected
    assert editions.path() == tmp_path / expected / "prices.json"
    assert Spool("sqlite:///calls.db").path.parent == tmp_path / expected / "spool"
    assert list(tmp_path.iterdir()) == []


def test_directories_that_are_made_are_the_users_alone_and_others_are_left_as_they_are(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    made = files.make(tmp_path / "a" / "b")
    assert [_mode(folder) for folder in (tmp_path, tmp_path / "a", made)] == [0o755, 0o700, 0o700]
    assert files.make(made) == made


def test_a_file_is_replaced_whole_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "new" / "prices.json"
    files.replace(path, b"old")
    files.replace(path, b"new")
    assert path.read_bytes() == b"new"
    assert _mode(path) == 0o600
    assert [entry.name for entry in path.parent.iterdir()] == ["prices.json"]


def test_a_reader_never_sees_part_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "prices.json"
    contents = {bytes([letter]) * 200_000 for letter in b"ab"}
    files.replace(path, max(contents))
    done = threading.Event()

    def write() -> None:
        for _ in range(50):
            for content in sorted(contents):
                files.replace(path, content)
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    seen = set()
    while not done.is_set():
        seen.add(path.read_bytes())
    writer.join()
    assert seen <= contents


def test_a_file_that_cannot_be_replaced_stays_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    (tmp_path / "prices.json" / "inside").mkdir(parents=True)
    with pytest.raises(OSError, match=r"prices\.json"):
        files.replace(tmp_path / "prices.json", b"new")
    assert os.listdir(tmp_path) == ["prices.json"]


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)
