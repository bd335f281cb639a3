"""What a schema already holds, read before anything is written to it."""

from __future__ import annotations

from dataclasses import dataclass

from llmbridge.storage import StorageRefusedError

from .connection import Connection

#: Tables of ours and a type, which are ours to change, and public views.
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
#: Tables of the versions that kept totals as packed text.
_OLD = ("llmbridge_totals", "llmbridge_user_totals")
_UPSTREAM = ("llm_models", "llm_api_calls")

_FIND = """
SELECT relname FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
WHERE nspname = $1 AND relname = ANY ($2::text[])
"""


@dataclass(frozen=True, slots=True)
class Findings:
    """`migrated`: the schema has our history. `lacking`: tables of ours that it does not have. `upstream`: it has the
    tables of llmbridge-py 0.2."""

    migrated: bool
    lacking: tuple[str, ...]
    upstream: bool


async def inspect(connection: Connection, name: str, where: str) -> Findings:
    """Read what the schema `name` has, without needing a right to it.

    :raises StorageRefusedError: something that is not ours bears one of our names, or the schema is of a version that
        this one does not read
    """
    found = {row["relname"] for row in await connection.fetch(_FIND, name, [*NAMES, *_OLD, *_UPSTREAM])}
    if HISTORY in found and found.intersection(_OLD):
        raise StorageRefusedError(
            f"the schema {name} of the PostgreSQL database {where} was made by a version of llmbridge-postgres before "
            "its first release, whose tables this one does not read; nothing was written. Copy it with `llmbridge "
            "storage copy`, run with the version before this one"
        )
    taken = sorted(found.intersection(NAMES))
    if taken and HISTORY not in found:
        raise StorageRefusedError(
            f"the schema {name} of the PostgreSQL database {where} has {', '.join(taken)}, which llmbridge did not "
            "make; nothing was written. Give the books a schema of their own with schema="
        )
    lacking = tuple(table for table in TABLES if table not in found)
    return Findings(HISTORY in found, lacking, found.issuperset(_UPSTREAM))
