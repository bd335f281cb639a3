"""Files that somebody else can have put there, or changed, are not used."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from llmbridge import LLMDatabase
from llmbridge._pricing.genai_prices import editions
from llmbridge._recording.spool import Spool
from llmbridge._shared import files
from llmbridge.errors import PriceDataError, StorageRefusedError, StorageUnavailableError
from llmbridge.storage.memory import MemoryBackend
from llmbridge.testing import make_call

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such modes")

Plant = Callable[[Path], None]


def plant_of_another_user(path: Path) -> None:
    """As root; another user's files cannot be made otherwise, but this user can become another one."""
    path.chmod(0o600)
    if os.geteuid() == 0:
        os.chown(path, 65534, 65534)


def plant_link(path: Path) -> None:
    target = path.with_name("target")
    path.rename(target)
    path.symlink_to(target)


def plant_dangling_link(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.with_name("nowhere"))


def plant_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path, 0o600)


#: What is planted, and what is said of it.
PLANTED: dict[str, tuple[Plant, str]] = {
    "of another user": (plant_of_another_user, "the file belongs to user"),
    "readable": (lambda path: path.chmod(0o644), "run chmod 600"),
    "writable": (lambda path: path.chmod(0o602), "run chmod 600"),
    "a link": (plant_link, "it is a symbolic link; remove it"),
    "a dangling link": (plant_dangling_link, "it is a symbolic link; remove it"),
    "a pipe": (plant_pipe, "it is not a file"),
    "in a folder of another user": (lambda path: plant_of_another_user(path.parent), "the directory belongs to user"),
    "in a folder of all": (lambda path: path.parent.chmod(0o1777), "run chmod go-w"),
    "in a folder of the group": (lambda path: path.parent.chmod(0o770), "run chmod go-w"),
}


@pytest.fixture(params=PLANTED)
def planted(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> tuple[Plant, str]:
    """What changes a file or its folder, and what is said of it."""
    if "another user" in request.param and os.geteuid() != 0:
        user = os.geteuid() + 1
        return (lambda _: monkeypatch.setattr(os, "geteuid", lambda: user)), PLANTED[request.param][1]
    return PLANTED[request.param]


def test_a_file_of_ones_own_is_private_and_so_is_one_that_does_not_exist(tmp_path: Path) -> None:
    path = tmp_path / "state" / "prices.json"
    files.check_private(path)
    files.replace(path, b"mine")
    files.check_private(path)
    assert files.read_private(path) == b"mine"
    path.parent.chmod(0o755)
    assert files.read_private(path) == b"mine"


def test_a_planted_file_is_refused(planted: tuple[Plant, str], tmp_path: Path) -> None:
    path = tmp_path / "state" / "file"
    files.make_private_file(path)
    plant, told = planted
    plant(path)
    for use in (files.check_private, files.read_private):
        with pytest.raises(PermissionError, match=told):
            use(path)


def test_nothing_is_written_to_a_folder_that_others_may_write_to(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    folder.mkdir()
    folder.chmod(0o777)
    with pytest.raises(PermissionError, match="chmod go-w"):
        files.replace(folder / "prices.json", b"mine")
    assert list(folder.iterdir()) == []


def test_a_link_that_is_planted_after_the_check_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "prices.json"
    files.replace(path.with_name("target"), b"planted")
    path.symlink_to(path.with_name("target"))
    monkeypatch.setattr(files, "check_private", lambda _: None)
    with pytest.raises(OSError, match="symbolic links"):
        files.read_private(path)


def test_planted_price_data_are_not_used(planted: tuple[Plant, str], tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    files.make_private_file(editions.path())
    plant, told = planted
    plant(editions.path())
    if editions.path().exists():
        with pytest.raises(PriceDataError, match=told):
            editions.read()
    assert editions.current().version.startswith("genai-prices ")


class Store(MemoryBackend):
    """A store that can be away."""

    is_away = False

    async def record_calls(self, calls):
        if self.is_away:
            raise StorageRefusedError("away")
        return await super().record_calls(calls)


async def test_a_planted_spool_gets_no_call_and_gives_none_to_the_database(
    planted: tuple[Plant, str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = Store("planted")
    store.target = "memory:planted"
    spool = Spool(store.target, tmp_path / "spool")
    async with store:
        await store.apply_migrations()
        spool.recognize((await store.schema_status()).identity)
    spool.put([make_call(77)])
    before = spool.path.read_bytes()
    plant, told = planted
    plant(spool.path)
    with pytest.raises(StorageUnavailableError, match=told):
        spool.put([make_call(78)])
    db = LLMDatabase(backend=store, spool_dir=tmp_path / "spool", record_timeout=60)
    async with db:
        report = await db.health_check()
        assert told in report["spool"]["error"]
        store.is_away = True
        with pytest.raises(StorageUnavailableError, match=told):
            await db.record_api_call(make_call(1))
        assert db.metrics()["calls_spooled"] == 0
        store.is_away = False
        await db.record_api_call(make_call(2))
        assert set(store._open.calls) >= {make_call(2).id}
        assert make_call(77).id not in store._open.calls
    assert "calls are lost while the database is away" in caplog.text
    target = spool.path.with_name("target")
    assert before in [path.read_bytes() for path in (spool.path, target) if path.is_file()] or not spool.path.is_file()
    assert not spool.path.with_name("nowhere").exists()


async def test_calls_wait_for_a_database_that_comes_back_in_time_though_the_spool_is_planted(tmp_path: Path) -> None:
    """A spool that cannot be used takes nothing from the calls that the database takes."""
    (tmp_path / "spool").mkdir(mode=0o777)
    (tmp_path / "spool").chmod(0o777)
    store = Store("in time")
    store.target = "memory:in time"
    async with LLMDatabase(backend=store, spool_dir=tmp_path / "spool") as db:
        for number in range(20):
            await db.record_api_call(make_call(number))
        assert len(store._open.calls) == 20
    assert list((tmp_path / "spool").iterdir()) == []


def test_a_planted_turn_is_refused(planted: tuple[Plant, str], tmp_path: Path) -> None:
    spool = Spool("memory:turn", tmp_path / "spool")
    spool.put([make_call()])
    with spool.file.turn() as is_mine:
        assert is_mine
    plant, told = planted
    plant(spool.path.with_suffix(".turn"))
    with pytest.raises(StorageUnavailableError, match=told):
        spool.file.turn().__enter__()
