"""Calls wait in a file of the user's own, survive exactly, and leave it in the order in which they came."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from llmbridge._recording import spool as spool_module
from llmbridge._recording import spool_file
from llmbridge._recording.spool import Spool
from llmbridge._recording.spool_file import SpoolFile
from llmbridge._shared.files import make_private_file
from llmbridge.errors import RecordRejectedError, StorageUnavailableError
from llmbridge.schemas import CallRecord
from llmbridge.testing import make_call
from llmbridge.testing.comparison import assert_same

TARGET = "postgresql://db.example/shop?schema=llmbridge"


@pytest.fixture
def spool(tmp_path: Path) -> SpoolFile:
    return SpoolFile(tmp_path / "state" / "spool", TARGET)


def calls_of(spool: SpoolFile) -> list[CallRecord | None]:
    return [found.record for found in spool.oldest(1000)]


def full_call() -> CallRecord:
    """A call with every field set, to the last digit."""
    return CallRecord(
        id=UUID("0190a5a4-7b3c-7def-8123-456789abcdef"),
        origin="äpp \N{GRINNING FACE}",
        id_at_origin="user-1",
        provider="openai",
        model_name="gpt-4o-mini",
        requested_model="openai:gpt-4o-mini",
        response_model="gpt-4o-mini-2024-07-18",
        prompt_tokens=2**63 - 1,
        completion_tokens=0,
        total_tokens=12,
        cache_read_tokens=3,
        cache_write_tokens=4,
        cache_write_1h_tokens=1,
        reasoning_tokens=5,
        usage_details={"input_audio_tokens": 2**63 - 1, "ü": 0},
        usage_source="partial",
        estimated_cost=Decimal("8999999.123456789012"),
        cost_source="own_prices",
        cost_reason="missing_rate",
        dollars_per_million_tokens_input_used=Decimal("0.000000000001"),
        dollars_per_million_tokens_output_used=Decimal("-0"),
        price_context={"service_tier": "Priority", "ü": ""},
        price_version="v\n1",
        price_factor=Decimal("0.780000000001"),
        previous_cost=Decimal("1E-12"),
        previous_cost_reason="unknown_model",
        repriced_at=datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC),
        response_time_ms=7,
        time_to_first_token_ms=8,
        stream=True,
        finish_reason="stop",
        response_id="r",
        attempt=3,
        group_id=UUID(int=1),
        temperature=0.1 + 0.2,
        max_tokens=-1,
        tools_used=["a", ""],
        system_prompt_hash="f" * 64,
        status="rate_limited",
        error_type="RateLimitError",
        error_message='"quoted"\t\\',
        metadata={"n": [1, 1.0, 1e-300, True, None, {"deep": "ü"}], "large": 2**63 - 1},
        called_at=datetime(1, 1, 1, 0, 0, 0, 1, tzinfo=UTC),
    )


def test_a_call_survives_to_the_last_digit(spool: SpoolFile) -> None:
    call = full_call()
    assert set(CallRecord.model_fields) == call.model_fields_set
    spool.put([call, make_call()])
    assert_same(calls_of(spool), [call, make_call()])
    (back, _) = calls_of(spool)
    assert back is not None
    assert str(back.estimated_cost) == str(call.estimated_cost)
    assert repr(back.metadata) == repr(call.metadata)
    assert back.called_at.tzinfo is UTC


def test_calls_leave_in_the_order_in_which_they_came(spool: SpoolFile) -> None:
    late_first = [make_call(number) for number in (5, 3, 9)]
    spool.put(late_first[:2])
    spool.put(late_first[2:])
    found = spool.oldest(2)
    assert [one.record for one in found] == late_first[:2]
    assert [one.record for one in spool.oldest(2, after=found[-1].position)] == late_first[2:]
    spool.remove([one.position for one in found])
    assert calls_of(spool) == late_first[2:]


def test_of_one_id_the_first_stays(spool: SpoolFile) -> None:
    spool.put([make_call(), make_call(origin="second")])
    spool.put([make_call(origin="third")])
    assert calls_of(spool) == [make_call()]


def test_what_was_set_aside_is_kept_and_no_longer_offered(spool: SpoolFile) -> None:
    spool.put([make_call(0), make_call(1)])
    spool.set_aside({spool.oldest(1)[0].position: "refused"})
    assert calls_of(spool) == [make_call(1)]
    assert spool.counts() == (1, 1)


def test_every_store_has_a_file_of_its_own(tmp_path: Path) -> None:
    one, same, other = (SpoolFile(tmp_path, target) for target in (TARGET, TARGET, "sqlite:////srv/calls.db"))
    one.put([make_call()])
    assert calls_of(same) == [make_call()]
    assert calls_of(other) == []
    assert "example" not in one.path.name


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such modes")
def test_files_and_folders_are_for_their_owner_alone(spool: SpoolFile, tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        spool.put([make_call()])
        with spool.turn():
            pass
    finally:
        os.umask(before)
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "state").rglob("*")}
    assert {mode for path, mode in modes.items() if path.is_file()} == {0o600}
    assert {mode for path, mode in modes.items() if path.is_dir()} == {0o700}


def test_every_commit_is_on_the_disk(spool: SpoolFile, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[Any, ...]] = []
    prepare = spool_file._prepare

    def look(file: sqlite3.Connection) -> None:
        prepare(file)
        seen.append(
            (file.execute("PRAGMA synchronous").fetchone()[0], file.execute("PRAGMA journal_mode").fetchone()[0])
        )

    monkeypatch.setattr(spool_file, "_prepare", look)
    spool.put([make_call()])
    assert seen == [(2, "truncate")]


def fill(spool: SpoolFile) -> int:
    """Put calls until there is no room for one more; how many there are."""
    for number in range(10_000):
        try:
            spool.put([make_call(number)])
        except StorageUnavailableError:
            return number
    pytest.fail("there is no bound")


def test_the_file_is_bounded_and_gives_back_its_space(spool: SpoolFile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool_file, "MAX_BYTES", 200_000)
    stored = fill(spool)
    assert 0 < stored < 1000
    with pytest.raises(StorageUnavailableError, match="full"):
        spool.put([make_call(stored)])
    assert spool.counts()[0] == stored
    assert spool.path.stat().st_size <= 200_000
    spool.remove([found.position for found in spool.oldest(1000)])
    assert spool.path.stat().st_size < 50_000
    spool.put([make_call()])


def test_calls_in_a_full_file_can_be_set_aside_all_the_same(spool: SpoolFile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool_file, "MAX_BYTES", 200_000)
    stored = fill(spool)
    spool.set_aside({found.position: "x" * 500 for found in spool.oldest(1000)})
    assert spool.counts() == (0, stored)
    with pytest.raises(StorageUnavailableError, match="full"):
        spool.put([make_call(number) for number in range(1000, 2000)])


def test_what_was_set_aside_waits_again_when_it_is_to_be_tried_again(spool: SpoolFile) -> None:
    assert (spool.retry(), spool.refusals(10)) == (0, {})
    spool.put([make_call(number) for number in range(4)])
    spool.set_aside({1: "too large", 3: "of no vendor", 4: "too large"})
    assert spool.refusals(10) == {"too large": 2, "of no vendor": 1}
    assert spool.refusals(1) == {"too large": 2}
    assert spool.retry() == 3
    assert calls_of(spool) == [make_call(number) for number in range(4)]
    assert spool.refusals(10) == {}


def test_a_user_is_forgotten_in_every_call_and_nothing_else_is_changed(spool: SpoolFile) -> None:
    assert spool.calls_of("user-1") == {}
    spool.forget("user-1")
    assert not spool.is_there()
    elsewhere, aside = make_call(1, origin="back", id_at_origin="user-1"), make_call(2, id_at_origin="user-1")
    others = [make_call(3, id_at_origin="user-2"), make_call(4, id_at_origin=None)]
    spool.put([full_call(), elsewhere, aside, *others, make_call(5)])
    spool.set_aside({3: "refused"})
    with closing(sqlite3.connect(spool.path, isolation_level=None)) as file:
        file.execute("UPDATE calls SET record = 'nonsense' WHERE position = 6")
    assert spool.calls_of("user-1", "back") == {"back": 1}
    spool.forget("user-1", "back")
    assert spool.calls_of("user-1") == {aside.origin: 1, full_call().origin: 1}
    spool.forget("user-1")
    assert spool.calls_of("user-1") == {}
    spool.retry()
    nameless = [call.model_copy(update={"id_at_origin": None}) for call in (full_call(), elsewhere, aside)]
    assert_same(calls_of(spool)[:-1], [*nameless, *others])
    (back, *_) = calls_of(spool)
    assert back is not None
    assert str(back.estimated_cost) == str(full_call().estimated_cost)
    assert repr(back.metadata) == repr(full_call().metadata)


def test_it_is_one_process_s_turn_at_a_time_and_dies_with_it(spool: SpoolFile) -> None:
    program = (
        "import sys; from pathlib import Path; from llmbridge._recording.spool_file import SpoolFile; "
        "turn = SpoolFile(Path(sys.argv[2]), sys.argv[1]).turn(); "
        "print(turn.__enter__(), flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", program, TARGET, str(spool.path.parent)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "True\n"
        with spool.turn() as mine:
            assert not mine
        process.kill()
    with spool.turn() as mine, spool.turn() as again:
        assert (mine, again) == (True, False)


def test_calls_that_this_release_cannot_read_say_why(spool: SpoolFile) -> None:
    spool.put([make_call(0), make_call(1)])
    with closing(sqlite3.connect(spool.path, isolation_level=None)) as file:
        file.execute("UPDATE calls SET record = json_set(record, '$.flavour', 1) WHERE position = 1")
        file.execute("UPDATE calls SET record = 'nonsense' WHERE position = 2")
    newer, broken = spool.oldest(10)
    assert (newer.record, broken.record) == (None, None)
    assert "flavour" in (newer.problem or "")
    assert broken.problem == "JSONDecodeError"


def test_a_file_of_a_newer_release_is_left_alone(spool: SpoolFile) -> None:
    spool.put([make_call()])
    with closing(sqlite3.connect(spool.path, isolation_level=None)) as file:
        file.execute("PRAGMA user_version = 99")
    with pytest.raises(StorageUnavailableError, match="newer release"):
        spool.put([make_call(1)])
    with pytest.raises(StorageUnavailableError, match="newer release"):
        spool.oldest(10)


def test_a_place_where_calls_cannot_wait_is_told_and_nothing_is_made(spool: SpoolFile, tmp_path: Path) -> None:
    spool.check()
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "state").write_text("in the way")
    with pytest.raises(StorageUnavailableError, match="not a directory"):
        spool.check()
    with pytest.raises(StorageUnavailableError, match="cannot be spooled"):
        spool.put([make_call()])
    assert spool.counts() == (0, 0)
    assert spool.oldest(1) == []


@pytest.mark.skipif(os.name == "nt", reason="Windows has other names")
@pytest.mark.parametrize(("name", "told"), [("x" * 300, "name too long"), ("x\0y", "null (byte|character)")])
def test_a_name_that_no_folder_can_have_is_told(name: str, told: str, tmp_path: Path) -> None:
    spool = SpoolFile(tmp_path / name, TARGET)
    assert not spool.is_there()
    assert spool.counts() == (0, 0)
    assert spool.oldest(1) == []
    for use in (spool.check, lambda: spool.put([make_call()]), lambda: spool.turn().__enter__()):
        with pytest.raises(StorageUnavailableError, match=rf"cannot be spooled in .*{told}"):
            use()


def test_a_file_that_is_no_spool_is_told_and_what_to_do_with_it(spool: SpoolFile) -> None:
    make_private_file(spool.path)
    spool.path.write_bytes(b"not a database" * 100)
    with pytest.raises(StorageUnavailableError, match="not a database; the file is damaged: move it away"):
        spool.check()
    spool.path.rename(spool.path.with_suffix(".damaged"))
    spool.put([make_call()])
    assert spool.counts()[0] == 1


def test_a_damaged_file_beside_the_calls_is_not_taken_for_theirs(spool: SpoolFile) -> None:
    spool.put([make_call()])
    make_private_file(spool.path.with_suffix(".turn"))
    spool.path.with_suffix(".turn").write_bytes(b"not a database" * 100)
    with pytest.raises(StorageUnavailableError, match=r"\.turn: file is not a database; the file is damaged"):
        spool.turn().__enter__()


FOLDERS: Sequence[tuple[dict[str, str], str | None, str]] = [
    ({"LLMBRIDGE_SPOOL_DIR": "/of/the/environment"}, "/given", "/given"),
    ({"LLMBRIDGE_SPOOL_DIR": "/of/the/environment"}, None, "/of/the/environment"),
    ({"XDG_STATE_HOME": "/state"}, None, "/state/llmbridge/spool"),
    ({"XDG_STATE_HOME": "relative"}, None, "/people/someone/.local/state/llmbridge/spool"),
    ({}, None, "/people/someone/.local/state/llmbridge/spool"),
    ({}, "~/mine", "/people/someone/mine"),
]


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="other systems have other folders")
@pytest.mark.parametrize(("environment", "given", "expected"), FOLDERS)
def test_the_folder_is_the_one_given_else_the_environment_s_else_the_user_s(
    environment: dict[str, str], given: str | None, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/people/someone")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert Spool(TARGET, given).path.parent == Path(expected)


def test_a_user_without_a_home_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError

    monkeypatch.setattr(spool_module, "spool_directory", lambda _: homeless())
    spool = Spool(TARGET)
    assert not spool.is_there()
    with pytest.raises(StorageUnavailableError, match="home directory"):
        spool.check()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_forked_child_puts_calls_beside_those_of_its_parent(spool: SpoolFile) -> None:
    program = """
import os, sys, threading, traceback
from pathlib import Path
from llmbridge._recording.spool_file import SpoolFile
from llmbridge.testing import make_call
spool = SpoolFile(Path(sys.argv[2]), sys.argv[1])
spool.put([make_call(0)])  # nothing is imported or made ready for the first time during a fork
busy = threading.Thread(target=lambda: [spool.put([make_call(n)]) for n in range(1, 30)])
busy.start()
children = []
for number in range(10):
    if (child := os.fork()) == 0:
        code = 1
        try:
            spool.put([make_call(1000 + number)])
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    children.append(child)
ended = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
busy.join()
assert ended == [0] * 10, ended
"""
    command = [sys.executable, "-c", program, TARGET, str(spool.path.parent)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=180)
    assert (done.returncode, done.stderr) == (0, "")
    put = {call.id for call in calls_of(spool) if call is not None}
    assert put == {make_call(number).id for number in (*range(30), *range(1000, 1010))}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_child_forked_during_its_parent_s_turn_gets_it_when_that_ends(spool: SpoolFile) -> None:
    program = """
import os, sys
from pathlib import Path
from llmbridge._recording.spool_file import SpoolFile
spool = SpoolFile(Path(sys.argv[2]), sys.argv[1])
(tried, try_), (ended, end) = os.pipe(), os.pipe()
with spool.turn() as mine:
    assert mine
    if (child := os.fork()) == 0:
        with spool.turn() as early:
            os.write(try_, b"!")
        os.read(ended, 1)
        with spool.turn() as late:
            os._exit(0 if (early, late) == (False, True) else 1)
    os.read(tried, 1)
    with spool.turn() as again:
        assert not again
os.write(end, b"!")
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
"""
    subprocess.run([sys.executable, "-c", program, TARGET, str(spool.path.parent)], check=True, timeout=60)


def nested(depth: int) -> dict[str, Any]:
    value: list[Any] = []
    for _ in range(depth - 2):
        value = [value]
    return {"a": value}


def test_a_call_that_is_no_json_is_named_and_harms_no_other(spool: SpoolFile) -> None:
    calls = [make_call(number) for number in range(3)]
    deep = calls[1].model_copy(update={"metadata": nested(300)})
    with pytest.raises(RecordRejectedError) as refused:
        spool.put([calls[0], deep, calls[2]])
    assert refused.value.ids == (deep.id,)
    assert not spool.is_there()
    spool.put([calls[0], calls[2]])
    assert calls_of(spool) == [calls[0], calls[2]]


def test_a_row_that_is_nested_too_deeply_to_read_stops_no_other(spool: SpoolFile) -> None:
    spool.put([make_call(1)])
    with closing(sqlite3.connect(spool.path)) as file, file:
        text = '{"metadata": {"a": ' + "[" * 100_000 + "]" * 100_000 + "}}"
        file.execute("INSERT INTO calls (id, record) VALUES ('deep', ?)", (text,))
    spool.put([make_call(2)])
    assert calls_of(spool) == [make_call(1), None, make_call(2)]
