"""Purging: calls go, and their rollups stay.

Calls before the watermark are purged, whether or not they are deleted yet: no reader and no change of calls sees them.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from uuid import UUID

from llmbridge.storage import CallRecord

from . import rollups
from .codec import to_micros

#: Calls that one transaction deletes: others write in between.
_CHUNK = 2_000

_MOVE_WATERMARK = "UPDATE llmbridge_state SET watermark = ?"
_DELETE = """
DELETE FROM llmbridge_calls WHERE number IN (
    SELECT number FROM llmbridge_calls WHERE called_at < (SELECT watermark FROM llmbridge_state)
    ORDER BY called_at LIMIT ?
)
"""
#: The number of the last call is given again once that is deleted.
_LOWER_FOLDED = """
UPDATE llmbridge_state SET folded = min(folded, (SELECT coalesce(MAX(number), 0) FROM llmbridge_calls))
"""


def split(calls: Sequence[CallRecord], watermark: int | None) -> tuple[Sequence[CallRecord], tuple[UUID, ...]]:
    """Return the calls that come in time, and the ids of those whose day was purged."""
    if watermark is None:
        return calls, ()
    late = tuple(call.id for call in calls if to_micros(call.called_at) < watermark)
    return [call for call in calls if to_micros(call.called_at) >= watermark], late


def move_watermark(connection: sqlite3.Connection, to: int) -> None:
    """Purge the calls before a midnight (microseconds): their rollups have them all, and from now on stand for them.
    The calls themselves count no more; `delete` takes them away, now or after the next purge."""
    watermark = rollups.state(connection).watermark
    if watermark is None or to > watermark:
        rollups.fold_all(connection)
        connection.execute(_MOVE_WATERMARK, (to,))


def delete(connection: sqlite3.Connection) -> tuple[int, bool]:
    """Delete some of the calls that were purged, the oldest; return how many, and whether there may be more."""
    deleted = connection.execute(_DELETE, (_CHUNK,)).rowcount
    connection.execute(_LOWER_FOLDED)
    return deleted, deleted == _CHUNK
