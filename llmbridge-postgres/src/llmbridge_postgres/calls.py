"""Calls: stored by batch, listed by page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import asyncpg

from llmbridge.storage import EARLIEST, CallPage, CallQuery, CallRecord, RecordRejectedError, RecordResult

from . import schema
from .codec import CALL_COLUMNS, CALL_FIELDS, by_column, decode_call, encode_call
from .filters import Parameters, conditions
from .session import Session
from .totals import Lot, open_lot

_COLUMNS = (*CALL_COLUMNS, "lot")
_WIDTH = len(CALL_COLUMNS)

#: Every batch touches its lot, which tells that it may be stored: that nobody has closed the lot, that no newer release
#: says that this one may not write, and that no more was purged than the writer knows of.
_TOUCH = """
UPDATE {{{{tables.llmbridge_lots}}}} SET calls = calls + ${calls}, touched = now()
WHERE number = ${lot} AND NOT folded AND ({writable_from}) <= ${head}
    AND (SELECT watermark FROM {{{{tables.llmbridge_state}}}}) IS NOT DISTINCT FROM ${watermark}::timestamptz
RETURNING number
"""
_TOUCH_LOT = _TOUCH.format(calls=1, lot=2, head=3, watermark=4, writable_from=schema.WRITABLE_FROM)
#: One statement for any number of calls, and so by itself a transaction.
_INSERT = " ".join(
    (
        "WITH mine AS (",
        _TOUCH.format(
            calls=_WIDTH + 1,
            lot=_WIDTH + 2,
            head=_WIDTH + 3,
            watermark=_WIDTH + 4,
            writable_from=schema.WRITABLE_FROM,
        ),
        ") INSERT INTO {{tables.llmbridge_calls}} (",
        ", ".join(_COLUMNS),
        ") SELECT incoming.*, mine.number FROM mine CROSS JOIN ( SELECT",
        ", ".join(f"unnest(${number}::{kind}[])" for number, kind in enumerate(CALL_COLUMNS.values(), start=1)),
        ") AS incoming ON CONFLICT (id) DO NOTHING",
    )
)
#: A batch of so many calls is copied, which takes about a third less time, and a few round trips more.
_COPY_FROM = 50
_SELECT = " ".join(("SELECT", ", ".join(CALL_FIELDS), "FROM {{tables.llmbridge_calls}}"))


async def insert(session: Session, calls: Sequence[CallRecord], where: str, lot: Lot) -> RecordResult:
    """Store those whose id is new and whose day was not purged. In order of their ids, so that batches that share some
    wait for each other and never in a circle."""
    while True:
        if lot.number is None:
            await open_lot(session, lot)
        purged_before = lot.watermark or EARLIEST
        in_time = [call for call in calls if call.called_at >= purged_before]
        late = tuple(call.id for call in calls if call.called_at < purged_before)
        try:
            inserted = await _store(session, in_time, lot)
        except (ArithmeticError, TypeError, UnicodeError) as error:
            raise RecordRejectedError(f"the PostgreSQL database {where} cannot hold a value: {error}") from error
        if inserted or await _touch(session, 0, lot):
            lot.calls += inserted
            return RecordResult(inserted, len(in_time) - inserted, late)
        await schema.check_writable(session, where)
        lot.number = None


async def _store(session: Session, calls: Sequence[CallRecord], lot: Lot) -> int:
    firsts = {call.id.int: call for call in reversed(calls)}
    rows = [encode_call(firsts[number]) for number in sorted(firsts)]
    if len(rows) >= _COPY_FROM and await _copy(session, rows, lot):
        return len(rows)
    guards = (len(rows), lot.number, schema.HEAD_NUMBER, lot.watermark)
    return await session.execute(_INSERT, *by_column(rows, _WIDTH), *guards) if rows else 0


async def _copy(session: Session, rows: Sequence[tuple[Any, ...]], lot: Lot) -> bool:
    """Store all rows, or none because one is there already, which is rare: a batch is only sent again after its
    answer was lost."""
    try:
        async with session.transaction():
            await session.copy("llmbridge_calls", _COLUMNS, [(*row, lot.number) for row in rows])
            if not await _touch(session, len(rows), lot):
                raise _ClosedError
    except (asyncpg.UniqueViolationError, _ClosedError):
        return False
    return True


async def _touch(session: Session, calls: int, lot: Lot) -> bool:
    return await session.fetch_value(_TOUCH_LOT, calls, lot.number, schema.HEAD_NUMBER, lot.watermark) is not None


class _ClosedError(Exception):
    """The lot takes no more calls; they go into another one."""


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
