"""Storing of batches of calls, and listing of calls by page."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import asyncpg

from llmbridge.storage import EARLIEST, CallPage, CallQuery, CallRecord, RecordRejectedError, RecordResult

from . import schema
from .codec import CALL_COLUMNS, CALL_FIELDS, JSON_COLUMNS, by_column, decode_call, encode_call
from .connection import Connection
from .filters import Parameters, conditions
from .rollups import Lot, open_lot, watermark

#: Every batch updates the row of its lot. The update finds the row only if the batch may be stored: the lot is not
#: closed, so nothing was purged since it was opened, and no newer release forbids this one to write.
_TOUCH = " ".join(
    (
        "UPDATE {{tables.llmbridge_lots}} SET calls = calls + $1, touched = now()",
        "WHERE number = $2 AND NOT folded AND (",
        schema.WRITABLE_FROM,
        ") <= $3 RETURNING number",
    )
)
_VALUES = ", ".join(f"{name}::json" if name in JSON_COLUMNS else name for name in CALL_COLUMNS)


def _insert(calls: str) -> str:
    """Return the statement that stores any number of calls in one round trip, which is also one transaction. It returns
    whether the lot is open, and how many calls were stored."""
    return " ".join(
        (
            "WITH mine AS (",
            _TOUCH,
            "), stored AS ( INSERT INTO {{tables.llmbridge_calls}} (",
            ", ".join((*CALL_COLUMNS, "lot")),
            ") SELECT",
            _VALUES,
            ", number FROM mine CROSS JOIN",
            calls,
            "AS incoming ON CONFLICT (id) DO NOTHING RETURNING lot )",
            "SELECT (SELECT count(*) FROM mine) AS lots, (SELECT count(*) FROM stored) AS calls",
        )
    )


#: The calls are one argument; if a connection does not support that, each column is one.
_INSERT_ROWS = _insert("unnest($4::{{tables.llmbridge_incoming}}[])")
_ARRAYS = [f"unnest(${number}::{kind}[]) AS {name}" for number, (name, kind) in enumerate(CALL_COLUMNS.items(), 4)]
_INSERT_COLUMNS = _insert(" ".join(("( SELECT", ", ".join(_ARRAYS), ")")))
#: PostgreSQL's message if a type was dropped and created again after the connection had cached it.
_STALE_TYPE = "cache lookup failed for type"
_FIELDS = ", ".join(f"{name}::text" if name in JSON_COLUMNS else name for name in CALL_FIELDS)
_SELECT = " ".join(("SELECT", _FIELDS, "FROM {{tables.llmbridge_calls}}"))


async def insert(connection: Connection, calls: Sequence[CallRecord], where: str, lot: Lot) -> RecordResult:
    """Store the calls whose id is new and whose day was not purged. They are stored in the order of their ids, so that
    batches with common ids cannot deadlock."""
    while True:
        if lot.number is None:
            await open_lot(connection, lot)
        purged_before = lot.watermark or EARLIEST
        in_time = [call for call in calls if call.called_at >= purged_before]
        late = tuple(call.id for call in calls if call.called_at < purged_before)
        try:
            lots, inserted = await _store(connection, in_time, lot)
        except (ArithmeticError, TypeError, UnicodeError, RecursionError) as error:
            raise RecordRejectedError(f"the PostgreSQL database {where} cannot store a value: {error}") from error
        if lots:
            lot.calls += inserted
            return RecordResult(inserted, len(in_time) - inserted, late)
        await schema.check_writable(connection, where)
        lot.number = None


async def _store(connection: Connection, calls: Sequence[CallRecord], lot: Lot) -> tuple[int, int]:
    """Return 1 if the lot is open, else 0, and how many calls were stored."""
    firsts = {call.id.int: call for call in reversed(calls)}
    rows = [encode_call(firsts[number]) for number in sorted(firsts)]
    guards = (len(rows), lot.number, schema.HEAD_NUMBER)
    if not lot.by_column:
        try:
            return await _insert_calls(connection, _INSERT_ROWS, *guards, rows)
        except asyncpg.UnsupportedClientFeatureError:
            # The host application has set a text codec for one of the types, which asyncpg cannot use in a row.
            lot.by_column = True
    return await _insert_calls(connection, _INSERT_COLUMNS, *guards, *by_column(rows, len(CALL_COLUMNS)))


async def _insert_calls(connection: Connection, statement: str, *args: Any) -> tuple[int, int]:
    try:
        found = await connection.fetch(statement, *args)
    except asyncpg.InternalServerError as error:
        if _STALE_TYPE not in str(error):
            raise
        await connection.driver_connection.reload_schema_state()
        found = await connection.fetch(statement, *args)
    return found[0]["lots"], found[0]["calls"]


async def select(connection: Connection, query: CallQuery) -> CallPage:
    """Return a page of calls. One more call than requested is read, to know whether there is a next page."""
    async with connection.snapshot():
        since = max(query.since or EARLIEST, await watermark(connection) or EARLIEST)
        statement, values = _page(query, since)
        rows = await connection.fetch(statement, *values)
    calls = [decode_call(row) for row in rows]
    page = calls[: query.limit]
    return CallPage(page, (page[-1].called_at, page[-1].id) if len(calls) > query.limit else None)


def _page(query: CallQuery, since: datetime) -> tuple[str, list[Any]]:
    parameters = Parameters()
    wanted = conditions(query.filters, parameters)
    if since > EARLIEST:
        wanted.append(f"called_at >= {parameters.add(since, 'timestamptz')}")
    if query.until is not None:
        wanted.append(f"called_at < {parameters.add(query.until, 'timestamptz')}")
    if query.after is not None:
        at, id_ = parameters.add(query.after[0], "timestamptz"), parameters.add(query.after[1], "uuid")
        wanted.append(f"(called_at, id) < ({at}, {id_})")
    if query.ids is not None:
        wanted.append(f"id = ANY ({parameters.add(list(query.ids), 'uuid[]')})")
    limit = parameters.add(query.limit + 1, "bigint")
    where = " ".join(("WHERE", " AND ".join(wanted))) if wanted else ""
    return " ".join((_SELECT, where, f"ORDER BY called_at DESC, id DESC LIMIT {limit}")), parameters.values
