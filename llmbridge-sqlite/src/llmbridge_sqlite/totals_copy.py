"""Reading and writing of the totals of purged days, for `storage copy`."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from typing import Any

from llmbridge.storage import TotalsPage, TotalsRow
from llmbridge.storage.toolkit.rollups import TIME_KEY, USER_KEY, from_totals_row, to_totals_row
from llmbridge.storage.toolkit.time_cells import GRAINS, SECOND
from llmbridge.storage.types import Grain

from . import purge, rollups
from .codec import from_micros
from .rollup_statements import CHANGE_COARSER, DELETE_IF_EMPTY, PUT, QUARTER, ROW, TIMES, USERS

_PAGE = 1_000
#: Keys before all keys.
_BEFORE_USERS: tuple[Any, ...] = (-(2**63), "", "", "", "", "")
_BEFORE_TIMES: tuple[Any, ...] = (QUARTER, -(2**63), "", "", "", "")

_USER_PAGE = f"""
SELECT {ROW[USERS]} FROM {USERS}
WHERE (day, origin, id_at_origin, provider, model_name, status) > (?, ?, ?, ?, ?, ?) AND day < ?
ORDER BY day, origin, id_at_origin, provider, model_name, status LIMIT ?
"""  # noqa: S608  names of ours
_TIME_PAGE = f"""
SELECT {ROW[TIMES]} FROM {TIMES}
WHERE grain = ? AND (start, origin, provider, model_name, status) > (?, ?, ?, ?, ?) AND start < ?
ORDER BY start, origin, provider, model_name, status LIMIT ?
"""  # noqa: S608  names of ours
#: The grains whose rows change by the difference when a row of the finest grain is replaced.
_COARSER = GRAINS[:-1]


def read_totals(connection: sqlite3.Connection, cursor: str | None) -> TotalsPage:
    """Return a page of totals of purged days: first the rows by user and day, then those by quarter of an hour. The
    cursor is the key of the page's last row."""
    watermark = rollups.state(connection).watermark
    if watermark is None:
        return TotalsPage([], None, None)
    end = watermark // SECOND
    grain, after = json.loads(cursor) if cursor else ("day", _BEFORE_USERS)
    found: list[tuple[Grain, tuple[Any, ...]]] = []
    if grain == "day":
        found = [("day", row) for row in connection.execute(_USER_PAGE, (*after, end, _PAGE + 1))]
        after = _BEFORE_TIMES
    if len(found) <= _PAGE:
        left = _PAGE + 1 - len(found)
        found += [("quarter", row) for row in connection.execute(_TIME_PAGE, (*after, end, left))]
    page = found[:_PAGE]
    rows = [to_totals_row(grain, rollups.decode(row)) for grain, row in page]
    last = json.dumps([page[-1][0], page[-1][1][: len(USER_KEY)]]) if len(found) > _PAGE else None
    return TotalsPage(rows, last, from_micros(watermark))


def write_totals(connection: sqlite3.Connection, rows: Sequence[TotalsRow], watermark: int | None) -> None:
    """Replace rows of purged days, and add the difference to the rows of coarser grains."""
    if watermark is not None:
        purge.move_watermark(connection, watermark)
    latest = {(row.grain, rollup.key): rollup for row in rows for rollup in [from_totals_row(row)]}
    users = [rollup for (grain, _), rollup in latest.items() if grain == "day"]
    quarters = [rollup for (grain, _), rollup in latest.items() if grain == "quarter"]
    places = [dict(zip(TIME_KEY, rollup.key, strict=True)) for rollup in quarters]
    cells = [{**place, "grain": grain} for grain in _COARSER for place in places]
    connection.executemany(CHANGE_COARSER["-"], cells)
    connection.executemany(PUT[USERS], map(rollups.encode, users))
    connection.executemany(PUT[TIMES], map(rollups.encode, quarters))
    connection.executemany(CHANGE_COARSER["+"], cells)
    connection.executemany(DELETE_IF_EMPTY[USERS], [rollup.key for rollup in users])
    connection.executemany(
        DELETE_IF_EMPTY[TIMES],
        [
            (grain, place["start"] // grain * grain, *(place[name] for name in TIME_KEY[2:]))
            for grain in GRAINS
            for place in places
        ],
    )
