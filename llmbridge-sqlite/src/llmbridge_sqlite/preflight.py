"""Inspection of a database before anything is written to it."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from llmbridge.storage import StorageRefusedError

HISTORY = "migration_history"

#: The tables, views and indexes of llmbridge. The first four are public, the others may change.
NAMES = frozenset(
    {
        HISTORY,
        "usage_summary",
        "usage_hours",
        "call_log",
        "llmbridge_calls",
        "llmbridge_calls_by_time",
        "llmbridge_calls_by_user",
        "llmbridge_state",
        "llmbridge_usage_by_user",
        "llmbridge_usage_by_time",
        "llmbridge_models",
        "llmbridge_prices",
    }
)

#: The first migration of the versions that stored totals as packed text.
_IS_OF_OLD_BASELINE = "SELECT 1 FROM migration_history WHERE name = '001_books'"

_HISTORY_COLUMNS = {"id", "name", "checksum", "writable_from", "applied_at"}
_UPSTREAM_COLUMNS = {"id_at_origin", "model_id", "estimated_cost", "called_at"}


@dataclass(frozen=True, slots=True)
class Findings:
    """The contents of a database. `migrated`: it has llmbridge's history of migrations. `upstream`: it has the tables
    of llmbridge-py 0.2."""

    migrated: bool
    upstream: bool


def inspect(connection: sqlite3.Connection, where: str) -> Findings:
    """Return what the database contains.

    :raises StorageRefusedError: it has objects of another application with names of llmbridge, or tables of a version
        that this one cannot read
    :raises sqlite3.DatabaseError: the file is not a database, or it is damaged
    """
    kinds = {name.lower(): kind for name, kind in connection.execute("SELECT name, type FROM sqlite_master")}
    migrated = _columns(connection, HISTORY) >= _HISTORY_COLUMNS and kinds.get(HISTORY) == "table"
    taken = sorted(NAMES & kinds.keys())
    if taken and not migrated:
        raise StorageRefusedError(
            f"the SQLite database {where} has {', '.join(taken)}, which llmbridge did not create; nothing was written. "
            "Choose another file, or rename these objects"
        )
    if migrated and connection.execute(_IS_OF_OLD_BASELINE).fetchone():
        raise StorageRefusedError(
            f"the SQLite database {where} was created by a version of llmbridge-sqlite before its first release, whose "
            "tables this version cannot read; nothing was written. Copy it with `llmbridge storage copy` of the "
            "previous version"
        )
    if migrated:
        for table in sorted(name for name in NAMES if name.startswith("llmbridge_")):
            if kinds.get(table) == "table":
                connection.execute(f"SELECT 1 FROM {table} NOT INDEXED LIMIT 1").fetchall()  # noqa: S608  a name of ours
    return Findings(migrated, "models" in kinds and _columns(connection, "api_calls") >= _UPSTREAM_COLUMNS)


def _columns(connection: sqlite3.Connection, table: str) -> set[str]:
    return {name for (name,) in connection.execute("SELECT name FROM pragma_table_info(?)", (table,))}
