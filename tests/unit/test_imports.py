"""Importing llmbridge is cheap: modules that a program does not use are not imported."""

from __future__ import annotations

import subprocess
import sys

import pytest

DRIVERS_AND_VENDORS = {
    "aiosqlite",
    "anthropic",
    "asyncpg",
    "genai_prices",
    "google",
    "openai",
    "pgdbm",
    "pydantic_ai",
    "typer",
}
HEAVY = {"click", "email", "hypothesis", "httpx", "pytest", "rich", "sqlite3", "urllib.request"}

#: What any program has that defines a model of pydantic's.
FLOOR = "import asyncio, pydantic; pydantic.create_model('Model', at=int)"


def imported_by(code: str) -> set[str]:
    """The names of the modules that a new interpreter has after `code`."""
    asked = f"import sys; before = set(sys.modules); {code}; print(*(set(sys.modules) - before))"
    return set(subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True).stdout.split())


def test_the_main_import_imports_no_driver_and_no_sdk() -> None:
    imported = imported_by("from llmbridge import LLMBridge, LLMRequest, Message")
    assert "llmbridge.service" in imported
    assert imported & DRIVERS_AND_VENDORS == set()


def test_the_main_import_touches_nothing_heavy_beyond_pydantic() -> None:
    imported = imported_by("from llmbridge import LLMBridge, LLMRequest, Message")
    assert (imported - imported_by(FLOOR)) & HEAVY == set()


def test_importing_the_package_imports_none_of_its_modules() -> None:
    assert {name for name in imported_by("import llmbridge") if name.startswith("llmbridge.")} == set()


def test_importing_scans_no_entry_points() -> None:
    imported_by(
        f"{FLOOR}; import importlib.metadata as m; m.entry_points = m.distributions = None; "
        "from llmbridge import LLMBridge, LLMRequest, Message"
    )


@pytest.mark.parametrize("code", ["import llmbridge.storage", "from llmbridge.providers import BaseLLMProvider"])
def test_the_modules_for_authors_of_plugins_import_no_driver_and_no_sdk(code: str) -> None:
    assert imported_by(code) & DRIVERS_AND_VENDORS == set()
