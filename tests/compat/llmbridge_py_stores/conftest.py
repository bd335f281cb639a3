"""Programs that run the real distribution of llmbridge-py in an environment of its own."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ...support.postgres_server import PROGRAMS, OwnServer, own

VARIABLE = "LLMBRIDGE_TEST_UPSTREAM_PYTHON"

Upstream = Callable[..., Any]


@pytest.fixture(scope="session")
def upstream() -> Upstream:
    """Runs a program with llmbridge-py 0.2.3, and gives what it printed as JSON."""
    python = os.environ.get(VARIABLE)
    if python is None:
        pytest.fail(f"{VARIABLE} must name the Python of an environment in which llmbridge-py==0.2.3 is installed")

    def run(program: str, *args: str) -> Any:
        # Isolated from this folder and from our own environment, which owns the same package.
        done = subprocess.run([python, "-I", "-c", program, *args], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    version = run("import importlib.metadata, json; print(json.dumps(importlib.metadata.version('llmbridge-py')))")
    if version != "0.2.3":
        pytest.fail(f"{VARIABLE} names an environment with llmbridge-py {version}, not 0.2.3")
    return run


@pytest.fixture(scope="session")
def server() -> Iterator[OwnServer]:
    with own() as server:
        if not server.run("SELECT FROM pg_available_extensions WHERE name = 'pgcrypto'"):
            pytest.fail(
                f"llmbridge-py needs the extension pgcrypto; name the programs of a server with it in {PROGRAMS}"
            )
        yield server
