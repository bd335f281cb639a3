"""SQL of the rollups, generated from one table of what a call adds to each sum.

SQLite's SUM raises an error beyond 64 bits. So a cost is stored as whole dollars and the rest, and every other large
sum as multiples of 2^32 and the rest (`NAME_high`, `NAME`). Whenever rows are added, the rest is carried, so that sums
of rows do not overflow. Calls are first summed as whole numbers, which is cheaper, and after an overflow in two parts.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llmbridge.storage.toolkit.rollups import HISTOGRAM_STEP, HISTOGRAMS, NUMBERS, PRICED, TIME_KEY, USER_KEY
from llmbridge.storage.toolkit.time_cells import GRAINS, SECOND

USERS, TIMES = "llmbridge_usage_by_user", "llmbridge_usage_by_time"
KEYS = {USERS: USER_KEY, TIMES: TIME_KEY}
DAY, QUARTER = GRAINS[0], GRAINS[-1]

#: A dollar in units, and the mask of the lower half of a sum.
DOLLAR, LOW = 10**12, 2**32 - 1
#: The sums that have one column, and those that have two.
COUNTS = NUMBERS[: NUMBERS.index("cost")]
WIDE = NUMBERS[NUMBERS.index("cost") + 1 :]
#: The columns of the sums, in the order of the tables.
COLUMNS = (*COUNTS, "cost_dollars", "cost_rest", *WIDE, *(f"{name}_high" for name in WIDE))

#: SQL for what a call adds to each sum.
OF_A_CALL = {
    "calls": "1",
    "requests": "attempt = 1",
    "unmeasured_calls": "total_tokens IS NULL AND cost_reason IS NOT 'not_billed'",
    "unpriced_calls": "estimated_cost IS NULL AND cost_reason IS NOT 'not_billed' AND cost_reason IS NOT 'synthetic'",
    "response_time_ms_count": "status = 'success' AND response_time_ms IS NOT NULL",
    "cost": "coalesce(estimated_cost, 0)",
    **{name: f"coalesce({name}, 0)" for name in WIDE},
    "response_time_ms_sum": "CASE status WHEN 'success' THEN coalesce(response_time_ms, 0) ELSE 0 END",
}
_BUCKETS = dict(zip(HISTOGRAMS, ("response_bucket", "first_token_bucket"), strict=True))


@dataclass(frozen=True, slots=True)
class Statement:
    """A statement that sums calls as whole numbers, and the same statement with sums in two parts."""

    plain: str
    exact: str

    @classmethod
    def of(cls, make: Callable[[bool], str]) -> Statement:
        """Return both statements; `make` gets whether the sums must be in two parts."""
        return cls(make(False), make(True))

    def run(self, connection: sqlite3.Connection, parameters: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        """Execute the plain statement, or the exact one if that overflows, and return its rows."""
        try:
            return connection.execute(self.plain, parameters).fetchall()
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_ERROR:
                raise
        return connection.execute(self.exact, parameters).fetchall()


def _start(time: str, length: int | str) -> str:
    """Return SQL for the start of the cell of that length that contains `time`, also before 1970."""
    return f"{time} - (({time} % {length}) + {length}) % {length}"


def cell_of_call(grain: int | str) -> str:
    """Return SQL for the start in seconds of the cell of `grain` that contains a call."""
    length = grain * SECOND if isinstance(grain, int) else f"({grain} * {SECOND})"
    return f"({_start('called_at', length)}) / {SECOND}"


_NAMES = ("provider", "model_name", "status")
_USER_KEYS = (f"{cell_of_call(DAY)} AS day", "origin", "coalesce(id_at_origin, '') AS id_at_origin", *_NAMES)


def _time_keys(grain: int | str) -> tuple[str, ...]:
    return (f"{grain} AS grain", f"{cell_of_call(grain)} AS start", "origin", *_NAMES)


def _dollars(units: str) -> str:
    """Return SQL for whole dollars, rounded down, also below zero."""
    return f"({units}) / {DOLLAR} - (({units}) % {DOLLAR} < 0)"


def _rest(units: str) -> str:
    """Return SQL for the rest beyond whole dollars, which is never negative."""
    return f"({units}) % {DOLLAR} + {DOLLAR} * (({units}) % {DOLLAR} < 0)"


def _sum_of_calls(name: str, is_exact: bool) -> dict[str, str]:
    """Return SQL for the columns of a sum of calls, by their names."""
    value = OF_A_CALL[name]
    if name in COUNTS:
        return {name: f"SUM({value})"}
    if name == "cost" and is_exact:
        rests = f"SUM({_rest(value)})"
        return {"cost_dollars": f"SUM({_dollars(value)}) + {rests} / {DOLLAR}", "cost_rest": f"{rests} % {DOLLAR}"}
    if name == "cost":
        return {"cost_dollars": _dollars(f"SUM({value})"), "cost_rest": _rest(f"SUM({value})")}
    if is_exact:
        lows = f"SUM({value} & {LOW})"
        return {name: f"{lows} & {LOW}", f"{name}_high": f"SUM({value} >> 32) + ({lows} >> 32)"}
    return {name: f"SUM({value}) & {LOW}", f"{name}_high": f"SUM({value}) >> 32"}


def _sum_of_rows(column: str) -> str:
    """Return SQL for a column of a sum of rows."""
    if column == "cost_dollars":
        return f"SUM(cost_dollars) + SUM(cost_rest) / {DOLLAR}"
    if column == "cost_rest":
        return f"SUM(cost_rest) % {DOLLAR}"
    if column in WIDE:
        return f"SUM({column}) & {LOW}"
    if column in COUNTS:
        return f"SUM({column})"
    return f"SUM({column}) + (SUM({column.removesuffix('_high')}) >> 32)"


def _changed(column: str, sign: str) -> str:
    """Return SQL that adds the column of `excluded` to that of a row, or subtracts it with the sign '-'."""
    both = f"{column} {sign} excluded.{column}"
    if column == "cost_dollars":
        rests = f"cost_rest {sign} excluded.cost_rest"
        return f"{both} + ({rests} >= {DOLLAR}) - ({rests} < 0)"
    if column == "cost_rest":
        return f"({both} + {DOLLAR}) % {DOLLAR}"
    if column in WIDE:
        return f"({both}) & {LOW}"
    if column in COUNTS:
        return both
    low = column.removesuffix("_high")
    return f"{both} + (({low} {sign} excluded.{low}) >> 32)"


def _new_histogram(text: str) -> str:
    """Return SQL for a new histogram from `text`, shortened if it is long."""
    return f"CASE WHEN length({text}) < {HISTOGRAM_STEP} THEN {text} ELSE llmbridge_shorten({text}) END"


def _changed_histogram(column: str, sign: str) -> str:
    """Return SQL that adds the histogram of `excluded` to that of a row, or subtracts it with the sign '-'. When added,
    it is appended, and the text is shortened each time it has grown by HISTOGRAM_STEP."""
    if sign == "-":
        taken = f"llmbridge_subtract({column}, excluded.{column})"
        return f"CASE WHEN excluded.{column} IS NULL THEN {column} ELSE {taken} END"
    steps = f"length({column}) / {HISTOGRAM_STEP}"
    steps_then = f"(length({column}) + length(excluded.{column})) / {HISTOGRAM_STEP}"
    return " ".join(
        (
            f"CASE WHEN {column} IS NULL OR excluded.{column} IS NULL THEN coalesce({column}, excluded.{column})",
            f"WHEN {steps} = {steps_then} THEN {column} || ',' || excluded.{column}",
            f"ELSE llmbridge_shorten({column} || ',' || excluded.{column}) END",
        )
    )


def _select(keys: Sequence[str], calls: str, is_exact: bool, numbers: Sequence[str] = NUMBERS) -> str:
    """Return the SELECT that computes rollups from calls, with the columns of `numbers`. `calls` is the text after
    FROM."""
    made = {column: sql for name in numbers for column, sql in _sum_of_calls(name, is_exact).items()}
    columns = [f"{made[column]} AS {column}" for column in COLUMNS if column in made]
    if numbers is NUMBERS:
        columns += [f"{_new_histogram(f'group_concat({bucket})')} AS {name}" for name, bucket in _BUCKETS.items()]
    groups = ", ".join(str(number + 1) for number in range(len(keys)))
    return " ".join(("SELECT", ", ".join((*keys, *columns)), "FROM", calls, "GROUP BY", groups))


def _upsert(table: str, select: str, sign: str = "+", columns: Sequence[str] = (*COLUMNS, *HISTOGRAMS)) -> str:
    """Return the statement that adds the rows of `select` to those of `table`, or subtracts them with the sign '-'."""
    changes = [
        f"{column} = {_changed_histogram(column, sign) if column in HISTOGRAMS else _changed(column, sign)}"
        for column in columns
    ]
    return " ".join(
        (
            f"INSERT INTO {table} (",
            ", ".join((*KEYS[table], *columns)),
            ")",
            select,
            "ON CONFLICT DO UPDATE SET",
            ", ".join(changes),
        )
    )


_ALL = ", ".join((*COLUMNS, *HISTOGRAMS))

# Folding a chunk of the tail. Its calls are added to the rows by user, and summed in a temporary table of cells: those
# of the finest grain from the calls, and those of each coarser grain from the finer one. Then all cells are added to
# the rows by time.
_TAIL = "llmbridge_calls NOT INDEXED WHERE number > :folded AND number <= :upto"
ADD_TO_USERS = Statement.of(lambda exact: _upsert(USERS, _select(_USER_KEYS, _TAIL, exact)))
MAKE_CELLS = f"CREATE TEMP TABLE IF NOT EXISTS llmbridge_cells ({', '.join(TIME_KEY)}, {_ALL})"
FILL_QUARTERS = Statement.of(
    lambda exact: f"INSERT INTO temp.llmbridge_cells {_select(_time_keys(QUARTER), _TAIL, exact)}"
)
FILL_COARSER = " ".join(
    (
        f"INSERT INTO temp.llmbridge_cells SELECT :grain, {_start('start', ':grain')},",
        "origin, provider, model_name, status,",
        ", ".join(
            (
                *(_sum_of_rows(column) for column in COLUMNS),
                *(_new_histogram(f"group_concat({column})") for column in HISTOGRAMS),
            )
        ),
        "FROM temp.llmbridge_cells WHERE grain = :finer GROUP BY 1, 2, 3, 4, 5, 6",
    )
)
ADD_TO_TIMES = _upsert(TIMES, "SELECT * FROM temp.llmbridge_cells WHERE true")
EMPTY_CELLS = "DELETE FROM temp.llmbridge_cells"

# Changing folded calls: they are subtracted from their rows, changed, and added again.
_CHOSEN = "llmbridge_calls WHERE number IN (SELECT value FROM json_each(:numbers)) AND number <= :folded"


def _change_users(sign: str) -> Statement:
    return Statement.of(lambda exact: _upsert(USERS, _select(_USER_KEYS, _CHOSEN, exact), sign))


def _change_costs(table: str, keys: Sequence[str], sign: str) -> Statement:
    columns = [column for name in PRICED for column in _sum_of_calls(name, is_exact=False)]
    columns.sort(key=COLUMNS.index)
    return Statement.of(lambda exact: _upsert(table, _select(keys, _CHOSEN, exact, PRICED), sign, columns))


CHANGE_USERS = {sign: _change_users(sign) for sign in "+-"}
CHANGE_COSTS_OF_USERS = {sign: _change_costs(USERS, _USER_KEYS, sign) for sign in "+-"}
CHANGE_COSTS_OF_TIMES = {sign: _change_costs(TIMES, _time_keys(":grain"), sign) for sign in "+-"}

# Computing rollups again.
_STORED = "llmbridge_calls WHERE called_at >= :first AND called_at < :last AND number <= :folded"
COUNT_USERS = Statement.of(lambda exact: _select(_USER_KEYS, _STORED, exact))
COUNT_TIMES = Statement.of(lambda exact: _select(_time_keys(":grain"), _STORED, exact))

# Reading, replacing and deleting whole rows.
ROW = {table: ", ".join((*key, _ALL)) for table, key in KEYS.items()}
PUT = {
    table: f"INSERT OR REPLACE INTO {table} ({row}) VALUES ({', '.join('?' * (row.count(',') + 1))})"  # noqa: S608
    for table, row in ROW.items()
}
DELETE = {
    table: f"DELETE FROM {table} WHERE {' AND '.join(f'{name} = ?' for name in key)}"  # noqa: S608  names of ours
    for table, key in KEYS.items()
}
DELETE_IF_EMPTY = {table: f"{delete} AND calls = 0" for table, delete in DELETE.items()}

_ONE_QUARTER = f"""
SELECT :grain, {_start("start", ":grain")}, origin, provider, model_name, status, {_ALL} FROM {TIMES}
WHERE grain = {QUARTER} AND start = :start
    AND (origin, provider, model_name, status) = (:origin, :provider, :model_name, :status)
"""  # noqa: S608  names of ours
#: Adds a row of a quarter of an hour to that of a coarser grain, or subtracts it.
CHANGE_COARSER = {sign: _upsert(TIMES, _ONE_QUARTER, sign) for sign in "+-"}

_NAMED_DAYS = f"""
SELECT day, origin, '', provider, model_name, status, {_ALL} FROM {USERS}
WHERE day IN (SELECT value FROM json_each(:days)) AND (origin, id_at_origin) = (:origin, :user)
"""  # noqa: S608  names of ours
#: Adds the rows of a user on some days to those without a user.
ADD_NAMED_DAYS = _upsert(USERS, _NAMED_DAYS)
