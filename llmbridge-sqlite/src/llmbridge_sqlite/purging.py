"""Calls that go while their totals stay, and the totals of purged days as other stores take them."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from llmbridge.storage import CallRecord, TotalsPage, TotalsRow
from llmbridge.storage.coverage import GRAINS, SECOND
from llmbridge.storage.sheets import Sheets, line_of, place_line, rows_of, unpack

from . import totals
from .codec import from_micros, to_micros

_DAY = 86_400 * SECOND
#: Calls that one transaction deletes, more only if one day has more: others write in between.
_CHUNK = 5_000
_PAGE = 100

_NTH = "SELECT called_at FROM llmbridge_calls WHERE called_at < ? ORDER BY called_at LIMIT 1 OFFSET ?"
_DELETE = "DELETE FROM llmbridge_calls WHERE called_at < ?"
_SET_STATE = "UPDATE llmbridge_state SET folded = (SELECT coalesce(MAX(number), 0) FROM llmbridge_calls), watermark = ?"
_MOVE_WATERMARK = "UPDATE llmbridge_state SET watermark = max(coalesce(watermark, :to), :to)"
_USER_PAGE = """
SELECT start, origin, id_at_origin, sums, histograms FROM llmbridge_user_totals
WHERE (start, origin, id_at_origin) > (?, ?, ?) AND start < ? ORDER BY start, origin, id_at_origin LIMIT ?
"""
_TIME_PAGE = """
SELECT start, origin, '', sums, histograms FROM llmbridge_totals
WHERE grain = ? AND (start, origin) > (?, ?) AND start < ? ORDER BY start, origin LIMIT ?
"""


def split(calls: Sequence[CallRecord], watermark: int | None) -> tuple[Sequence[CallRecord], tuple[UUID, ...]]:
    """The calls that come in time, and the ids of those whose day was purged."""
    if watermark is None:
        return calls, ()
    late = tuple(call.id for call in calls if to_micros(call.called_at) < watermark)
    return [call for call in calls if to_micros(call.called_at) >= watermark], late


def purge(connection: sqlite3.Connection, before: int) -> tuple[int, bool]:
    """Delete the oldest calls before a midnight (microseconds), whole days of them; how many, and whether this was
    the last of it. The number of the last call may be given anew afterwards, so nothing is left unfolded."""
    watermark = totals.state(connection).watermark
    if watermark is not None and before <= watermark:
        return 0, True
    nth = connection.execute(_NTH, (before, _CHUNK)).fetchone()
    end = before if nth is None else min(before, (nth[0] // _DAY + 1) * _DAY)
    totals.fold_all(connection)
    deleted = connection.execute(_DELETE, (end,)).rowcount
    connection.execute(_SET_STATE, (end,))
    return deleted, end == before


def read_totals(connection: sqlite3.Connection, cursor: str | None) -> TotalsPage:
    """A page of totals of purged days: sheets of users by day, then of quarters of an hour. The cursor is the key
    of the page's last sheet."""
    watermark = totals.state(connection).watermark
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
    differences = Sheets()
    for place, key, line in {(place, key): (place, key, line) for place, key, line in map(line_of, rows)}.values():
        before = totals.read(connection, place).get(key)
        if before is not None:
            line.add(before.negative())
        place_line(differences, place, key, line)
    totals.add(connection, differences)
    if watermark is not None:
        connection.execute(_MOVE_WATERMARK, {"to": watermark})
