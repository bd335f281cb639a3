"""Running of SQL that users write: one statement at a time, each in its own transaction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import asyncpg
from asyncpg import Record

from llmbridge.storage import StorageError

from .connection import Connection
from .errors import sqlstate


async def run(connection: Connection, statement: str, args: Sequence[Any], where: str) -> list[Record]:
    """Run one statement and return its rows."""
    try:
        rows = await connection.fetch_as_written(statement, *args)
    except asyncpg.InterfaceError as error:
        if "the server expects" in str(error):
            raise ValueError(str(error).splitlines()[0]) from error
        raise
    except asyncpg.PostgresError as error:
        if "multiple commands" in str(error):
            raise ValueError("only one statement can be run at a time; pass them one by one") from error
        if sqlstate(error).startswith(("42", "0A", "2F", "P0")) and sqlstate(error) not in ("42501", "42P05"):
            raise StorageError(f"the PostgreSQL database {where} cannot run the statement: {error}") from error
        raise
    # So that a SET of the user has no effect on llmbridge's own statements.
    await connection.fetch_as_written("RESET ALL")
    return rows


def first(rows: Sequence[Record]) -> dict[str, Any] | None:
    """Return the first row by column name, None if there is no row."""
    return dict(rows[0]) if rows else None


def every(rows: Sequence[Record]) -> list[dict[str, Any]]:
    """Return all rows by column name."""
    return [dict(row) for row in rows]


def value(rows: Sequence[Record]) -> Any:
    """Return the first column of the first row, None if there is no row."""
    return rows[0][0] if rows else None


def new_id(rows: Sequence[Record]) -> int:
    """Return the `id` that the statement returned."""
    row = first(rows)
    if row is None:
        raise StorageError("the statement inserted no row, so there is no id")
    returned: int = row["id"] if "id" in row else next(iter(row.values()))
    return returned
