"""Calls wait for the database that they were recorded for, and for no other one at its address."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from pathlib import Path
from uuid import UUID

import pytest

from llmbridge._recording.spool import Spool, SpoolCounts, SpoolFileStatus
from llmbridge._recording.spool_file import SpoolFile
from llmbridge._shared.files import make_private_file
from llmbridge._shared.ids import made_at
from llmbridge.errors import StorageUnavailableError
from llmbridge.schemas import CallRecord
from llmbridge.storage import new_identity
from llmbridge.testing import make_call

HERE, THERE = "sqlite:////data/calls.db", "sqlite:////srv/calls.db"
OLD, OTHER = new_identity(), new_identity()


def later() -> str:
    """The identity of a database that is made now, after everything that was done before."""
    made, now = new_identity(), time.time_ns() // 1_000_000
    while UUID(made).int >> 80 <= now:
        made = new_identity()
    return made


def reached(target: str, folder: Path, identity: str | None) -> Spool:
    """The spool of a process whose database has answered."""
    spool = Spool(target, folder)
    spool.recognize(identity)
    while spool.bind(2):
        pass
    return spool


def waiting(spool: Spool) -> list[CallRecord | None]:
    """The calls that the database gets."""
    return [found.record for found in spool.file.oldest(1000)]


def test_an_identity_tells_when_it_was_made() -> None:
    before = time.time() - 0.001
    at = made_at(new_identity())
    assert at is not None
    assert before <= at.timestamp() <= time.time()
    for unknown in ("mine", "", "6ba7b810-9dad-11d1-80b4-00c04fd430c8", "ffffffff-ffff-7fff-8fff-ffffffffffff"):
        assert made_at(unknown) is None


def test_calls_wait_in_a_file_of_the_database_that_answered(tmp_path: Path) -> None:
    unknown, here = Spool(HERE, tmp_path), reached(HERE, tmp_path, OLD)
    assert unknown.path != here.path
    here.put([make_call(0)])
    assert not unknown.file.is_there()
    assert waiting(here) == [make_call(0)]
    assert here.files() == [SpoolFileStatus(here.path.name, HERE, OLD, waiting=1)]


def test_a_database_that_was_moved_gets_its_calls(tmp_path: Path) -> None:
    reached(HERE, tmp_path, OLD).put([make_call()])
    moved = reached(THERE, tmp_path, OLD)
    assert waiting(moved) == [make_call()]
    moved.put([make_call(1)])
    assert moved.files() == [SpoolFileStatus(moved.path.name, THERE, OLD, waiting=2)]


@pytest.mark.parametrize("is_new", [False, True])
def test_another_database_at_the_address_gets_no_call(is_new: bool, tmp_path: Path) -> None:
    reached(HERE, tmp_path, OLD).put([make_call()])
    other = reached(HERE, tmp_path, later() if is_new else OTHER)
    assert waiting(other) == []
    assert other.counts() == SpoolCounts(to_adopt=1)
    assert Spool(HERE, tmp_path).counts() == SpoolCounts(waiting=1)


def test_calls_of_before_the_first_answer_are_bound_to_an_older_database(tmp_path: Path) -> None:
    Spool(HERE, tmp_path).put([make_call(number) for number in range(5)])
    unbound = Spool(HERE, tmp_path)
    unbound.file.set_aside({2: "too large"})
    assert unbound.counts() == SpoolCounts(waiting=4, set_aside=1)
    database = Spool(HERE, tmp_path)
    database.recognize(OLD)
    assert database.counts() == SpoolCounts(waiting=4, set_aside=1)
    assert [database.bind(2) for _ in range(4)] == [2, 2, 1, 0]
    assert database.counts() == SpoolCounts(waiting=4, set_aside=1)
    assert waiting(database) == [make_call(number) for number in (0, 2, 3, 4)]
    assert unbound.file.counts() == (0, 0)


def test_calls_of_before_the_first_answer_wait_if_the_database_was_made_later(tmp_path: Path) -> None:
    unbound = Spool(HERE, tmp_path)
    unbound.put([make_call()])
    made_later = reached(HERE, tmp_path, later())
    unbound.put([make_call(1)])  # the first call counts
    assert waiting(made_later) == []
    assert made_later.counts() == SpoolCounts(to_adopt=2)


def test_calls_of_before_the_first_answer_wait_if_another_database_was_at_the_address(tmp_path: Path) -> None:
    reached(HERE, tmp_path, OTHER).put([make_call(0)])
    Spool(HERE, tmp_path).put([make_call(1)])
    assert reached(HERE, tmp_path, OLD).counts() == SpoolCounts(to_adopt=2)
    assert reached(HERE, tmp_path, OTHER).counts() == SpoolCounts(waiting=2)


def test_a_database_elsewhere_keeps_no_call_from_being_bound(tmp_path: Path) -> None:
    reached(THERE, tmp_path, OTHER).put([make_call(0)])
    Spool(HERE, tmp_path).put([make_call(1)])
    assert waiting(reached(HERE, tmp_path, OLD)) == [make_call(1)]


def test_calls_wait_if_the_identity_does_not_tell_its_age(tmp_path: Path) -> None:
    Spool(HERE, tmp_path).put([make_call()])
    assert reached(HERE, tmp_path, "a text of the plugin").counts() == SpoolCounts(to_adopt=1)


def test_calls_wait_while_a_file_cannot_be_read_that_may_tell_of_another_database(tmp_path: Path) -> None:
    other = reached(HERE, tmp_path, OTHER)
    other.put([make_call(0)])
    other.path.write_bytes(b"no spool" * 1000)
    Spool(HERE, tmp_path).put([make_call(1)])
    database = reached(HERE, tmp_path, OLD)
    assert database.counts() == SpoolCounts(to_adopt=1)
    other.path.unlink()
    assert waiting(reached(HERE, tmp_path, OLD)) == [make_call(1)]


def test_a_database_without_an_identity_gets_the_calls_of_its_address(tmp_path: Path) -> None:
    Spool(HERE, tmp_path).put([make_call(0)])
    database = reached(HERE, tmp_path, None)
    database.put([make_call(1)])
    assert waiting(database) == [make_call(0), make_call(1)]
    assert database.counts() == SpoolCounts(waiting=2)
    assert waiting(reached(THERE, tmp_path, None)) == []


def test_adopted_calls_are_in_one_file_at_any_time(tmp_path: Path) -> None:
    source, database = reached(HERE, tmp_path, OTHER), reached(HERE, tmp_path, OLD)
    source.put([make_call(number) for number in range(5)])
    database.put([make_call(3)])
    found = database.find(source.path.name)
    seen = []
    while found.move(database.file, 2):
        seen.append((source.file.counts()[0], database.file.counts()[0]))
    assert seen == [(3, 3), (1, 4), (0, 5)]
    assert {call.id for call in waiting(database) if call} == {make_call(number).id for number in range(5)}


def test_a_move_that_fails_leaves_every_call_where_it_was(tmp_path: Path) -> None:
    source, database = reached(HERE, tmp_path, OTHER), reached(HERE, tmp_path, OLD)
    source.put([make_call(number) for number in range(5)])
    with closing(sqlite3.connect(source.path, isolation_level=None)) as file:
        file.execute("CREATE TRIGGER full BEFORE DELETE ON calls BEGIN SELECT RAISE(ABORT, 'the disk is full'); END")
    with pytest.raises(StorageUnavailableError, match="the disk is full"):
        source.file.move(database.file, 3)
    assert (source.file.counts(), database.file.counts()) == ((5, 0), (0, 0))


def test_a_file_whose_calls_were_discarded_tells_of_no_database(tmp_path: Path) -> None:
    other = reached(HERE, tmp_path, OTHER)
    other.put([make_call(0)])
    Spool(HERE, tmp_path).put([make_call(1)])
    assert [other.file.discard(10) for _ in range(2)] == [1, 0]
    assert [file.name for file in other.files()] == [Spool(HERE, tmp_path).path.name]
    assert waiting(reached(HERE, tmp_path, OLD)) == [make_call(1)]


def test_files_of_others_in_the_folder_are_none_of_the_spool(tmp_path: Path) -> None:
    spool = reached(HERE, tmp_path, OLD)
    spool.put([make_call()])
    (tmp_path / "calls.db").write_bytes(b"a database of somebody")
    assert [file.name for file in spool.files()] == [spool.path.name]
    with pytest.raises(ValueError, match=r"there is no file 'calls\.db'"):
        spool.find("calls.db")


@pytest.mark.parametrize(("called_at", "is_bound"), [(2000, False), (2100, True)])
def test_a_file_of_the_first_version_is_bound_by_the_times_of_its_calls(
    called_at: int, is_bound: bool, tmp_path: Path
) -> None:
    call = make_call(called_at=make_call().called_at.replace(year=called_at))
    file = SpoolFile(tmp_path, HERE)
    make_private_file(file.path)
    with closing(sqlite3.connect(file.path, isolation_level=None)) as first:
        first.execute(
            "CREATE TABLE calls (position INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE,"
            " record TEXT NOT NULL, refused_because TEXT) STRICT"
        )
        first.execute("INSERT INTO calls (id, record) VALUES (?, ?)", (str(call.id), call.model_dump_json()))
        first.execute("PRAGMA user_version = 1")
    database = reached(HERE, tmp_path, OLD)
    assert database.counts() == (SpoolCounts(waiting=1) if is_bound else SpoolCounts(to_adopt=1))
    assert waiting(database) == ([call] if is_bound else [])
