"""Rollups: rows with sums of calls. Calls are folded into them some time after they were stored.

Each writer has a lot, and marks its calls with the number of the lot. The transaction that stores calls also updates
the row of the lot. A fold first closes the lot: it waits for that transaction, and later ones find the lot closed and
open another. So when the lot is closed, all its calls are visible and no more are added. A call is either in a closed
lot and in the rollups, or in an open lot and in no rollup. The calls of open lots are the tail; every query adds them,
in the same snapshot. If a process dies, its lot stays open until another process folds it.

A fold is one GROUP BY over the calls of its lots for the rows by user and day, and one for the quarters of an hour,
from which the longer cells are summed. It reads and writes only the rows that its calls belong to, so its cost grows
with the number of calls, however many names they have. The server does all of it.

Three row locks on the one row of `llmbridge_state` separate the changes; each is held until the end of its transaction.
A change of rollups takes `FOR NO KEY UPDATE`, so only one runs at a time. A writer takes `FOR KEY SHARE` while it opens
a lot, which does not conflict with a change of rollups. A purge takes `FOR UPDATE`, moves the watermark and closes all
lots. So the watermark cannot move while a lot is open, and a writer with an open lot needs no lock but that on its lot.
A purge waits for one change of rollups at most, because later ones queue behind it, and for the few milliseconds in
which lots are opened.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import asyncpg

from llmbridge.storage import LATEST
from llmbridge.storage.toolkit.rollups import (
    HISTOGRAM_STEP,
    HISTOGRAMS,
    NUMBERS,
    TIME_KEY,
    USER_KEY,
    Rollup,
)
from llmbridge.storage.toolkit.time_cells import EPOCH, GRAINS, SECOND, micros

from . import schema
from .connection import Connection

USERS, TIMES = "{{tables.llmbridge_usage_by_user}}", "{{tables.llmbridge_usage_by_time}}"
KEYS = {USERS: USER_KEY, TIMES: TIME_KEY}
#: Every statement writes rows in this order, that of the primary key, so that no two can deadlock.
_ORDER = {USERS: ", ".join(USER_KEY), TIMES: ", ".join(("start", "grain", *TIME_KEY[2:]))}
_NAMES = ("provider", "model_name", "status")

#: SQL for what a call adds to each sum. NULL adds nothing.
_OF_A_CALL = {
    "calls": "1",
    "requests": "(attempt = 1)::int",
    "unmeasured_calls": "(total_tokens IS NULL AND {reason} IS DISTINCT FROM 'not_billed')::int",
    "unpriced_calls": "({cost} IS NULL AND coalesce({reason}, '') NOT IN ('not_billed', 'synthetic'))::int",
    "response_time_ms_count": "(status = 'success' AND response_time_ms IS NOT NULL)::int",
    "cost": "{cost}",
    "response_time_ms_sum": "CASE status WHEN 'success' THEN response_time_ms END",
}
BUCKETS = dict(zip(HISTOGRAMS, ("response_bucket", "first_token_bucket"), strict=True))


def of_a_call(name: str, cost: str = "estimated_cost", reason: str = "cost_reason") -> str:
    """Return SQL for what a call adds to the sum `name`."""
    return _OF_A_CALL.get(name, name).format(cost=cost, reason=reason)


#: The open lots.
OPEN = "SELECT number FROM {{tables.llmbridge_lots}} WHERE NOT folded"
#: The condition on calls that are in the rollups.
FOLDED = f"lot <> ALL (ARRAY({OPEN}))"

_SIZES = "SELECT number, calls FROM {{tables.llmbridge_lots}} WHERE NOT folded ORDER BY number"
_DAYS = f"SELECT min(day), max(day) FROM {USERS}"
#: Up to this many cells are looked up one by one. If there are more, all cells of the range are read.
MAX_CELLS = 5_000
_WATERMARK = "SELECT watermark FROM {{tables.llmbridge_state}}"
_WATERMARK_THAT_STAYS = "SELECT watermark FROM {{tables.llmbridge_state}} WHERE id = 1 FOR KEY SHARE"
_OPEN_LOT = " ".join(
    (
        "INSERT INTO {{tables.llmbridge_lots}} (calls, touched, folded) SELECT 0, now(), false WHERE (",
        schema.WRITABLE_FROM,
        ") <= $1 RETURNING number",
    )
)
#: Logical replication copies the lots but not the state of their sequence, so a failover can leave that behind.
_MOVE_SEQUENCE = """
SELECT setval(pg_get_serial_sequence('{{tables.llmbridge_lots}}', 'number'), max(number)) FROM {{tables.llmbridge_lots}}
"""
#: Lots of processes that have ended or are idle: the oldest ones, with about $2 calls.
_IDLE = """
SELECT number, calls, lots FROM (
    SELECT
        number,
        sum(calls) OVER () AS calls,
        count(*) OVER () AS lots,
        sum(calls) OVER (ORDER BY number) - calls AS before
    FROM {{tables.llmbridge_lots}}
    WHERE NOT folded AND number <> $1 AND touched < now() - interval '1 minute'
) AS idle
WHERE before < $2 ORDER BY number LIMIT 100
"""
#: How many calls or lots justify a transaction.
_WORTH_CALLS, _WORTH_LOTS = 1_000, 50
#: How many calls one transaction folds; more only if a single lot has more.
_FOLD_AT_ONCE = 20_000
_CLOSE_LOTS = """
UPDATE {{tables.llmbridge_lots}} SET folded = true WHERE number = ANY ($1::bigint[]) AND NOT folded RETURNING number
"""


def _list(*columns: str) -> str:
    return ", ".join(columns)


def _cell_of_call(grain: int) -> str:
    """Return SQL for the start in seconds of a call's cell. asyncpg writes the first instant of year 1 as -infinity."""
    start = f"date_bin('{grain} s', greatest(called_at, '0001-01-01Z'), '0001-01-01Z')"
    return f"date_part('epoch', {start})::bigint"


def _cell_of_cell(grain: int) -> str:
    """Return SQL for the start of the cell of `grain` that `start` lies in, before 1970 too."""
    return f"start - ((start % {grain}) + {grain}) % {grain}"


#: The sums of calls, exact whatever their size, and their histograms.
SUMS = {name: "count(*)" if name == "calls" else f"coalesce(sum({of_a_call(name)}), 0)" for name in NUMBERS}
TEXTS = {name: f"string_agg({bucket}::text, ',')" for name, bucket in BUCKETS.items()}


def _named(columns: Mapping[str, str]) -> list[str]:
    return [f"{sql} AS {name}" for name, sql in columns.items()]


def _shortened(histogram: str) -> str:
    """Return SQL for the same histogram with only one entry for each bucket."""
    return f"""(
        SELECT string_agg(bucket || CASE total WHEN 1 THEN '' ELSE ':' || total END, ',' ORDER BY bucket) FROM (
            SELECT
                split_part(entry, ':', 1)::int AS bucket,
                sum(coalesce(nullif(split_part(entry, ':', 2), ''), '1')::bigint) AS total
            FROM string_to_table({histogram}, ',') AS entry
            GROUP BY 1
        ) AS entries WHERE total <> 0
    )"""


def _shortened_if_long(histogram: str) -> str:
    """Return SQL for a new histogram, shortened if it is long."""
    is_short = f"length({histogram}) < {HISTOGRAM_STEP}"
    return f"CASE WHEN {is_short} THEN {histogram} ELSE {_shortened(histogram)} END AS {histogram}"


def _merged(name: str) -> str:
    """Return SQL that adds the histogram of `excluded` to that of a row: appended, and shortened if the text has become
    long."""
    mine, theirs = f"kept.{name}", f"excluded.{name}"
    both = f"{mine} || ',' || {theirs}"
    return f"""{name} = CASE
        WHEN {mine} IS NULL OR {theirs} IS NULL THEN coalesce({mine}, {theirs})
        WHEN length({mine}) / {HISTOGRAM_STEP} = (length({mine}) + length({theirs})) / {HISTOGRAM_STEP} THEN {both}
        ELSE {_shortened(both)}
    END"""


def add(table: str, select: str, numbers: Sequence[str] = NUMBERS, histograms: Sequence[str] = HISTOGRAMS) -> str:
    """Return the statement that adds the rows of `select`, whose columns are the key, `numbers` and `histograms`, to
    those of `table`. Negative sums subtract."""
    added = [f"{name} = kept.{name} + excluded.{name}" for name in numbers]
    return " ".join(
        (
            f"INSERT INTO {table} AS kept (",
            _list(*KEYS[table], *numbers, *histograms),
            f") {select} ORDER BY {_ORDER[table]} ON CONFLICT (",
            _list(*KEYS[table]),
            ") DO UPDATE SET",
            _list(*added, *map(_merged, histograms)),
        )
    )


def users_of(
    calls: str,
    sums: Mapping[str, str] = SUMS,
    texts: Mapping[str, str] = TEXTS,
    *,
    user: str = "coalesce(id_at_origin, '')",
) -> str:
    """Return the SELECT that computes the rows by user from calls. `calls` is the text after FROM; `sums` and `texts`
    are SQL for the sums and histograms, by their names."""
    keys = (f"{_cell_of_call(GRAINS[0])} AS day", "origin", f"{user} AS id_at_origin", *_NAMES)
    return " ".join(
        (
            "SELECT",
            _list(*USER_KEY, *sums, *map(_shortened_if_long, texts)),
            "FROM ( SELECT",
            _list(*keys, *_named(sums), *_named(texts)),
            f"FROM {calls} GROUP BY 1, 2, 3, 4, 5, 6 ) AS made",
        )
    )


def times_of(calls: str, sums: Mapping[str, str] = SUMS, texts: Mapping[str, str] = TEXTS) -> str:
    """Return the SELECT that computes the rows by time from calls, as `users_of` does: the rows of the finest grain
    from the calls, and those of each coarser grain from the next finer one."""
    finest = GRAINS[-1]
    columns = _list(f"{_cell_of_call(finest)} AS start", "origin", *_NAMES, *_named(sums), *_named(texts))
    cells = [f"cells_{finest} AS (SELECT {columns} FROM {calls} GROUP BY 1, 2, 3, 4, 5)"]
    merged = {name: f"sum({name})" for name in sums} | {name: f"string_agg({name}, ',')" for name in texts}
    for finer, grain in pairwise(reversed(GRAINS)):
        columns = _list(f"{_cell_of_cell(grain)} AS start", "origin", *_NAMES, *_named(merged))
        cells.append(f"cells_{grain} AS (SELECT {columns} FROM cells_{finer} GROUP BY 1, 2, 3, 4, 5)")
    every = " UNION ALL ".join(f"SELECT {grain}::bigint AS grain, * FROM cells_{grain}" for grain in GRAINS)
    wanted = _list(*TIME_KEY, *sums, *map(_shortened_if_long, texts))
    return f"WITH {_list(*cells)} SELECT {wanted} FROM ({every}) AS made"


_OF_LOTS = "{{tables.llmbridge_calls}} WHERE lot = ANY ($1::bigint[])"
_FOLD = (add(USERS, users_of(_OF_LOTS)), add(TIMES, times_of(_OF_LOTS)))

#: The folded calls of a range of time.
_OF_RANGE = " ".join(
    ("{{tables.llmbridge_calls}} WHERE called_at >= $1::timestamptz AND called_at < $2::timestamptz AND", FOLDED)
)


def selected(table: str, source: str) -> str:
    """Return the SELECT of rows of `table`, in the form that `decode` reads. `source` is the text after FROM."""
    # The numbers are read as one text: as numerics they would become Decimals, which costs many times more.
    return f"SELECT {_list(*KEYS[table])}, concat_ws(',', {_list(*NUMBERS)}), {_list(*HISTOGRAMS)} FROM {source}"


_COUNT = {
    USERS: selected(USERS, f"({users_of(_OF_RANGE)}) AS counted"),
    TIMES: selected(TIMES, f"({times_of(_OF_RANGE)}) AS counted"),
}

_KEY_TYPES = {"day": "bigint", "grain": "bigint", "start": "bigint"}


def _given(table: str, columns: Sequence[str]) -> str:
    """Return SQL for rows that are passed as one array for each column."""
    arrays = [f"${number}::{_KEY_TYPES.get(name, 'text')}[]" for number, name in enumerate(columns, 1)]
    return f"unnest({_list(*arrays)}) AS given ({_list(*columns)})"


def _given_rows(table: str) -> str:
    columns = (*KEYS[table], *NUMBERS, *HISTOGRAMS)
    numbers = [f"{name}::numeric AS {name}" for name in NUMBERS]
    return f"SELECT {_list(*KEYS[table], *numbers, *HISTOGRAMS)} FROM {_given(table, columns)}"


def _put(table: str) -> str:
    columns = (*KEYS[table], *NUMBERS, *HISTOGRAMS)
    replaced = [f"{name} = excluded.{name}" for name in (*NUMBERS, *HISTOGRAMS)]
    return " ".join(
        (
            f"INSERT INTO {table} (",
            _list(*columns),
            f") {_given_rows(table)} ORDER BY {_ORDER[table]} ON CONFLICT (",
            _list(*KEYS[table]),
            ") DO UPDATE SET",
            _list(*replaced),
        )
    )


def _of_given_keys(table: str) -> str:
    """Return SQL for the rows of a table whose keys are passed as one array for each column."""
    same = " AND ".join(f"kept.{name} = given.{name}" for name in KEYS[table])
    return f"{table} AS kept USING {_given(table, KEYS[table])} WHERE {same}"


_READ_GIVEN = {
    table: selected(table, f"{table} JOIN {_given(table, KEYS[table])} USING ({_list(*KEYS[table])})") for table in KEYS
}
_PUT = {table: _put(table) for table in KEYS}
_ADD = {table: add(table, _given_rows(table)) for table in KEYS}
_DELETE = {table: f"DELETE FROM {_of_given_keys(table)}" for table in KEYS}
_DELETE_EMPTY = {table: f"{_DELETE[table]} AND kept.calls = 0" for table in KEYS}


@dataclass(slots=True)
class Lot:
    """The lot of a writer: its number (None: not opened yet), about how many calls it has, the watermark, which cannot
    move while the lot is open, and whether the connections take a batch only as one array for each column."""

    number: int | None = None
    calls: int = 0
    watermark: datetime | None = None
    by_column: bool = False


async def watermark(connection: Connection) -> datetime | None:
    """Return the start of the oldest day that is not purged; None: no day is purged."""
    return _aware(await connection.fetch_value(_WATERMARK))


def _aware(at: datetime | None) -> datetime | None:
    return None if at is None else at.replace(tzinfo=UTC)


async def days(connection: Connection) -> list[int] | None:
    """Return the starts in seconds of all days from the first to the last that has rows by user; None: there are too
    many to look each of them up."""
    [(first, last)] = await connection.fetch(_DAYS)
    found = range(0) if first is None else range(first, last + 1, GRAINS[0])
    return list(found) if len(found) <= MAX_CELLS else None


async def open_lot(connection: Connection, lot: Lot) -> None:
    """Give a writer a new lot. No purge can move the watermark while the lot is opened, and a later one closes it."""
    while True:
        try:
            async with connection.transaction():
                lot.watermark = _aware(await connection.fetch_value(_WATERMARK_THAT_STAYS))
                number = await connection.fetch_value(_OPEN_LOT, schema.HEAD_NUMBER)
        except asyncpg.UniqueViolationError:
            await connection.fetch_value(_MOVE_SEQUENCE)
        else:
            lot.number, lot.calls = number, 0
            return


async def idle_lots(connection: Connection, own: int | None, calls: int) -> list[int]:
    """Return lots of other writers that have ended or are idle, with about `calls` calls; none if they are too few."""
    found = await connection.fetch(_IDLE, own or 0, calls)
    worth = bool(found) and (found[0]["calls"] >= _WORTH_CALLS or found[0]["lots"] >= _WORTH_LOTS)
    return [row["number"] for row in found] if worth else []


async def open_lots(connection: Connection) -> list[int]:
    """Return the numbers of all open lots."""
    return [row["number"] for row in await connection.fetch(OPEN)]


async def lots_by_slices(connection: Connection) -> list[list[int]]:
    """Return the numbers of all open lots in slices, each of which one transaction should fold."""
    slices: list[list[int]] = []
    calls = 0
    for row in await connection.fetch(_SIZES):
        if not slices or calls + row["calls"] > _FOLD_AT_ONCE:
            slices.append([])
            calls = 0
        slices[-1].append(row["number"])
        calls += row["calls"]
    return slices


async def fold(connection: Connection, lots: Sequence[int]) -> None:
    """Close lots and fold them into the rollups. Call this in a `rollup_transaction`."""
    closed = [row["number"] for row in await connection.fetch(_CLOSE_LOTS, list(lots))]
    if closed:
        for statement in _FOLD:
            await connection.execute(statement, closed)


async def fold_lots(connection: Connection, lots: Sequence[int], where: str) -> None:
    """Fold lots in a transaction of their own."""
    async with connection.rollup_transaction():
        await fold(connection, lots)
        await schema.check_writable(connection, where)


async def counted(connection: Connection, table: str, first: int, last: int) -> dict[tuple[Any, ...], Rollup]:
    """Return the rows that result from the folded calls of a range of seconds."""
    return by_key(await connection.fetch(_COUNT[table], instant(first), instant(last)))


async def read(connection: Connection, table: str, keys: Sequence[tuple[Any, ...]]) -> dict[tuple[Any, ...], Rollup]:
    """Return the rows that have these keys."""
    return by_key(await connection.fetch(_READ_GIVEN[table], *_columns(keys))) if keys else {}


async def put(connection: Connection, table: str, rollups: Sequence[Rollup]) -> None:
    """Insert these rows or replace those of the same keys. Call this in a `rollup_transaction`."""
    if rollups:
        await connection.execute(_PUT[table], *_encoded(rollups))


async def add_rows(connection: Connection, table: str, rollups: Sequence[Rollup]) -> None:
    """Add the sums of these rows to the rows of the same keys. Call this in a `rollup_transaction`."""
    if rollups:
        await connection.execute(_ADD[table], *_encoded(rollups))


async def delete(
    connection: Connection, table: str, keys: Sequence[tuple[Any, ...]], *, only_empty: bool = False
) -> None:
    """Delete the rows of these keys, with `only_empty` only those without calls. Call this in a
    `rollup_transaction`."""
    if keys:
        await connection.execute((_DELETE_EMPTY if only_empty else _DELETE)[table], *_columns(keys))


def by_key(rows: Iterable[Sequence[Any]]) -> dict[tuple[Any, ...], Rollup]:
    """Return decoded rows of a table by their keys."""
    return {rollup.key: rollup for rollup in map(decode, rows)}


def decode(row: Sequence[Any]) -> Rollup:
    """Return the rollup of a row that a statement of `selected` has read."""
    *key, numbers, response, first_token = row
    return Rollup(tuple(key), tuple(map(int, numbers.split(","))), response, first_token)


def _encoded(rollups: Sequence[Rollup]) -> list[list[Any]]:
    return _columns([(*one.key, *map(str, one.numbers), one.response, one.first_token) for one in rollups])


def _columns(rows: Sequence[tuple[Any, ...]]) -> list[list[Any]]:
    return [list(column) for column in zip(*rows, strict=True)]


def instant(seconds: int) -> datetime:
    """Return the UTC time of seconds since 1970, at most LATEST."""
    return min(EPOCH + timedelta(seconds=seconds), LATEST) if seconds < micros(LATEST) // SECOND else LATEST
