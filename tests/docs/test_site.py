"""The pages, the navigation and the generated reference agree with each other and with the code."""

from __future__ import annotations

import pkgutil
import re
import runpy
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import llmbridge

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
SITE_PAGES = sorted(DOCS.rglob("*.md"))
OTHER_PAGES = [
    *(ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")),
    *sorted(ROOT.glob("llmbridge-*/README.md")),
]
PAGES = [*SITE_PAGES, *OTHER_PAGES]
REFERENCE = DOCS / "cli.md"

#: Words, as regular expressions, for which the glossary has another one, or none.
BANNED = (
    "anew",
    "answer",
    "answers",
    "became of",
    "books",
    "desk",
    "in force",
    "(?<!there )is no",
    "journal",
    "patience",
    "roster",
    "upkeep",
    "vendor",
    "vendors",
    "whoever",
)

#: Words that code and tests do not use either, in names, docstrings and comments.
OLD_WORDS = (
    r"\b(whoever|anew|became of|in force|upkeep|patience)\b|_(whoever|anew|upkeep|patience)(_|\b)|(on|the)_books\b"
)


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def prose(page: Path) -> str:
    """The text of a page without code, in small letters, each run of white space as one space."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"`[^`]*`|\]\([^)]*\)", " ", text)
    return " ".join(text.lower().split())


def test_the_reference_of_the_command_line_is_what_the_commands_say() -> None:
    generated = runpy.run_path(str(ROOT / "tools" / "cli_reference.py"))["page"]()
    assert REFERENCE.read_text(encoding="utf-8") == generated, "run: python tools/cli_reference.py"


@pytest.mark.parametrize("command", ["chat", "usage", "models set-price", "storage copy"])
def test_the_reference_has_every_option_that_help_shows(command: str) -> None:
    command_line = [sys.executable, "-m", "llmbridge.cli", *command.split(), "--help"]
    shown = subprocess.run(command_line, capture_output=True, text=True, check=True).stdout
    [section] = re.findall(
        rf"^## llmbridge {command}\n(.*?)(?=^## |\Z)", REFERENCE.read_text("utf-8"), re.MULTILINE | re.DOTALL
    )
    table = re.findall(r"^│\W+(--[a-z0-9-]+)", shown, re.MULTILINE)
    assert table
    assert [option for option in table if option != "--help" and f"`{option}" not in section] == []


def test_every_page_of_the_site_is_in_its_navigation_once() -> None:
    navigation = re.search(r"^nav:\n(.*)", (ROOT / "mkdocs.yml").read_text("utf-8"), re.MULTILINE | re.DOTALL)
    assert navigation is not None
    listed = re.findall(r"^ +- (\S+\.md)$", navigation[1], re.MULTILINE)
    assert sorted(listed) == sorted(str(page.relative_to(DOCS)) for page in SITE_PAGES)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_relative_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]+))?\)", page.read_text(encoding="utf-8"))
    for file, heading in links:
        there = page.parent / file if file else page
        assert there.exists(), f"{name(page)} links {file}"
        if heading:
            titles = re.findall(r"^#+ (.*)$", there.read_text(encoding="utf-8"), re.MULTILINE)
            assert heading in [re.sub(r"[^\w\- ]", "", title).lower().replace(" ", "-") for title in titles]


def test_pages_of_the_site_link_nothing_outside_of_it() -> None:
    for page in SITE_PAGES:
        for file in re.findall(r"\]\((?!https?:)([^)#\s]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / file).resolve().is_relative_to(DOCS), f"{name(page)} links {file}"


@pytest.mark.parametrize("page", [page for page in PAGES if page != REFERENCE], ids=name)
def test_pages_use_the_words_of_the_glossary(page: Path) -> None:
    text = prose(page)
    if page == ROOT / "README.md":
        text = text.replace("keeps the books: every call", "", 1)
    assert [word for word in BANNED if re.search(rf"\b{word}\b", text)] == []


def test_every_public_module_has_a_reference() -> None:
    shown = {
        part
        for page in (DOCS / "api").glob("*.md")
        for part in re.findall(r"^::: llmbridge\.(\w+)", page.read_text("utf-8"), re.MULTILINE)
    }
    modules = {module.name for module in pkgutil.iter_modules(llmbridge.__path__) if not module.name.startswith("_")}
    assert shown == modules - {"cli"}


def test_the_picture_of_the_layers_has_every_package() -> None:
    boxes = re.findall(r"middle\" fill=\"#111111\">([\w.]+)<", (DOCS / "layers.svg").read_text("utf-8"))
    modules = {module.name for module in pkgutil.iter_modules(llmbridge.__path__)} - {"base"}
    assert modules - set(boxes) == set()


def test_every_module_is_on_the_map() -> None:
    """Commands, modules of the conformance kit and protocols of providers are named by their folder."""
    page = (DOCS / "architecture.md").read_text("utf-8")
    modules = [path for path in ROOT.glob("llmbridge-*/src/**/*.py") if not path.name.startswith("__")]
    by_folder = {"commands", "models", "storage", "testing", "sdk"}
    missing = [
        name(path)
        for path in modules
        if f"{path.name}`" not in page and not (path.parent.name in by_folder and f"{path.parent.name}/`" in page)
    ]
    assert missing == []


def test_the_code_and_the_tests_use_none_of_the_old_words() -> None:
    found = [
        f"{name(path)}: {line.strip()}"
        for path in [*ROOT.glob("llmbridge-*/src/**/*.py"), *ROOT.glob("tests/**/*.py")]
        if "upstream" not in path.parts and path != Path(__file__)
        for line in path.read_text("utf-8").splitlines()
        if re.search(OLD_WORDS, line, re.IGNORECASE)
    ]
    assert found == []


@pytest.mark.parametrize("page", [DOCS / "architecture.md", DOCS / "glossary.md", ROOT / "CONTRIBUTING.md"], ids=name)
def test_every_path_that_is_named_exists(page: Path) -> None:
    """A path is relative to the repository, to the core or to the sources of a backend, in a row of a table also to the
    folder that the row begins with; or both backends have it."""
    core, *backends = (ROOT / f"llmbridge-{name}" / "src" for name in ("core", "sqlite", "postgres"))
    missing = []
    for line in page.read_text("utf-8").splitlines():
        folder = re.match(r"\| `([\w/]+/)` \|", line)
        bases = [ROOT, core / "llmbridge", *backends]
        bases += [base / folder[1] for base in bases[1:]] if folder else []
        for path in re.findall(r"`([\w./-]+(?:\.py|\.sql|\.md|\.toml|/))`", line):
            in_both = all((backend / f"llmbridge_{backend.parts[-2][10:]}" / path).exists() for backend in backends)
            if not in_both and not any((base / path).exists() for base in bases):
                missing.append(path)
    assert missing == []


def test_every_session_is_explained_to_contributors_and_no_other() -> None:
    sessions = re.findall(
        r"^@nox\.session(?:\([^)]*?name=\"([^\"]+)\".*?\)|\(.*?\))?\ndef (\w+)",
        (ROOT / "noxfile.py").read_text("utf-8"),
        re.MULTILINE,
    )
    table = (ROOT / "CONTRIBUTING.md").read_text("utf-8").partition("| session |")[2].partition("\n\n")[0]
    told = {word for row in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE) for word in re.findall(r"`([^`]+)`", row)}
    assert told == {given or function for given, function in sessions}


def test_contributors_install_groups_that_exist() -> None:
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["dependency-groups"]
    asked = re.findall(r"--group ([\w-]+)", (ROOT / "CONTRIBUTING.md").read_text("utf-8"))
    assert asked
    assert set(asked) <= set(groups)
