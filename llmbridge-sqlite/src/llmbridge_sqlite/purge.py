"""Calls that go while their totals stay, and the totals of purged days as other stores take them.

Calls before the watermark are purged, whether or not they are deleted yet: no reader and no change of calls sees them.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from llmbridge.storage import CallRecord, TotalsPage, TotalsRow
from llmbridge.storage.sheets import Sheets, line_of, place_line, rows_of, unpack
from llmbridge.storage.toolkit.time_cells import GRAINS, SECOND

from . import rollups
from .codec import from_micros, to_micros

#: Calls that one transaction deletes: others write in between.
_CHUNK = 2_000
_PAGE = 100

_MOVE_WATERMARK = "UPDATE llmbridge_state SET watermark = ?"
_DELETE = """
DELETE FROM llmbridge_calls WHERE number IN (
    SELECT number FROM llmbridge_calls WHERE called_at < (SELECT watermark FROM llmbridge_state)
    ORDER BY called_at LIMIT ?
)
"""
#: The number of the last call is given anew once that is deleted.
_COUNT_ANEW = """
UPDATE llmbridge_state SET folded = min(folded, (SELECT coalesce(MAX(number), 0) FROM llmbridge_calls))
"""
_USER_PAGE = """
SELECT start, origin, id_at_origin, sums, failures, histograms FROM llmbridge_user_totals
WHERE (start, origin, id_at_origin) > (?, ?, ?) AND start < ? ORDER BY start, origin, id_at_origin LIMIT ?
"""
_TIME_PAGE = """
SELECT start, origin, '', sums, failures, histograms FROM llmbridge_totals
WHERE grain = ? AND (start, origin) > (?, ?) AND start < ? ORDER BY start, origin LIMIT ?
"""


def split(calls: Sequence[CallRecord], watermark: int | None) -> tuple[Sequence[CallRecord], tuple[UUID, ...]]:
    """The calls that come in time, and the ids of those whose day was purged."""
    if watermark is None:
        return calls, ()
    late = tuple(call.id for call in calls if to_micros(call.called_at) < watermark)
    return [call for call in calls if to_micros(call.called_at) >= watermark], late


def move_watermark(connection: sqlite3.Connection, to: int) -> None:
    """Purge the calls before a midnight (microseconds): their totals have them all, and from now on stand for them.
    The calls themselves count no more; `delete` takes them away, now or after the next purge."""
    watermark = rollups.state(connection).watermark
    if watermark is None or to > watermark:
        rollups.fold_all(connection)
        connection.execute(_MOVE_WATERMARK, (to,))


def delete(connection: sqlite3.Connection) -> tuple[int, bool]:
    """Delete some of the calls that were purged, the oldest; how many, and whether there may be more."""
    deleted = connection.execute(_DELETE, (_CHUNK,)).rowcount
    connection.execute(_COUNT_ANEW)
    return deleted, deleted == _CHUNK


def read_totals(connection: sqlite3.Connection, cursor: str | None) -> TotalsPage:
    """A page of totals of purged days: sheets of users by day, then of quarters of an hour. The cursor is the key
    of the page's last sheet."""
    watermark = rollups.state(connection).watermark
    if watermark is None:
        return TotalsPage([], None, None)
    end = watermark // SECOND
    grain, *after = json.loads(cursor) if cursor else ("day", -(2**63), "", "")
    found: list[tuple[Any, ...]] = []
    if grain == "day":
        found = [("day", *row) for row in connection.execute(_USER_PAGE, (*after, end, _PAGE + 1))]
        after = [-(2**63), "", ""]
    if len(found) <= _PAGE:
        parameters = (GRAINS[-1], *after[:2], end, _PAGE + 1 - len(found))
        found += [("quarter", *row) for row in connection.execute(_TIME_PAGE, parameters)]
    rows = [
        row
        for grain, start, origin, user, *texts in found[:_PAGE]
        for row in rows_of(grain, start, origin, user, unpack(*texts))
    ]
    return TotalsPage(rows, json.dumps(found[_PAGE - 1][:4]) if len(found) > _PAGE else None, from_micros(watermark))


def write_totals(connection: sqlite3.Connection, rows: Sequence[TotalsRow], watermark: int | None) -> None:
    """Replace totals by the difference to what stands there, which coarser sheets take over."""
    if watermark is not None:
        move_watermark(connection, watermark)
    differences = Sheets()
    for place, key, line in {(place, key): (place, key, line) for place, key, line in map(line_of, rows)}.values():
        before = rollups.read(connection, place).get(key)
        if before is not None:
            line.add(before.negative())
        place_line(differences, place, key, line)
    rollups.add(connection, differences)
