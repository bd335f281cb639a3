"""The checks of the repository. `nox` runs those that suit the Python at hand; `nox --list` names them all."""

from __future__ import annotations

import os
import random
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
nox.options.sessions = ["lint", "types", "versions", "docs", "tests", "core", "isolation"]

ROOT = Path(__file__).parent
DISTRIBUTIONS = ("llmbridge-core", "llmbridge-postgres", "llmbridge-sqlite")
SOURCES = ("./llmbridge-core[all]", *(f"./{name}" for name in DISTRIBUTIONS[1:]))
#: The tests whose outcome depends on which distributions and packages are installed.
CORE_ALONE = (
    "tests/alone",
    "tests/core/test_imports.py",
    "tests/core/test_plugins.py",
    "tests/storage/test_memory_contract.py",
    "-n",
    "2",
)
#: Where Debian puts the programs of its packages.
POSTGRES_15 = Path("/usr/lib/postgresql/15/bin")
PGBOUNCER = Path("/usr/sbin/pgbouncer")


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
    """Style of the code, and its layers."""
    session.install(*(f"./{name}" for name in DISTRIBUTIONS), *tools("lint"))
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("lint-imports")


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
    """What differs where llmbridge-core is installed without another distribution of ours and without a provider's
    package. `-- tests/alone tests/core tests/storage -n 2` runs all tests of llmbridge-core there."""
    session.install("./llmbridge-core", *tools("test"))
    session.run("pytest", *(session.posargs or CORE_ALONE))


@nox.session(name="postgres-15")
def postgres_15(session: nox.Session) -> None:
    """The tests of the PostgreSQL backend on the oldest server that it takes, which is Debian's package, and those of
    TLS, which the server of the other sessions lacks."""
    install_from_debian(session, "postgresql-15", POSTGRES_15 / "postgres")
    session.install(*SOURCES, *tools("test"))
    session.run(
        "pytest",
        *(session.posargs or ["tests/postgres", "tests/tls", "-n", "2"]),
        env={"LLMBRIDGE_TEST_POSTGRES_PROGRAMS": str(POSTGRES_15)},
    )


@nox.session
def pgbouncer(session: nox.Session) -> None:
    """The tests of the PostgreSQL backend behind a pooler in transaction mode, which is Debian's package."""
    install_from_debian(session, "pgbouncer", PGBOUNCER)
    session.install(*SOURCES, *tools("test"))
    session.run("pytest", *(session.posargs or ["tests/pooled"]), env={"LLMBRIDGE_TEST_PGBOUNCER": str(PGBOUNCER)})


@nox.session
def upstream(session: nox.Session) -> None:
    """Stores that llmbridge-py made, with its real wheel in an environment of its own: it owns our import name."""
    session.install(*SOURCES, *tools("test"))
    session.run("pytest", *(session.posargs or ["tests/upstream"]), env=beside_upstream(session))


@nox.session
def docs(session: nox.Session) -> None:
    """The documentation site, built into `site/`. `-- serve` shows it while you write."""
    session.install(*tools("docs"))
    session.run("mkdocs", *(session.posargs or ["build", "--strict"]), env={"NO_MKDOCS_2_WARNING": "1"})


@nox.session
def bench(session: nox.Session) -> None:
    """How fast calls are recorded, beside what each database and its driver do alone, and beside llmbridge-py; how much
    of the event loop that takes; how fast usage is answered as the books grow (`-- --large`: to 10 million calls); and
    what `chat` costs, beside LiteLLM. `-- NAME` runs one of them."""
    session.install(*SOURCES, *tools("test"))
    options = [given for given in session.posargs if given.startswith("-")]
    names = [given for given in session.posargs if given not in options] or (["usage"] if options else [])
    beside = {
        "upstream": beside_upstream,
        "chat": lambda session: {"LLMBRIDGE_BENCH_LITELLM": environment(session, "rival")},
    }
    for name in names or ("loop", "sqlite", "recording", "upstream", "usage", "chat"):
        env = beside[name](session) if name in beside else {}
        session.run("python", "-m", f"bench.{name}", *(options if name == "usage" else ()), env=env)


@nox.session
def durability(session: nox.Session) -> None:
    """Every fault as often as each change must withstand it: killed processes, full disks, servers that go away. The
    default tests inject each of them once."""
    session.install(*SOURCES, *tools("test"))
    session.run("pytest", *(session.posargs or ["tests/faults", "-n", "2"]), env={"LLMBRIDGE_TEST_DURABILITY": "1"})


@nox.session
def parity(session: nox.Session) -> None:
    """200 sequences of operations on calls, and 100 each on maintenance, on models and on the database, compared
    between all backends. They are the same ones every time; the default tests play fewer."""
    session.install(*SOURCES, *tools("test"))
    contest = {"LLMBRIDGE_TEST_PARITY_ROUNDS": "2"}
    session.run("pytest", *(session.posargs or ["tests/parity/test_parity.py", "-n", "2"]), env=contest)


@nox.session(name="parity-long")
def parity_long(session: nox.Session) -> None:
    """Fifty times the sequences of `parity`, and other ones every time: it takes an hour."""
    session.install(*SOURCES, *tools("test"))
    seed = str(random.randrange(10**9))
    session.log(f"LLMBRIDGE_TEST_PARITY_SEED={seed} plays the same sequences again")
    contest = {"LLMBRIDGE_TEST_PARITY_ROUNDS": "100", "LLMBRIDGE_TEST_PARITY_SEED": seed}
    session.run("pytest", *(session.posargs or ["tests/parity/test_parity.py", "-n", "2"]), env=contest)


@nox.session
def chaos(session: nox.Session) -> None:
    """Thousands of faults where `durability` injects tens, other ones every time: it takes hours. The share of them
    that is injected is LLMBRIDGE_TEST_CHAOS (1: all)."""
    session.install(*SOURCES, *tools("test"))
    seed = os.environ.get("LLMBRIDGE_TEST_FAULTS_SEED") or str(random.randrange(10**9))
    session.log(f"LLMBRIDGE_TEST_FAULTS_SEED={seed} injects the same faults again")
    share = os.environ.get("LLMBRIDGE_TEST_CHAOS", "1")
    faults = {"LLMBRIDGE_TEST_CHAOS": share, "LLMBRIDGE_TEST_FAULTS_SEED": seed}
    patiently = ("-n", "2", "-o", "faulthandler_timeout=14400")
    session.run("pytest", *(session.posargs or ["tests/faults", *patiently]), env=faults)


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


def environment(session: nox.Session, group: str) -> str:
    """The Python of an environment that has a dependency group of the root project and nothing of ours."""
    folder = Path(session.create_tmp()).resolve() / group
    session.run("python", "-m", "venv", str(folder))
    python = str(folder / ("Scripts" if os.name == "nt" else "bin") / "python")
    session.run(python, "-m", "pip", "install", "-q", *tools(group), external=True)
    return python


def beside_upstream(session: nox.Session) -> dict[str, str]:
    """What the environment says of llmbridge-py, and of a PostgreSQL with the extension pgcrypto, which its migrations
    need and Debian's package has."""
    install_from_debian(session, "postgresql-15", POSTGRES_15 / "postgres")
    python = environment(session, "upstream")
    return {"LLMBRIDGE_TEST_UPSTREAM_PYTHON": python, "LLMBRIDGE_TEST_POSTGRES_PROGRAMS": str(POSTGRES_15)}


def test(session: nox.Session) -> None:
    """Install every distribution as a user would, and run the tests."""
    session.install(*SOURCES, *tools("test"), *tools("vendors"))
    session.run("pytest", *(session.posargs or ["-n", "2"]))


def install_from_debian(session: nox.Session, package: str, program: Path) -> None:
    """Install a package of Debian's if its program is missing, for which it takes root."""
    if program.exists():
        return
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        session.error(f"{program} is missing: install Debian's package {package}, or run this as root on Debian")
    quietly = {"DEBIAN_FRONTEND": "noninteractive"}
    session.run("apt-get", "update", "-q", silent=True, external=True)
    session.run(
        "apt-get", "install", "-q", "-y", "--no-install-recommends", package, silent=True, external=True, env=quietly
    )
    if not program.exists():
        session.error(f"{program} is missing, although Debian's package {package} is installed")


def use_wheels(session: nox.Session, elsewhere: Path) -> None:
    """Ask for both stores, in a new environment, and test what is there."""
    wheels = {name: next((elsewhere / "dist").glob(f"{name.replace('-', '_')}-*.whl")) for name in DISTRIBUTIONS}
    ours = elsewhere / "ours.txt"
    ours.write_text("".join(f"{name} @ {wheel.as_uri()}\n" for name, wheel in wheels.items()))
    session.run("python", "-m", "venv", str(elsewhere / "env"))
    python = str(elsewhere / "env" / ("Scripts" if os.name == "nt" else "bin") / "python")
    install = (python, "-m", "pip", "install", "-q")
    stores = (str(wheels[name]) for name in DISTRIBUTIONS[1:])
    session.run(*install, "-c", str(ours), *stores, external=True)
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
