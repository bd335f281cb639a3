"""The conformance kit finds each defect of a backend with the tests for it, and no defect in a correct backend."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from itertools import cycle
from pathlib import Path
from xml.etree import ElementTree

import pytest

from llmbridge.testing import StorageContract
from llmbridge.testing.harness import Harness

FOLDER = Path(__file__).with_name("broken")
FILES = sorted(FOLDER.glob("broken_*.py"))
NAMES = [file.stem for file in FILES]


def _load() -> dict[type, tuple[type[Harness], frozenset[str]]]:
    sys.path.insert(0, str(FOLDER))
    try:
        for name in NAMES:
            importlib.import_module(name)
        return importlib.import_module("defects").EXPECTED
    finally:
        sys.path.remove(str(FOLDER))


EXPECTED = _load()


def _run_kit(tests: list[str], mode: str, folder: Path) -> tuple[list[str], dict[str, set[str]]]:
    """Run tests in a project of their own; return what was printed, and the tests that failed by test class."""
    (folder / "pytest.ini").write_text(
        f"[pytest]\nfilterwarnings = error\npythonpath = {FOLDER}\n"
        f"asyncio_mode = {mode}\nasyncio_default_fixture_loop_scope = function\n"
    )
    junit = folder / "junit.xml"
    options = [
        "-c",
        str(folder / "pytest.ini"),
        f"--confcutdir={FOLDER}",
        f"--junitxml={junit}",
        "-q",
        "--tb=no",
        "-rN",
    ]
    plugins = ["-p", "pytest_asyncio.plugin", "-p", "no:cacheprovider"]
    printed = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *plugins, *tests],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTEST_ADDOPTS": "", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
    )
    assert junit.exists(), printed.stdout + printed.stderr
    failed: dict[str, set[str]] = {}
    for case in ElementTree.parse(junit).iter("testcase"):
        names = failed.setdefault(case.attrib["classname"].rpartition(".")[2], set())
        if any(outcome.tag in ("failure", "error", "skipped") for outcome in case):
            names.add(case.attrib["name"].partition("[")[0])
    return printed.stdout.splitlines(), failed


@pytest.mark.parametrize(("file", "mode"), list(zip(FILES, cycle(("strict", "auto")), strict=False)), ids=NAMES)
def test_broken_backends_fail_the_tests_meant_for_their_defects_and_sound_ones_none(
    file: Path, mode: str, tmp_path: Path
) -> None:
    _, failed = _run_kit([str(file)], mode, tmp_path)
    assert failed == {f"Test{b.__name__}": tests for b, (_, tests) in EXPECTED.items() if b.__module__ == file.stem}


def test_what_is_not_proven_is_counted_and_listed(tmp_path: Path) -> None:
    printed, _ = _run_kit([f"{FOLDER}/broken_sums.py::TestBare", "-k", "outage"], "auto", tmp_path)
    listed = [line for line in printed if line.endswith(": there is no fixture storage_outage")]
    assert listed
    assert all("::TestBare::" in line for line in listed)
    assert f" {len(listed)} not proven" in printed[-1]


def test_every_part_of_the_kit_is_proven_to_bite() -> None:
    parts = set(StorageContract.__mro__[1:]) - set(Harness.__mro__)
    assert parts == {part for part, tests in EXPECTED.values() if tests}
