"""Reading and writing of the totals of purged days, for `storage copy`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from llmbridge.storage import TotalsPage, TotalsRow
from llmbridge.storage.toolkit.rollups import (
    NUMBERS,
    Rollup,
    from_totals_row,
    read_histogram,
    to_totals_row,
    write_histogram,
)
from llmbridge.storage.toolkit.time_cells import GRAINS, SECOND, micros
from llmbridge.storage.types import Grain

from . import purge, rollups, schema
from .connection import Connection
from .rollups import TIMES, USERS

_PAGE = 1_000
#: A key before all keys.
_BEFORE_ALL = (-(2**63), *[""] * 5)

_USER_PAGE = " ".join(
    (
        rollups.selected(USERS, USERS),
        "WHERE (day, origin, id_at_origin, provider, model_name, status)",
        "> ($1::bigint, $2::text, $3::text, $4::text, $5::text, $6::text) AND day < $7",
        "ORDER BY day, origin, id_at_origin, provider, model_name, status LIMIT $8",
    )
)
_TIME_PAGE = " ".join(
    (
        rollups.selected(TIMES, TIMES),
        f"WHERE grain = {GRAINS[-1]} AND (start, origin, provider, model_name, status)",
        "> ($1::bigint, $2::text, $3::text, $4::text, $5::text) AND start < $6",
        "ORDER BY start, origin, provider, model_name, status LIMIT $7",
    )
)


async def read_totals(connection: Connection, cursor: str | None) -> TotalsPage:
    """Return a page of totals of purged days: first the rows by user and day, then those by quarter of an hour. The
    cursor is the key of the page's last row."""
    async with connection.snapshot():
        watermark = await rollups.watermark(connection)
        if watermark is None:
            return TotalsPage([], None, None)
        end = micros(watermark) // SECOND
        grain, after = json.loads(cursor) if cursor else ("day", _BEFORE_ALL)
        found: list[tuple[Grain, Any]] = []
        if grain == "day":
            found = [("day", row) for row in await connection.fetch(_USER_PAGE, *after, end, _PAGE + 1)]
            after = _BEFORE_ALL[:-1]
        if len(found) <= _PAGE:
            more = await connection.fetch(_TIME_PAGE, *after, end, _PAGE + 1 - len(found))
            found += [("quarter", row) for row in more]
    page = [(grain, rollups.decode(row)) for grain, row in found[:_PAGE]]
    last = None
    if len(found) > _PAGE:
        grain, rollup = page[-1]
        last = json.dumps([grain, rollup.key if grain == "day" else rollup.key[1:]])
    return TotalsPage([to_totals_row(*one) for one in page], last, watermark)


async def write_totals(
    connection: Connection, rows: Sequence[TotalsRow], watermark: datetime | None, where: str
) -> None:
    """Replace rows of purged days, and add the difference to the rows of coarser grains."""
    latest = {(row.grain, rollup.key): rollup for row in rows for rollup in [from_totals_row(row)]}
    users = [rollup for (grain, _), rollup in latest.items() if grain == "day"]
    quarters = [rollup for (grain, _), rollup in latest.items() if grain == "quarter"]
    async with connection.rollup_transaction(lock_out_writers=watermark is not None):
        if watermark is not None:
            await purge.move_watermark(connection, watermark)
        standing = await rollups.read(connection, TIMES, [rollup.key for rollup in quarters])
        coarser = _coarser(standing.values(), quarters)
        await rollups.put(connection, USERS, users)
        await rollups.put(connection, TIMES, quarters)
        await rollups.add_rows(connection, TIMES, coarser)
        for table, written in ((USERS, users), (TIMES, [*quarters, *coarser])):
            empty = [rollup.key for rollup in written if rollup.numbers[0] <= 0]
            await rollups.delete(connection, table, empty, only_empty=True)
        await schema.check_writable(connection, where)


def _coarser(before: Iterable[Rollup], after: Iterable[Rollup]) -> list[Rollup]:
    """Return the rows to add to coarser grains if quarters of an hour are replaced."""
    cells: dict[tuple[Any, ...], list[tuple[int, Rollup]]] = {}
    for sign, some in ((-1, before), (1, after)):
        for rollup in some:
            _, start, *names = rollup.key
            for grain in GRAINS[:-1]:
                cells.setdefault((grain, start // grain * grain, *names), []).append((sign, rollup))
    return [Rollup(key, *_sum(signed)) for key, signed in cells.items()]


def _sum(signed: Sequence[tuple[int, Rollup]]) -> tuple[tuple[int, ...], str | None, str | None]:
    numbers = tuple(sum(sign * rollup.numbers[index] for sign, rollup in signed) for index in range(len(NUMBERS)))
    response, first_token = (
        _merged([(sign, getattr(rollup, name)) for sign, rollup in signed]) for name in ("response", "first_token")
    )
    return numbers, response, first_token


def _merged(signed: Sequence[tuple[int, str | None]]) -> str | None:
    counts: dict[int, int] = {}
    for sign, histogram in signed:
        for bucket, calls in read_histogram(histogram).items():
            counts[bucket] = counts.get(bucket, 0) + sign * calls
    return write_histogram({bucket: counts[bucket] for bucket in sorted(counts) if counts[bucket]})
