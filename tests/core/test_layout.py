"""What holds of every module of llmbridge-core."""

from __future__ import annotations

import ast
import importlib
import pkgutil
from importlib.metadata import version
from pathlib import Path

import pytest

import llmbridge

NAMES = ["llmbridge", *(found.name for found in pkgutil.walk_packages(llmbridge.__path__, "llmbridge."))]
SOURCES = sorted(Path(llmbridge.__path__[0]).rglob("*.py"))
#: Needs a vendor's packages.
WITH_EXTRAS = "llmbridge.providers.pydantic_ai.sdk"


def label(path: Path) -> str:
    return path.relative_to(llmbridge.__path__[0]).as_posix()


def test_the_modules_are_found() -> None:
    assert {"llmbridge.service", "llmbridge.storage.base", "llmbridge.testing.contract"} <= set(NAMES)


@pytest.mark.parametrize("path", SOURCES, ids=label)
def test_a_module_says_what_it_is(path: Path) -> None:
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    assert docstring is not None
    assert docstring.strip()


@pytest.mark.parametrize("path", SOURCES, ids=label)
def test_what_a_public_module_offers_has_a_docstring(path: Path) -> None:
    if path.stem.startswith("_") and path.stem != "__init__":
        return
    tree = ast.parse(path.read_text(encoding="utf-8"))
    offered = [
        node
        for node in tree.body
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("_")
    ]
    assert [node.name for node in offered if ast.get_docstring(node) is None] == []


@pytest.mark.parametrize("name", [name for name in NAMES if not name.startswith(WITH_EXTRAS)])
def test_every_exported_name_resolves(name: str) -> None:
    module = importlib.import_module(name)
    exported = getattr(module, "__all__", [])
    assert [entry for entry in exported if not hasattr(module, entry)] == []
    assert len(exported) == len(set(exported))


def test_every_public_name_of_the_package_is_listed() -> None:
    assert set(llmbridge.__all__) <= set(dir(llmbridge))
    with pytest.raises(AttributeError, match="no attribute 'LLMBrigde'"):
        llmbridge.LLMBrigde  # noqa: B018


def test_the_version_is_the_distribution_s() -> None:
    assert llmbridge.__version__ == version("llmbridge-core")


def test_the_package_is_typed() -> None:
    assert (Path(llmbridge.__path__[0]) / "py.typed").is_file()
