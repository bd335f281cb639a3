"""What holds of every backend that ships with llmbridge: each could be a third party's."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import llmbridge_postgres
import llmbridge_sqlite

BACKENDS = {package.__name__: package for package in (llmbridge_postgres, llmbridge_sqlite)}
SOURCES = [path for package in BACKENDS.values() for path in sorted(Path(package.__path__[0]).rglob("*.py"))]


def label(path: Path) -> str:
    return f"{path.parent.name}/{path.name}"


def imported(path: Path) -> set[str]:
    """The modules that a module imports, by their full names."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add(node.module or "")
    return names


def test_the_modules_are_found() -> None:
    assert {"llmbridge_postgres/backend.py", "llmbridge_sqlite/backend.py"} <= {label(path) for path in SOURCES}


@pytest.mark.parametrize("path", SOURCES, ids=label)
def test_of_llmbridge_it_needs_what_authors_are_given_and_no_more(path: Path) -> None:
    ours = {name for name in imported(path) if name.split(".")[0] == "llmbridge"}
    assert {name for name in ours if name.split(".")[:2] != ["llmbridge", "storage"]} == set()


@pytest.mark.parametrize("path", SOURCES, ids=label)
def test_a_module_says_what_it_is(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert ast.get_docstring(ast.parse(text))
