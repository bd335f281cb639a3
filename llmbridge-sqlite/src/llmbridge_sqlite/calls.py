"""Storing of batches of calls, and listing of calls by page."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from typing import Any

from llmbridge.storage import (
    EARLIEST,
    CallPage,
    CallQuery,
    CallRecord,
    ConstraintError,
    RecordRejectedError,
    RecordResult,
)

from .codec import CALL_COLUMNS, CALL_FIELDS, decode_call, encode_call, to_micros
from .errors import translate
from .filters import conditions, define_tag
from .rollups import state

_INSERT = " ".join(
    (
        "INSERT INTO llmbridge_calls (",
        ", ".join(CALL_COLUMNS),
        ") VALUES (",
        ", ".join("?" * len(CALL_COLUMNS)),
        ") ON CONFLICT (id) DO NOTHING",
    )
)
_SELECT = " ".join(("SELECT", ", ".join(CALL_FIELDS), "FROM llmbridge_calls"))


class _Rows:
    """Iterator over the rows of calls. `current` is the call that is being stored."""

    def __init__(self, calls: Sequence[CallRecord]) -> None:
        self._calls = calls
        self.current: CallRecord | None = None

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        for call in self._calls:
            self.current = call
            yield encode_call(call)


def insert(connection: sqlite3.Connection, calls: Sequence[CallRecord], where: str) -> RecordResult:
    """Store the calls whose id is new."""
    before = connection.total_changes
    rows = _Rows(calls)
    try:
        connection.executemany(_INSERT, rows)
    except (sqlite3.Error, ArithmeticError, UnicodeError, TypeError, ValueError, RecursionError) as error:
        raise _error_of_call(error, rows.current, where) from error
    inserted = connection.total_changes - before
    return RecordResult(inserted, len(calls) - inserted)


def _error_of_call(error: Exception, call: CallRecord | None, where: str) -> Exception:
    """Return the error with the id of the call, if it concerns a single call."""
    fault = translate(error, where) if isinstance(error, sqlite3.Error) else None
    if call is not None and isinstance(fault, ConstraintError):
        return ConstraintError(str(fault), ids=(call.id,))
    if call is None or not (fault is None or isinstance(fault, RecordRejectedError)):
        return error
    return RecordRejectedError(f"call {call.id} has a value that SQLite cannot store: {error}", ids=(call.id,))


def select(connection: sqlite3.Connection, query: CallQuery) -> CallPage:
    """Return a page of calls. One more call than requested is read, to know whether there is a next page."""
    define_tag(connection)
    parameters: dict[str, Any] = {"limit": query.limit + 1}
    wanted = conditions(query.filters, parameters)
    since = max(to_micros(query.since or EARLIEST), state(connection).first)
    if since > to_micros(EARLIEST):
        wanted.append("called_at >= :since")
        parameters["since"] = since
    if query.until is not None:
        wanted.append("called_at < :until")
        parameters["until"] = to_micros(query.until)
    if query.after is not None:
        wanted.append("(called_at, id) < (:after_at, :after_id)")
        parameters["after_at"], parameters["after_id"] = to_micros(query.after[0]), query.after[1].bytes
    if query.ids is not None:
        names = [f"id_{number}" for number in range(len(query.ids))]
        wanted.append("".join(("id IN (", ", ".join(f":{name}" for name in names), ")")))
        parameters.update(zip(names, (id_.bytes for id_ in query.ids), strict=True))
    where = "".join(("WHERE ", " AND ".join(wanted))) if wanted else ""
    statement = " ".join((_SELECT, where, "ORDER BY called_at DESC, id DESC LIMIT :limit"))
    calls = [decode_call(row) for row in connection.execute(statement, parameters).fetchall()]
    page = calls[: query.limit]
    return CallPage(page, (page[-1].called_at, page[-1].id) if len(calls) > query.limit else None)
