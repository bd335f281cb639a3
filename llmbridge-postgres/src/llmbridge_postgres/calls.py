"""Calls: stored by batch, listed by page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import asyncpg

from llmbridge.storage import CallPage, CallQuery, CallRecord, RecordRejectedError, RecordResult

from . import schema
from .codec import CALL_COLUMNS, CALL_FIELDS, by_column, decode_call, encode_call
from .filters import Parameters, conditions
from .session import Session

#: One statement for any number of calls, and so by itself a transaction. It writes nothing where a newer release says
#: that this one may not.
_INSERT = " ".join(
    (
        "INSERT INTO {{tables.llmbridge_calls}} (",
        ", ".join(CALL_COLUMNS),
        ") SELECT * FROM ( SELECT",
        ", ".join(f"unnest(${number}::{kind}[])" for number, kind in enumerate(CALL_COLUMNS.values(), start=1)),
        f") AS incoming WHERE ({schema.WRITABLE_FROM}) <= ${len(CALL_COLUMNS) + 1} ON CONFLICT (id) DO NOTHING",
    )
)
#: A batch of so many calls is copied, which takes about a third less time, and a few round trips more.
_COPY_FROM = 50
_SELECT = " ".join(("SELECT", ", ".join(CALL_FIELDS), "FROM {{tables.llmbridge_calls}}"))


async def insert(session: Session, calls: Sequence[CallRecord], where: str) -> RecordResult:
    """Store those whose id is new. In order of their ids, so that batches that share some wait for each other and
    never in a circle."""
    firsts = {call.id: call for call in reversed(calls)}
    try:
        rows = [encode_call(firsts[id_]) for id_ in sorted(firsts, key=lambda id_: id_.int)]
        inserted = await _copy(session, rows, where) if len(rows) >= _COPY_FROM else 0
    except (ArithmeticError, TypeError, UnicodeError) as error:
        raise RecordRejectedError(f"the PostgreSQL database {where} cannot hold a value: {error}") from error
    if not inserted:
        inserted = await session.execute(_INSERT, *by_column(rows, len(CALL_COLUMNS)), schema.HEAD_NUMBER)
    if not inserted:
        await schema.check_writable(session, where)
    return RecordResult(inserted, len(calls) - inserted)


async def _copy(session: Session, rows: Sequence[tuple[Any, ...]], where: str) -> int:
    """Store all rows, or none because one is there already, which is rare: a batch is only sent again after its
    answer was lost."""
    try:
        async with session.transaction():
            await session.copy("llmbridge_calls", CALL_COLUMNS, rows)
            await schema.check_writable(session, where)
    except asyncpg.UniqueViolationError:
        return 0
    return len(rows)


async def select(session: Session, query: CallQuery) -> CallPage:
    """The page of a query. One call more than asked for tells whether there is a next one."""
    parameters = Parameters()
    wanted = conditions(query.filters, parameters)
    if query.since is not None:
        wanted.append(f"called_at >= {parameters.add(query.since, 'timestamptz')}")
    if query.until is not None:
        wanted.append(f"called_at < {parameters.add(query.until, 'timestamptz')}")
    if query.after is not None:
        at, id_ = parameters.add(query.after[0], "timestamptz"), parameters.add(query.after[1], "uuid")
        wanted.append(f"(called_at, id) < ({at}, {id_})")
    if query.ids is not None:
        wanted.append(f"id = ANY ({parameters.add(list(query.ids), 'uuid[]')})")
    limit = parameters.add(query.limit + 1, "bigint")
    where = " ".join(("WHERE", " AND ".join(wanted))) if wanted else ""
    statement = " ".join((_SELECT, where, f"ORDER BY called_at DESC, id DESC LIMIT {limit}"))
    async with session.snapshot():
        rows = await session.fetch(statement, *parameters.values)
    calls = [decode_call(row) for row in rows]
    page = calls[: query.limit]
    return CallPage(page, (page[-1].called_at, page[-1].id) if len(calls) > query.limit else None)
