"""Rules for every module, beyond the layers, which import-linter checks."""

from __future__ import annotations

import ast
import importlib
import pkgutil
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest

import llmbridge

ROOT = Path(__file__).parents[2]
SOURCES = sorted(ROOT.glob("llmbridge-*/src/**/*.py"))
#: Needs a provider's packages.
WITH_EXTRAS = "llmbridge.providers.pydantic_ai.sdk"


def undocumented(path: Path) -> Iterator[str]:
    """What has no docstring: the module, or a class or function that a public module defines at its top level."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    is_private = path.stem.startswith("_") and path.stem != "__init__"
    offered = [
        node
        for node in tree.body
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("_")
    ]
    for node in [tree, *([] if is_private else offered)]:
        if not (ast.get_docstring(node) or "").strip():
            yield f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 1)}"


def test_every_module_and_what_it_offers_says_what_it_is() -> None:
    assert {path.parent.name for path in SOURCES} >= {"llmbridge", "llmbridge_postgres", "llmbridge_sqlite"}
    assert [place for path in SOURCES for place in undocumented(path)] == []


def test_every_exported_name_resolves() -> None:
    names = [found.name for found in pkgutil.walk_packages(llmbridge.__path__, "llmbridge.")]
    modules = [importlib.import_module(name) for name in names if not name.startswith(WITH_EXTRAS)]
    assert len(modules) > 50
    wrong = []
    for module in (llmbridge, *modules):
        exported = getattr(module, "__all__", [])
        wrong += [f"{module.__name__}.{name} is missing" for name in exported if not hasattr(module, name)]
        wrong += [f"{module.__name__}.{name} is twice there" for name in set(exported) if exported.count(name) > 1]
    assert wrong == []


def test_every_public_name_of_the_package_is_listed() -> None:
    assert set(llmbridge.__all__) <= set(dir(llmbridge))
    with pytest.raises(AttributeError, match="no attribute 'LLMBrigde'"):
        llmbridge.LLMBrigde  # noqa: B018


def test_the_version_is_the_distribution_s() -> None:
    assert llmbridge.__version__ == version("llmbridge-core")


def test_the_package_is_typed() -> None:
    assert (Path(llmbridge.__path__[0]) / "py.typed").is_file()
