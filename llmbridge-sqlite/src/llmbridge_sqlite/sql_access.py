"""Running of SQL that users write: one statement at a time, each in its own transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from typing import Any, TypeVar

from llmbridge.storage import StorageError

from .errors import primary_code
from .sql_statement import prepare

T = TypeVar("T")


def run(connection: sqlite3.Connection, query: str, args: tuple[Any, ...], read: Callable[[sqlite3.Cursor], T]) -> T:
    """Run one statement and return what `read` makes of its cursor. Rows that `read` leaves are not computed."""
    statement, parameters = prepare(query, args)
    try:
        with closing(connection.execute(statement, parameters)) as cursor:
            return read(cursor)
    except (sqlite3.ProgrammingError, sqlite3.Warning) as error:
        if "one statement at a time" in str(error):  # Python's own text
            raise ValueError("only one statement can be run at a time; pass them one by one") from error
        raise
    except sqlite3.OperationalError as error:
        if primary_code(error) == sqlite3.SQLITE_ERROR:
            raise StorageError(f"SQLite cannot run the statement: {error}") from error
        raise


def nothing(cursor: sqlite3.Cursor) -> None:
    """Run the statement to its end."""
    cursor.fetchall()


def first(cursor: sqlite3.Cursor) -> dict[str, Any] | None:
    """Return the first row by column name, None if there is no row."""
    row = cursor.fetchone()
    return None if row is None else _by_name(cursor, row)


def every(cursor: sqlite3.Cursor) -> list[dict[str, Any]]:
    """Return all rows by column name."""
    return [_by_name(cursor, row) for row in cursor.fetchall()]


def value(cursor: sqlite3.Cursor) -> Any:
    """Return the first column of the first row, None if there is no row."""
    row = cursor.fetchone()
    return None if row is None else row[0]


def new_id(cursor: sqlite3.Cursor) -> int:
    """Return the `id` that the statement returned, else the id of the row that it inserted."""
    row = first(cursor) if cursor.description else None
    if row is not None:
        returned: int = row["id"] if "id" in row else next(iter(row.values()))
        return returned
    if cursor.description or cursor.rowcount == 0 or not cursor.lastrowid:
        raise StorageError("the statement inserted no row, so there is no id")
    return cursor.lastrowid


def _by_name(cursor: sqlite3.Cursor, row: tuple[Any, ...]) -> dict[str, Any]:
    return dict(zip((column[0] for column in cursor.description), row, strict=True))
