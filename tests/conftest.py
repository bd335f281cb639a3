"""Fixtures of every test: no address but loopback can be reached, and processes can be interrupted."""

from __future__ import annotations

import ipaddress
import os
import signal
import socket
from collections.abc import Iterator
from datetime import date
from itertools import count
from pathlib import Path
from typing import Any

import pytest

_connect = socket.socket.connect
_connect_ex = socket.socket.connect_ex
_getaddrinfo = socket.getaddrinfo


def _is_local(host: Any) -> bool:
    if host in (None, "", "localhost", b"localhost"):
        return True
    try:
        return ipaddress.ip_address(host.decode() if isinstance(host, bytes) else host).is_loopback
    except ValueError:
        return False


def _check(host: Any) -> None:
    if not _is_local(host):
        raise AssertionError(f"a test tried to reach {host!r}")


def pytest_configure() -> None:
    """A shell has SIGINT ignored by what it runs in the background, and so by every process that a test starts."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def loopback_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every connection and every name look-up that leaves this machine fails the test."""

    def connect(self: socket.socket, address: Any) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6):
            _check(address[0])
        _connect(self, address)

    def connect_ex(self: socket.socket, address: Any) -> int:
        if self.family in (socket.AF_INET, socket.AF_INET6):
            _check(address[0])
        return _connect_ex(self, address)

    def getaddrinfo(host: Any, *args: Any, **kwargs: Any) -> Any:
        _check(host)
        return _getaddrinfo(host, *args, **kwargs)

    monkeypatch.setattr(socket.socket, "connect", connect)
    monkeypatch.setattr(socket.socket, "connect_ex", connect_ex)
    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


@pytest.fixture(autouse=True)
def day_of_catalog(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retirements of models after this day change no test."""
    monkeypatch.setattr("llmbridge._models.catalog.today", lambda: date(2026, 11, 30))


@pytest.fixture(scope="session")
def new_homes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Names of new folders in one that is made once: pytest's own factory looks at all earlier ones to number each."""
    parent = tmp_path_factory.mktemp("homes")
    return (parent / str(number) for number in count())


@pytest.fixture(autouse=True)
def own_environment(monkeypatch: pytest.MonkeyPatch, new_homes: Iterator[Path]) -> None:
    """No key, database or plugin setting of the machine reaches a test, and home is a new folder."""
    for name in list(os.environ):
        if name.endswith("_API_KEY") or (name.startswith("LLMBRIDGE_") and not name.startswith("LLMBRIDGE_TEST_")):
            monkeypatch.delenv(name)
    for name in ("DATABASE_URL", "OPENAI_BASE_URL", "OLLAMA_BASE_URL", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    home = next(new_homes)
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
