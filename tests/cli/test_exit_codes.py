"""Exit codes, errors without a traceback, interrupts, closed pipes, and the cost of the start."""

from __future__ import annotations

import errno
import io
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llmbridge import LLMDatabase, __version__

Command = Callable[..., Any]
LLMBRIDGE = (sys.executable, "-m", "llmbridge.cli")

MISTAKES = [
    ["frobnicate"],
    ["models"],
    ["usage", "--bogus"],
    ["usage", "extra"],
    ["usage", "--by", "nonsense"],
    ["usage", "--by", "tag:"],
    ["usage", "--by", "day,month"],
    ["usage", "--by", "user,user"],
    ["usage", "--since", "all", "--by", "day"],
    ["usage", "--since", "yesterday"],
    ["usage", "--since", "2026-13-45"],
    ["usage", "--since", "999999999d"],
    ["usage", "--since", "0001-01-01", "--tz", "Asia/Kathmandu"],
    ["usage", "--since", "2026-02-01", "--until", "2026-01-01"],
    ["usage", "--tz", "Mars/Phobos"],
    ["usage", "--status", "fine"],
    ["usage", "--tag", "team"],
    ["usage", "--tag", "a=1", "--tag", "b=2"],
    ["usage", "--db", ""],
    ["usage", "--db", "nonsense"],
    ["usage", "--db", "unknown://host/x"],
    ["usage", "--db", "sqlite:///x.db?bogus=1"],
    ["--plugin", "nobody", "usage", "--db", "x.db"],
    ["calls", "--status", "fine"],
    ["calls", "--limit", "0"],
    ["calls", "--limit", "1001"],
    ["calls", "--limit", "many"],
    ["calls", "--cursor", "nonsense"],
    ["models", "show"],
    ["chat"],
    ["chat", " ", "--model", "echo:x"],
    ["chat", "Hi", "--model", "nobody:x", "--no-db"],
    ["chat", "Hi", "--model", "gibberish", "--no-db"],
    ["chat", "Hi", "--model", "echo:x", "--user", "u" * 256, "--no-db"],
    ["chat", "Hi", "--model", "echo:x", "--temperature", "nan", "--no-db"],
    ["chat", "Hi", "--model", "echo:x", "--tag", "nope", "--no-db"],
]


@pytest.mark.parametrize("args", MISTAKES, ids=" ".join)
def test_a_mistake_is_2_and_one_line(cli: Command, args: list[str]) -> None:
    result = cli(*args)
    assert (result.code, result.out) == (2, "")
    told = [line for line in result.err.splitlines() if not line.startswith("database: ")]
    assert told[0].startswith("error: ")
    assert len(told) == 1


@pytest.mark.parametrize("args", MISTAKES, ids=" ".join)
def test_a_mistake_with_json_is_a_document(cli: Command, args: list[str]) -> None:
    result = cli("--json", *args)
    assert result.code == 2
    assert set(result.document["error"]) == {"type", "message"}
    assert "Traceback" not in result.err


def test_a_store_that_fails_is_1(cli: Command, tmp_path: Path) -> None:
    (tmp_path / "no.db").write_text("this is no database, whatever its name says")
    result = cli("usage", "--db", "no.db")
    assert (result.code, result.out) == (1, "")
    assert "Traceback" not in result.err
    assert cli("usage", "--db", "no.db", "--json").document["error"]["type"] == "StorageRefusedError"


def test_a_bug_shows_its_traceback_without_secrets(cli: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(self: LLMDatabase) -> None:
        raise KeyError("postgresql://ann:s3cr3t@host/x")

    monkeypatch.setattr(LLMDatabase, "schema_status", broken)
    result = cli("usage", "--db", "memory://", "--json")
    assert (result.code, result.document["error"]["type"]) == (1, "KeyError")
    assert "Traceback" in result.err
    assert "s3cr3t" not in result.err


def test_log_lines_and_warnings_are_plain_lines(cli: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    async def noisy(self: LLMDatabase) -> None:
        logging.getLogger("llmbridge.somewhere").warning("the disk\nis full: password=%s", "s3cr3t")
        logging.getLogger("llmbridge.somewhere").info("nobody asked")
        warnings.warn_explicit("old thing", UserWarning, "somewhere.py", 1, registry={})

    monkeypatch.setattr(LLMDatabase, "schema_status", noisy)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        result = cli("usage", "--db", "memory://", "--json")
    assert result.document["total"]["calls"] == 0
    assert result.err.splitlines()[1:] == ["warning: the disk is full: password=***", "warning: old thing"]


def install_with_our_package(folder: Path, name: str) -> None:
    info = folder / f"{name.replace('-', '_')}-0.2.3.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.2.3\n")
    (info / "RECORD").write_text("../../../bin/chat,,\nllmbridge/__init__.py,,\n")


def test_llmbridge_py_beside_us_is_told(cli: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_with_our_package(tmp_path, "llmbridge-py")
    monkeypatch.syspath_prepend(tmp_path)
    result = cli("chat", "Hi", "--model", "echo:x", "--no-db")
    assert (result.code, result.out) == (0, "echo: Hi\n")
    assert result.err.count("llmbridge-py 0.2.3 is installed beside") == 1


def test_a_distribution_of_any_name_that_has_our_package_is_told(
    cli: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_with_our_package(tmp_path, "another-name")
    monkeypatch.syspath_prepend(tmp_path)
    listed = cli("storage", "plugins", "--json")
    assert listed.err.count("another-name 0.2.3 is installed beside llmbridge-core") == 1
    examined = cli("doctor", "--db", "memory://", "--json")
    assert "pip uninstall another-name" in examined.document["installation"]
    assert "installation" in examined.document["problems"]


def test_help_and_version(cli: Command) -> None:
    assert cli("--version").out == f"llmbridge {__version__}\n"
    for args in (["--help"], ["-h"], []):
        shown = cli(*args)
        assert shown.code == 0
        for word in ("chat", "usage", "calls", "models", "init-db", "storage", "health", "Exit codes", "--db"):
            assert word in shown.out
    for command in ("chat", "usage", "calls", "init-db", "health"):
        assert "--json" in cli(command, "--help").out
    for group, command in (("models", "list"), ("models", "show"), ("storage", "status"), ("storage", "plugins")):
        assert "--json" in cli(group, command, "--help").out


def test_json_alone_is_a_mistake_with_a_document(cli: Command) -> None:
    result = cli("--json")
    assert result.code == 2
    assert "there is no command" in result.document["error"]["message"]


@pytest.mark.parametrize("args", [[], ["chat"], ["usage"], ["calls"], ["models"], ["models", "show"], ["storage"]])
def test_help_shows_what_can_be_typed(cli: Command, args: list[str]) -> None:
    shown = cli(*args, "--help").out
    for ugly in ("<bool>", "range>", "{text}", "{VENDOR", "(provider,model)", "{'error'"):
        assert ugly not in shown


def test_the_parser_s_words_end_before_ours_begin(cli: Command) -> None:
    assert ". See llmbridge calls --help" in cli("calls", "--limit", "many").err
    assert "'. See llmbridge chat --help" in cli("chat").err


@pytest.mark.parametrize("args", [["--help"], ["--version"], ["usage", "--help"]], ids=" ".join)
def test_the_start_imports_neither_providers_nor_drivers(args: list[str]) -> None:
    code = "import sys; from llmbridge.cli import main; main(sys.argv[1:]); print(*sys.modules, file=sys.stderr)"
    ran = subprocess.run([sys.executable, "-c", code, *args], capture_output=True, text=True, check=True)
    heavy = {"pydantic_ai", "openai", "genai_prices", "aiosqlite", "asyncpg", "httpx", "sqlite3"}
    assert set(ran.stderr.split()) & heavy == set()


def test_the_installed_command_is_this_one(tmp_path: Path) -> None:
    command = Path(sys.executable).with_name("llmbridge")
    ran = subprocess.run([command, "init-db", "--db", "x.db", "--json"], cwd=tmp_path, capture_output=True, check=False)
    assert ran.returncode == 0
    assert subprocess.run([command, "usage", "--bogus"], capture_output=True, check=False).returncode == 2


@pytest.mark.parametrize("args", [["calls"], ["calls", "--json"], ["--help"], ["usage", "--bogus", "--json"]])
def test_a_closed_pipe_is_silent(db_url: str, args: list[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    ran = subprocess.run([*LLMBRIDGE, *args], stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writing)
    assert "Traceback" not in ran.stderr
    assert "Broken" not in ran.stderr
    assert [line for line in ran.stderr.splitlines() if not line.startswith("database: ")] == []
    assert ran.returncode == 0


def test_a_full_disk_is_told(cli: Command, db_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class FullDisk(io.RawIOBase):
        def writable(self) -> bool:
            return True

        def write(self, _: Any) -> int:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    full = io.TextIOWrapper(FullDisk(), write_through=True)  # type: ignore[arg-type]
    with monkeypatch.context() as patched:
        patched.setattr(sys, "stdout", full)
        result = cli("calls")
    assert result.code == 1
    assert "error: the output could not be written: " in result.err
    assert os.strerror(errno.ENOSPC) in result.err


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("options", [[], ["--json"]], ids=" ".join)
def test_a_command_that_is_ended_records_its_call(
    cli: Command, tmp_path: Path, options: list[str], sent: signal.Signals, code: int
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}/v1"
        started = subprocess.Popen(
            [*LLMBRIDGE, "chat", "Hi", "--model", "openai:gpt-4o", "--db", str(tmp_path / "new.db"), *options],
            env={**os.environ, "OPENAI_BASE_URL": address},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        with server.accept()[0] as connection:
            connection.recv(1)
            started.send_signal(sent)
            out, err = started.communicate()
    assert started.returncode == code
    assert (json.loads(out)["error"]["message"] == "interrupted") if options else out == ""
    assert err.splitlines()[1:] == ["interrupted"]
    [call] = cli("calls", "--db", "new.db", "--json").document["calls"]
    assert call["status"] == "cancelled"
