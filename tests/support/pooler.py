"""PgBouncer in transaction mode in front of a server."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest

from .postgres_server import OwnServer, Server

VARIABLE = "LLMBRIDGE_TEST_PGBOUNCER"

#: So few that the transactions of several clients move from one to another.
SERVER_CONNECTIONS = 3


class Pooler:
    """A pooler on loopback that lets everybody into every database."""

    def __init__(self, server: Server, folder: Path) -> None:
        program = os.environ.get(VARIABLE, "pgbouncer")
        try:
            version = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
        except (OSError, subprocess.CalledProcessError) as error:
            pytest.fail(f"there is no pooler to test with ({error}); install pgbouncer, or name one in {VARIABLE}")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        file = folder / "pgbouncer.ini"
        file.write_text(_configuration(server, self.port, version))
        self._account = _account(server)
        for path in (folder, file):
            os.chown(path, self._account, -1)
        self._command = [program, str(file)]

    def url(self, database: str, **options: Any) -> str:
        """The URL of a database over the pooler, with `?pgbouncer=true` if so asked."""
        return f"postgresql://anybody@127.0.0.1:{self.port}/{database}?{urlencode(options)}"

    def start(self) -> None:
        self._process = subprocess.Popen(self._command, user=self._account, stderr=subprocess.PIPE, text=True)
        assert self._process.stderr is not None
        told = ""
        while "process up" not in told:
            line = self._process.stderr.readline()
            told += line
            assert line, f"the pooler did not start: {told}"
        self._reader = threading.Thread(target=self._process.stderr.read, daemon=True)
        self._reader.start()

    def stop(self) -> None:
        """End it at once, with all connections."""
        with self._process as process:
            process.kill()
            self._reader.join()

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Nobody gets through."""
        self.stop()
        try:
            yield
        finally:
            self.start()


@contextmanager
def pooling(server: Server) -> Iterator[Pooler]:
    """A pooler before the server."""
    with tempfile.TemporaryDirectory(prefix="llmbridge-pooler-") as folder:
        pooler = Pooler(server, Path(folder))
        pooler.start()
        try:
            yield pooler
        finally:
            pooler.stop()


def _account(server: Server) -> int:
    """Who may reach the server's socket; PgBouncer refuses to be root."""
    if os.geteuid() != 0:
        return os.geteuid()
    return server.folder.stat().st_uid if isinstance(server, OwnServer) else 65534


def _configuration(server: Server, port: int, version: str) -> str:
    parts = urlsplit(server.url)
    place = {
        "host": parse_qs(parts.query).get("host", [parts.hostname])[0],
        "port": parts.port or 5432,
        "user": parts.username,
        "password": parts.password,
    }
    settings: dict[str, Any] = {
        "listen_addr": "127.0.0.1",
        "listen_port": port,
        "unix_socket_dir": "",
        "auth_type": "any",
        "pool_mode": "transaction",
        "default_pool_size": SERVER_CONNECTIONS,
        "max_client_conn": 500,
        "log_connections": 0,
        "log_disconnections": 0,
        "log_stats": 0,
    }
    if _numbers(version) >= (1, 21):
        # It would keep prepared statements itself, which older ones and many hosted poolers do not.
        settings["max_prepared_statements"] = 0
    databases = " ".join(f"{name}={value}" for name, value in place.items() if value)
    lines = [f"{name} = {value}" for name, value in settings.items()]
    return "\n".join(["[databases]", f"* = {databases}", "[pgbouncer]", *lines, ""])


def _numbers(version: str) -> tuple[int, ...]:
    found = re.search(r"(\d+)\.(\d+)", version)
    return tuple(map(int, found.groups())) if found else ()
