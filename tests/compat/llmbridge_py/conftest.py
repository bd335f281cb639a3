"""The environment of a test program: a folder, a fake provider, and a new interpreter."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ...support.fake_provider import FakeProvider, running

Run = Callable[..., str]


@pytest.fixture
def server() -> Iterator[FakeProvider]:
    """What `openai:` and `anthropic:` lead to."""
    with running() as server:
        yield server


@pytest.fixture
def run(tmp_path: Path, server: FakeProvider) -> Run:
    """Runs a program in a folder of its own, and returns what it prints. What stands at the top level of a coroutine
    gets one around it."""

    def run(program: str, *, before: str = "", coroutine: bool = False) -> str:
        if coroutine:
            program = f"async def main():\n{textwrap.indent(program, '    ')}\nasyncio.run(main())\n"
            before = f"import asyncio\n{before}"
        script = tmp_path / "program.py"
        script.write_text(f"{before}\n{program}", encoding="utf-8")
        own = {
            "OPENAI_API_KEY": "sk-reader",
            "OPENAI_BASE_URL": server.url,
            "ANTHROPIC_API_KEY": "sk-ant-reader",
            "ANTHROPIC_BASE_URL": server.origin,
            "HOME": str(tmp_path),
        }
        done = subprocess.run(
            [sys.executable, "-W", "ignore::DeprecationWarning", script.name],
            capture_output=True,
            text=True,
            check=False,
            cwd=tmp_path,
            env={**os.environ, **own},
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run
