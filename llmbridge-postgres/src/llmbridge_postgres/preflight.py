"""Inspection of a schema before anything is written to it."""

from __future__ import annotations

from dataclasses import dataclass

from llmbridge.storage import StorageRefusedError

from .connection import Connection

#: The tables and the type of llmbridge, which may change; `NAMES` has its public views too.
HISTORY = "llmbridge_migrations"
TABLES = (
    HISTORY,
    "llmbridge_schema",
    "llmbridge_calls",
    "llmbridge_lots",
    "llmbridge_models",
    "llmbridge_prices",
    "llmbridge_state",
    "llmbridge_usage_by_user",
    "llmbridge_usage_by_time",
    "llmbridge_incoming",
)
NAMES = (*TABLES, "call_log", "usage_summary", "usage_hours")
#: Tables of the versions that stored totals as packed text.
_OLD = ("llmbridge_totals", "llmbridge_user_totals")
_UPSTREAM = ("llm_models", "llm_api_calls")

_FIND = """
SELECT relname FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
WHERE nspname = $1 AND relname = ANY ($2::text[])
"""


@dataclass(frozen=True, slots=True)
class Findings:
    """The contents of a schema. `migrated`: it has llmbridge's history of migrations. `lacking`: the tables of
    llmbridge that it does not have. `upstream`: it has the tables of llmbridge-py 0.2."""

    migrated: bool
    lacking: tuple[str, ...]
    upstream: bool


async def inspect(connection: Connection, name: str, where: str) -> Findings:
    """Return what the schema `name` contains. This needs no privilege on the schema.

    :raises StorageRefusedError: the schema has objects of another application with names of llmbridge, or tables of a
        version that this one cannot read
    """
    found = {row["relname"] for row in await connection.fetch(_FIND, name, [*NAMES, *_OLD, *_UPSTREAM])}
    if HISTORY in found and found.intersection(_OLD):
        raise StorageRefusedError(
            f"the schema {name} of the PostgreSQL database {where} was created by a version of llmbridge-postgres "
            "before its first release, whose tables this version cannot read; nothing was written. Copy it with "
            "`llmbridge storage copy` of the previous version"
        )
    taken = sorted(found.intersection(NAMES))
    if taken and HISTORY not in found:
        raise StorageRefusedError(
            f"the schema {name} of the PostgreSQL database {where} has {', '.join(taken)}, which llmbridge did not "
            "create; nothing was written. Choose another schema with schema="
        )
    lacking = tuple(table for table in TABLES if table not in found)
    return Findings(HISTORY in found, lacking, found.issuperset(_UPSTREAM))
