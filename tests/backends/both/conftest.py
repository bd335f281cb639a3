"""A new database of each bundled backend, and functions that change it as another program would."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from llmbridge_postgres import PostgreSQLBackend
from llmbridge_sqlite import SQLiteBackend

from ...support.postgres_server import Server, running


class SQLiteStore:
    """A file."""

    #: How many calls are in no total.
    WAITING = "SELECT COUNT(*) FROM llmbridge_calls WHERE number > (SELECT folded FROM llmbridge_state)"

    def __init__(self, path: Path) -> None:
        self._path = path
        self.url = f"sqlite:///{path}"

    def backend(self, **options: Any) -> SQLiteBackend:
        return SQLiteBackend(self._path, synchronous="normal", **options)

    def refuse(self, change: str, call: UUID) -> None:
        """From now on no such change of this call succeeds: DELETE, UPDATE or INSERT."""
        row = "new" if change == "INSERT" else "old"
        self._run(
            f"CREATE TRIGGER refused BEFORE {change} ON llmbridge_calls WHEN {row}.id = X'{call.hex}' "
            "BEGIN SELECT RAISE(ABORT, 'it is refused'); END"
        )

    def allow(self) -> None:
        """It succeeds again."""
        self._run("DROP TRIGGER refused")

    def age(self) -> None:
        """All that processes have left becomes a day old."""

    def _run(self, statement: str) -> None:
        with closing(sqlite3.connect(self._path, isolation_level=None)) as file:
            file.execute(statement)


class PostgreSQLStore:
    """A database."""

    #: How many calls are in no total.
    WAITING = """
    SELECT COUNT(*) FROM {{tables.llmbridge_calls}}
    WHERE lot IN (SELECT number FROM {{tables.llmbridge_lots}} WHERE NOT folded)
    """

    def __init__(self, server: Server, database: str) -> None:
        self._server = server
        self._database = database
        self.url = server.database_url(database)

    def backend(self, **options: Any) -> PostgreSQLBackend:
        return PostgreSQLBackend(self._server.database_url(self._database), **options)

    def refuse(self, change: str, call: UUID) -> None:
        """From now on no such change of this call succeeds: DELETE, UPDATE or INSERT."""
        row = "new" if change == "INSERT" else "old"
        self._run(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN RAISE EXCEPTION 'it is refused'; END $$",
            f"CREATE TRIGGER refused BEFORE {change} ON llmbridge.llmbridge_calls FOR EACH ROW "
            f"WHEN ({row}.id = '{call}') EXECUTE FUNCTION refuse()",
        )

    def allow(self) -> None:
        """It succeeds again."""
        self._run("DROP FUNCTION refuse CASCADE")

    def age(self) -> None:
        """All that processes have left becomes a day old."""
        self._run("UPDATE llmbridge.llmbridge_lots SET touched = touched - interval '1 day'")

    def _run(self, *statements: str) -> None:
        self._server.run(*statements, database=self._database)


Store = SQLiteStore | PostgreSQLStore


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    with running() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgres"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    if request.param == "sqlite":
        yield SQLiteStore(tmp_path / "calls.db")
        return
    server: Server = request.getfixturevalue("server")
    with server.database() as name:
        yield PostgreSQLStore(server, name)
