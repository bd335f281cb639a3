"""Purging: calls of old days are deleted, their rollups stay.

All calls before the watermark count as purged, even if they are not deleted yet: no query and no change of calls sees
them.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from datetime import UTC, datetime
from uuid import UUID

from llmbridge.storage import EARLIEST, MAX_CLOCK_SKEW, CallRecord
from llmbridge.storage.toolkit.time_cells import SECOND, micros

from . import rollups
from .codec import from_micros, to_micros
from .rollup_statements import DAY, USERS

#: How many calls one transaction deletes. Others can write between two transactions.
_CHUNK = 2_000

_MOVE_WATERMARK = "UPDATE llmbridge_state SET watermark = ?"
#: Back to the end of the last day that has totals of purged calls.
_LOWER_WATERMARK = f"""
UPDATE llmbridge_state SET watermark = (
    SELECT (MAX(day) + {DAY}) * {SECOND} FROM {USERS} WHERE day < watermark / {SECOND}
)
"""  # noqa: S608  names of ours
_DELETE = """
DELETE FROM llmbridge_calls WHERE number IN (
    SELECT number FROM llmbridge_calls WHERE called_at < (SELECT watermark FROM llmbridge_state)
    ORDER BY called_at LIMIT ?
)
"""
#: If the last call is deleted, SQLite gives its number to the next new call.
_LOWER_FOLDED = """
UPDATE llmbridge_state SET folded = min(folded, (SELECT coalesce(MAX(number), 0) FROM llmbridge_calls))
"""


def split(calls: Sequence[CallRecord], watermark: int | None) -> tuple[Sequence[CallRecord], tuple[UUID, ...]]:
    """Return the calls whose day is not purged, and the ids of the other ones."""
    if watermark is None:
        return calls, ()
    late = tuple(call.id for call in calls if to_micros(call.called_at) < watermark)
    return [call for call in calls if to_micros(call.called_at) >= watermark], late


def move_watermark(connection: sqlite3.Connection, to: int) -> None:
    """Purge the calls before a midnight (in microseconds). After this, only their rollups count; `delete` removes the
    calls, now or after the next purge."""
    watermark = rollups.state(connection).watermark
    if to > (micros(EARLIEST) if watermark is None else watermark):
        rollups.fold_all(connection)
        connection.execute(_MOVE_WATERMARK, (to,))


def future_watermark(connection: sqlite3.Connection, *, repair: bool) -> datetime | None:
    """Return the watermark if it is ahead of the clock, else None. With `repair`, move it back to the end of the last
    purged day that has rollups."""
    watermark = rollups.state(connection).watermark
    ahead = None if watermark is None else from_micros(watermark)
    if ahead is None or ahead - datetime.now(UTC) <= MAX_CLOCK_SKEW:
        return None
    if repair:
        rollups.fold_all(connection)
        connection.execute(_LOWER_WATERMARK)
    return ahead


def delete(connection: sqlite3.Connection) -> tuple[int, bool]:
    """Delete the oldest purged calls. Return how many, and whether there may be more."""
    deleted = connection.execute(_DELETE, (_CHUNK,)).rowcount
    connection.execute(_LOWER_FOLDED)
    return deleted, deleted == _CHUNK


def compact(connection: sqlite3.Connection) -> int:
    """Rewrite the file without the space of deleted rows, and return how many bytes smaller it is."""
    before = _size(connection)
    connection.execute("VACUUM")
    # The rewritten pages are in the write-ahead log; the file shrinks when they are moved into it.
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    return before - _size(connection)


def _size(connection: sqlite3.Connection) -> int:
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    (size,) = connection.execute("PRAGMA page_size").fetchone()
    return int(pages) * int(size)
