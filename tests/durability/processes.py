"""Processes that record calls, and the notes that they write."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).with_name("programs")
NUMBER_BYTES = 8


class Process:
    """One program that runs; `output` is what it and what it starts have printed."""

    def __init__(self, zygote: Zygote, pid: int) -> None:
        self.pid = pid
        self._zygote = zygote
        self._ended: int | None = None

    def kill(self) -> None:
        """End it at once, whatever it does."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    def wait(self) -> int:
        """How it ended: its exit code, or the negative number of the signal."""
        if self._ended is None:
            self._ended = int(self._zygote.ask("wait", self.pid))
        return self._ended


class Zygote:
    """Starts programs of `programs/recording.py`."""

    def __init__(self, environment: dict[str, str], log: Path) -> None:
        self.log = log
        self._errors = log.open("w")
        self._lock = threading.Lock()
        self._process = subprocess.Popen(
            [sys.executable, str(FOLDER / "zygote.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env={**os.environ, **environment},
        )

    def start(self, program: str, **arguments: Any) -> Process:
        return Process(self, int(self.ask("start", program, arguments)))

    def ask(self, *command: Any) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with self._lock:
            self._process.stdin.write(json.dumps(command) + "\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        assert answer, self.log.read_text()
        return answer

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()
        self._errors.close()


@contextmanager
def zygote(log: Path, **environment: str) -> Iterator[Zygote]:
    started = Zygote(environment, log)
    try:
        yield started
    finally:
        started.close()


def until(happened: Callable[[], bool]) -> None:
    """Wait, for at most a minute, for what another process does."""
    for _ in range(12_000):
        if happened():
            return
        time.sleep(0.005)
    raise TimeoutError


def acknowledged(notes: Path) -> set[int]:
    """Return the numbers of the acknowledged calls of programs."""
    if not notes.exists():
        return set()
    noted = notes.read_bytes()
    whole = len(noted) // NUMBER_BYTES * NUMBER_BYTES
    return {int.from_bytes(noted[at : at + NUMBER_BYTES], "big") for at in range(0, whole, NUMBER_BYTES)}
