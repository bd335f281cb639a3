"""The checks of the repository. `nox` runs those that suit the Python at hand; `nox --list` names them all."""

from __future__ import annotations

import os
import re
import shutil
import tarfile
import tempfile
import tomllib
from pathlib import Path

import nox

nox.needs_version = ">=2025.2.9"
nox.options.default_venv_backend = "venv"
nox.options.error_on_external_run = True
nox.options.error_on_missing_interpreters = True
nox.options.sessions = ["lint", "types", "versions", "tests", "core", "isolation"]

ROOT = Path(__file__).parent
DISTRIBUTIONS = ("llmbridge-core", "llmbridge-sqlite")
SOURCES = ("./llmbridge-core[all]", *(f"./{name}" for name in DISTRIBUTIONS[1:]))


def tools(group: str) -> tuple[str, ...]:
    """The requirements of a dependency group of the root project."""
    return nox.project.dependency_groups(nox.project.load_toml(ROOT / "pyproject.toml"), group)


def interpreter(version: str) -> str:
    """The newest of that version that pyenv has, whether or not it is switched on there, else the one on the path."""
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    found = pyenv.glob(f"versions/{version}.*/bin/python")
    newest = max(found, key=lambda path: [int(part) for part in re.findall(r"\d+", path.parts[-3])], default=None)
    return str(newest) if newest else version


@nox.session
def lint(session: nox.Session) -> None:
    """Style and layout of the code."""
    session.install(*tools("lint"))
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """Types of each distribution, strictly."""
    session.install(*SOURCES, *tools("types"))
    for name in DISTRIBUTIONS:
        session.run("mypy", f"{name}/src")


@nox.session(venv_backend="none")
def versions(session: nox.Session) -> None:
    """One version everywhere: of the distributions, and of what they require of each other."""
    projects = {name: tomllib.loads((ROOT / name / "pyproject.toml").read_text())["project"] for name in DISTRIBUTIONS}
    core = projects["llmbridge-core"]
    major, minor, *_ = core["version"].split(".")
    on_core = f"llmbridge-core>={major}.{minor},<{major}.{int(minor) + 1}"
    forwarded = {extra: [f"llmbridge-core[{extra}]"] for extra in core["optional-dependencies"]}
    for name, project in projects.items():
        for field in ("version", "requires-python"):
            if project[field] != core[field]:
                session.error(f"{name} has {field} {project[field]}, llmbridge-core {core[field]}")
        if project is not core and on_core not in project["dependencies"]:
            session.error(f"{name} must depend on {on_core}")
        if project is not core and project["optional-dependencies"] != forwarded:
            session.error(f"{name} must forward the extras of llmbridge-core: {forwarded}")
    session.log(f"one version everywhere: {core['version']}")


@nox.session
def tests(session: nox.Session) -> None:
    """The tests, with every distribution installed."""
    test(session)


@nox.session(name="tests-3.12", python=interpreter("3.12"))
def tests_on_312(session: nox.Session) -> None:
    """The tests on Python 3.12."""
    test(session)


@nox.session(name="tests-3.13", python=interpreter("3.13"))
def tests_on_313(session: nox.Session) -> None:
    """The tests on Python 3.13."""
    test(session)


@nox.session
def core(session: nox.Session) -> None:
    """The tests of llmbridge-core, with no other distribution of ours and no vendor's package installed."""
    session.install("./llmbridge-core", *tools("test"))
    session.run("pytest", *(session.posargs or ["tests/alone", "tests/core", "tests/storage"]))


@nox.session
def isolation(session: nox.Session) -> None:
    """The wheels and the source distributions, used as a user gets them and away from this folder."""
    session.install(*tools("build"))
    with tempfile.TemporaryDirectory() as folder:
        elsewhere = Path(folder).resolve()
        for name in DISTRIBUTIONS:
            session.run("python", "-m", "build", "--outdir", str(elsewhere / "dist"), name, silent=True)
        use_wheels(session, elsewhere)
        use_sources(session, elsewhere)


def test(session: nox.Session) -> None:
    """Install every distribution as a user would, and run the tests."""
    session.install(*SOURCES, *tools("test"))
    session.run("pytest", *(session.posargs or ["-n", "2"]))


def use_wheels(session: nox.Session, elsewhere: Path) -> None:
    """Ask for llmbridge-sqlite alone, in a new environment, and test what is there."""
    wheels = {name: next((elsewhere / "dist").glob(f"{name.replace('-', '_')}-*.whl")) for name in DISTRIBUTIONS}
    ours = elsewhere / "ours.txt"
    ours.write_text("".join(f"{name} @ {wheel.as_uri()}\n" for name, wheel in wheels.items()))
    session.run("python", "-m", "venv", str(elsewhere / "env"))
    python = str(elsewhere / "env" / ("Scripts" if os.name == "nt" else "bin") / "python")
    install = (python, "-m", "pip", "install", "-q")
    session.run(*install, "-c", str(ours), str(wheels["llmbridge-sqlite"]), external=True)
    session.run(*install, *tools("installed"), external=True)
    shutil.copytree(ROOT / "tests" / "installed", elsewhere / "installed")
    with session.chdir(elsewhere):
        session.run(python, "-m", "pytest", "installed", external=True)


def use_sources(session: nox.Session, elsewhere: Path) -> None:
    """Unpack the source distributions and run the README's first command beside them."""
    checkout = elsewhere / "checkout"
    for name in DISTRIBUTIONS:
        archive = next((elsewhere / "dist").glob(f"{name.replace('-', '_')}-*.tar.gz"))
        with tarfile.open(archive) as packed:
            packed.extractall(checkout, filter="data")
        (checkout / archive.name.removesuffix(".tar.gz")).rename(checkout / name)
    command = re.findall(r"^```sh\n(.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)[0]
    with session.chdir(checkout):
        session.run("sh", "-c", command, external=True)
