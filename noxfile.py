"""Sessions of nox: lint, types, tests, documentation, benchmarks and packaging. `nox --list` shows all of them."""

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
    "tests/packaging/alone",
    "tests/unit/test_imports.py",
    "tests/unit/plugins",
    "tests/contract/test_memory.py",
    "-n",
    "2",
)
#: The tests of the PostgreSQL backend that depend on the server.
POSTGRES_TESTS = ("tests/backends/postgres", "tests/backends/tls", "tests/contract/test_postgres.py")
#: Paths of the programs in Debian's packages.
POSTGRES_15 = Path("/usr/lib/postgresql/15/bin")
PGBOUNCER = Path("/usr/sbin/pgbouncer")


def tools(group: str) -> tuple[str, ...]:
    """Return the requirements of a dependency group of the root project."""
    return nox.project.dependency_groups(nox.project.load_toml(ROOT / "pyproject.toml"), group)


def interpreter(version: str) -> str:
    """Return the newest Python of that version in pyenv, active or not; else the version, to be found on PATH."""
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    found = pyenv.glob(f"versions/{version}.*/bin/python")
    newest = max(found, key=lambda path: [int(part) for part in re.findall(r"\d+", path.parts[-3])], default=None)
    return str(newest) if newest else version


@nox.session
def lint(session: nox.Session) -> None:
    """Check the style of the code and the layers of imports."""
    session.install(*(f"./{name}" for name in DISTRIBUTIONS), *tools("lint"))
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("lint-imports")


@nox.session
def types(session: nox.Session) -> None:
    """Check the types of each distribution in strict mode."""
    session.install(*SOURCES, *tools("types"))
    for name in DISTRIBUTIONS:
        session.run("mypy", f"{name}/src")


@nox.session(venv_backend="none")
def versions(session: nox.Session) -> None:
    """Check that all distributions have the same version and require it of each other."""
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
    session.log(f"all distributions have the version {core['version']}")


@nox.session
def tests(session: nox.Session) -> None:
    """Run the tests, with every distribution installed."""
    test(session)


@nox.session(name="tests-3.12", python=interpreter("3.12"))
def tests_on_312(session: nox.Session) -> None:
    """Run the tests on Python 3.12."""
    test(session)


@nox.session(name="tests-3.13", python=interpreter("3.13"))
def tests_on_313(session: nox.Session) -> None:
    """Run the tests on Python 3.13."""
    test(session)


@nox.session
def core(session: nox.Session) -> None:
    """Test what differs if llmbridge-core is installed without the other distributions and without packages of
    providers. `-- tests/packaging/alone tests/unit tests/contract/test_memory.py -n 2` runs all tests of llmbridge-core
    there."""
    session.install("./llmbridge-core", *tools("test"))
    session.run("pytest", *(session.posargs or CORE_ALONE))


@nox.session(name="postgres-15")
def postgres_15(session: nox.Session) -> None:
    """Run the tests of the PostgreSQL backend with PostgreSQL 15, the oldest supported version, and those of TLS.

    The server is Debian's package; that of the other sessions has no TLS.
    """
    install_from_debian(session, "postgresql-15", POSTGRES_15 / "postgres")
    session.install(*SOURCES, *tools("test"))
    session.run(
        "pytest",
        *(
            session.posargs
            or ["tests/backends/postgres", "tests/backends/tls", "tests/contract/test_postgres.py", "-n", "2"]
        ),
        env={"LLMBRIDGE_TEST_POSTGRES_PROGRAMS": str(POSTGRES_15)},
    )


@nox.session
def pgbouncer(session: nox.Session) -> None:
    """Run the tests of the PostgreSQL backend behind PgBouncer (Debian's package) in transaction mode."""
    install_from_debian(session, "pgbouncer", PGBOUNCER)
    session.install(*SOURCES, *tools("test"))
    session.run(
        "pytest", *(session.posargs or ["tests/backends/pooled"]), env={"LLMBRIDGE_TEST_PGBOUNCER": str(PGBOUNCER)}
    )


@nox.session
def upstream(session: nox.Session) -> None:
    """Test databases that llmbridge-py created. Its wheel has the same import name, so it is installed separately."""
    session.install(*SOURCES, *tools("test"))
    session.run("pytest", *(session.posargs or ["tests/compat/llmbridge_py_stores"]), env=beside_upstream(session))


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation site in `site/`. `-- serve` shows it while you write."""
    session.install(*tools("docs"))
    session.run("mkdocs", *(session.posargs or ["build", "--strict"]), env={"NO_MKDOCS_2_WARNING": "1"})


@nox.session
def bench(session: nox.Session) -> None:
    """Run the benchmarks. `-- NAME` runs one of them; `-- --large` runs `usage` up to 10 million calls.

    They measure recording compared with each database and its driver alone and with llmbridge-py, the event loop's
    share of it, usage queries on growing databases, and the overhead of `chat` compared with LiteLLM.
    """
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
    """Inject faults tens of times each: killed processes, full disks, servers that go away. The default tests inject
    each of them once."""
    session.install(*SOURCES, *tools("test"))
    session.run("pytest", *(session.posargs or ["tests/durability", "-n", "2"]), env={"LLMBRIDGE_TEST_DURABILITY": "1"})


@nox.session
def parity(session: nox.Session) -> None:
    """Compare all backends on random sequences of operations: 200 on calls, 100 each on maintenance, on models and on
    whole databases. They are the same ones each time; the default tests run fewer."""
    session.install(*SOURCES, *tools("test"))
    contest = {"LLMBRIDGE_TEST_PARITY_ROUNDS": "2"}
    session.run("pytest", *(session.posargs or ["tests/parity/test_parity.py", "-n", "2"]), env=contest)


@nox.session(name="parity-long")
def parity_long(session: nox.Session) -> None:
    """Compare all backends on fifty times the sequences of `parity`, new ones each time. Takes an hour."""
    session.install(*SOURCES, *tools("test"))
    seed = str(random.randrange(10**9))
    session.log(f"LLMBRIDGE_TEST_PARITY_SEED={seed} repeats the same sequences")
    contest = {"LLMBRIDGE_TEST_PARITY_ROUNDS": "100", "LLMBRIDGE_TEST_PARITY_SEED": seed}
    session.run("pytest", *(session.posargs or ["tests/parity/test_parity.py", "-n", "2"]), env=contest)


@nox.session
def chaos(session: nox.Session) -> None:
    """Inject thousands of faults where `durability` injects tens, new ones each time. Takes hours.

    LLMBRIDGE_TEST_CHAOS is the share of them that is injected (1: all).
    """
    session.install(*SOURCES, *tools("test"))
    seed = os.environ.get("LLMBRIDGE_TEST_FAULTS_SEED") or str(random.randrange(10**9))
    session.log(f"LLMBRIDGE_TEST_FAULTS_SEED={seed} repeats the same faults")
    share = os.environ.get("LLMBRIDGE_TEST_CHAOS", "1")
    faults = {"LLMBRIDGE_TEST_CHAOS": share, "LLMBRIDGE_TEST_FAULTS_SEED": seed}
    options = ("-n", "2", "-o", "faulthandler_timeout=14400")
    session.run("pytest", *(session.posargs or ["tests/durability", *options]), env=faults)


@nox.session
def isolation(session: nox.Session) -> None:
    """Build the wheels and source distributions and test them as a user gets them, outside of this directory."""
    session.install(*tools("build"))
    with tempfile.TemporaryDirectory() as folder:
        elsewhere = Path(folder).resolve()
        for name in DISTRIBUTIONS:
            session.run("python", "-m", "build", "--outdir", str(elsewhere / "dist"), name, silent=True)
        use_wheels(session, elsewhere)
        use_sources(session, elsewhere)


def environment(session: nox.Session, group: str) -> str:
    """Create an environment with a dependency group of the root project and without llmbridge; return its Python."""
    folder = Path(session.create_tmp()).resolve() / group
    session.run("python", "-m", "venv", str(folder))
    python = str(folder / ("Scripts" if os.name == "nt" else "bin") / "python")
    session.run(python, "-m", "pip", "install", "-q", *tools(group), external=True)
    return python


def beside_upstream(session: nox.Session) -> dict[str, str]:
    """Return the environment variables for tests with llmbridge-py: its Python, and the PostgreSQL programs.

    The migrations of llmbridge-py need the extension pgcrypto, which Debian's package has.
    """
    install_from_debian(session, "postgresql-15", POSTGRES_15 / "postgres")
    python = environment(session, "upstream")
    return {"LLMBRIDGE_TEST_UPSTREAM_PYTHON": python, "LLMBRIDGE_TEST_POSTGRES_PROGRAMS": str(POSTGRES_15)}


def test(session: nox.Session) -> None:
    """Install every distribution as a user would, and run the tests."""
    session.install(*SOURCES, *tools("test"), *tools("vendors"))
    session.run("pytest", *(session.posargs or ["-n", "2"]))


def install_from_debian(session: nox.Session, package: str, program: Path) -> None:
    """Install a package of Debian if its program is missing. This needs root."""
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
    """Install both backends from the wheels in a new environment, and run the tests of the installation."""
    wheels = {name: next((elsewhere / "dist").glob(f"{name.replace('-', '_')}-*.whl")) for name in DISTRIBUTIONS}
    ours = elsewhere / "ours.txt"
    ours.write_text("".join(f"{name} @ {wheel.as_uri()}\n" for name, wheel in wheels.items()))
    session.run("python", "-m", "venv", str(elsewhere / "env"))
    python = str(elsewhere / "env" / ("Scripts" if os.name == "nt" else "bin") / "python")
    install = (python, "-m", "pip", "install", "-q")
    stores = (str(wheels[name]) for name in DISTRIBUTIONS[1:])
    session.run(*install, "-c", str(ours), *stores, external=True)
    session.run(*install, *tools("installed"), external=True)
    shutil.copytree(ROOT / "tests" / "packaging" / "installed", elsewhere / "installed")
    with session.chdir(elsewhere):
        session.run(python, "-m", "pytest", "installed", external=True)


def use_sources(session: nox.Session, elsewhere: Path) -> None:
    """Unpack the source distributions and run the first command of the README in their directory."""
    checkout = elsewhere / "checkout"
    for name in DISTRIBUTIONS:
        archive = next((elsewhere / "dist").glob(f"{name.replace('-', '_')}-*.tar.gz"))
        with tarfile.open(archive) as packed:
            packed.extractall(checkout, filter="data")
        (checkout / archive.name.removesuffix(".tar.gz")).rename(checkout / name)
    command = re.findall(r"^```sh\n(.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)[0]
    with session.chdir(checkout):
        session.run("sh", "-c", command, external=True)
