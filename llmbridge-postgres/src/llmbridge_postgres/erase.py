"""Removal of a user's name from calls and rollups. The sums stay."""

from __future__ import annotations

from datetime import UTC, datetime

from llmbridge.storage.toolkit.rollups import HISTOGRAMS, NUMBERS
from llmbridge.storage.toolkit.time_cells import SECOND, USER_GRAINS, micros

from . import rollups, schema
from .connection import Connection
from .rollups import USERS

#: How many calls, and how many days of rollups, one transaction changes. Others can write between two transactions.
_CHUNK, _DAYS = 5_000, 500
_DAY = USER_GRAINS[0]

_NAMED_CALLS = """
SELECT id, called_at, called_at >= coalesce((SELECT watermark FROM {{tables.llmbridge_state}}), '-infinity') AS is_kept
FROM {{tables.llmbridge_calls}} WHERE (origin, id_at_origin) = ($1, $2) LIMIT $3
"""
_ERASE = "UPDATE {{tables.llmbridge_calls}} SET id_at_origin = NULL WHERE id = ANY ($1::uuid[])"
#: Each call twice: subtracted from the rows of the user, and added to the rows without a user.
_MOVED = " ".join(
    (
        "{{tables.llmbridge_calls}} CROSS JOIN (VALUES ($2::text, -1), ('', 1)) AS moved (name, sign)",
        f"WHERE id = ANY ($1::uuid[]) AND {rollups.FOLDED}",
    )
)
_MOVE_CALLS = rollups.add(
    USERS,
    rollups.users_of(
        _MOVED,
        {name: f"coalesce(sum(sign * ({rollups.of_a_call(name)})::numeric), 0)" for name in NUMBERS},
        {
            name: f"string_agg({bucket} || CASE sign WHEN 1 THEN '' ELSE ':-1' END, ',')"
            for name, bucket in rollups.BUCKETS.items()
        },
        user="moved.name",
    ),
)
_ROWS_OF_USER = f"{USERS} WHERE origin = $1 AND id_at_origin = $2"
_IS_OF_DAYS = "day = ANY ($3::bigint[])"
#: Rows that have no calls of the user any more.
_DELETE_EMPTY = f"DELETE FROM {_ROWS_OF_USER} AND {_IS_OF_DAYS} AND calls = 0"
_COUNT_ROWS = f"SELECT day, count(*) AS rows FROM {_ROWS_OF_USER}"
_FIRST_DAYS = f"GROUP BY day ORDER BY day LIMIT {_DAYS}"
_MOVE_DAYS = rollups.add(
    USERS,
    " ".join(
        (
            "SELECT day, origin, '' AS id_at_origin, provider, model_name, status,",
            ", ".join((*NUMBERS, *HISTOGRAMS)),
            f"FROM {_ROWS_OF_USER} AND {_IS_OF_DAYS}",
        )
    ),
)
_DELETE_DAYS = f"DELETE FROM {_ROWS_OF_USER} AND {_IS_OF_DAYS}"


async def erase(connection: Connection, origin: str, user: str, where: str) -> tuple[int, bool]:
    """Remove a user's name from some calls; if no call has it any more, from the rollups of some days. Return how many
    calls and rows of purged days were changed, and whether there may be more.

    The sums of these calls are moved to rollups without a user in the same transaction, so that results are exact after
    each one.
    """
    async with connection.rollup_transaction():
        found = await connection.fetch(_NAMED_CALLS, origin, user, _CHUNK)
        kept = {row["id"]: _day(row["called_at"]) for row in found if row["is_kept"]}
        if kept:
            await connection.execute(_MOVE_CALLS, list(kept), user)
            await connection.execute(_DELETE_EMPTY, origin, user, sorted(set(kept.values())))
        await connection.execute(_ERASE, [row["id"] for row in found])
        changed, may_go_on = len(kept), len(found) == _CHUNK
        if not may_go_on:
            rows, may_go_on = await _erase_days(connection, origin, user)
            changed += rows
        await schema.check_writable(connection, where)
    return changed, may_go_on


async def _erase_days(connection: Connection, origin: str, user: str) -> tuple[int, bool]:
    """Remove a user's name from the rollups of some days. Return how many of these rows belong to purged days, and
    whether there may be more."""
    every = await rollups.days(connection)
    if every is None:
        found = await connection.fetch(f"{_COUNT_ROWS} {_FIRST_DAYS}", origin, user)
    else:
        found = await connection.fetch(f"{_COUNT_ROWS} AND {_IS_OF_DAYS} {_FIRST_DAYS}", origin, user, every)
    if found:
        of_user = origin, user, [row["day"] for row in found]
        await connection.execute(_MOVE_DAYS, *of_user)
        await connection.execute(_DELETE_DAYS, *of_user)
    watermark = await rollups.watermark(connection)
    end = None if watermark is None else micros(watermark) // SECOND
    return sum(row["rows"] for row in found if end is not None and row["day"] < end), len(found) == _DAYS


def _day(at: datetime) -> int:
    return micros(at.replace(tzinfo=UTC)) // SECOND // _DAY * _DAY
