"""Filters of a query as SQL conditions."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from llmbridge.storage import FILTER_FIELDS, GROUP_FIELDS, TAG_PREFIX
from llmbridge.storage.reference import tag_value

#: The column of `llmbridge_calls` for each field: the allow-list of identifiers.
_COLUMNS = {name: name for name in (*FILTER_FIELDS, *GROUP_FIELDS)}


def expression(field: str, parameters: dict[str, Any], parameter: str) -> str:
    """Return SQL for `field`. The name of a tag is added to `parameters` as `parameter`."""
    if not field.startswith(TAG_PREFIX):
        return _COLUMNS[field]
    parameters[parameter] = field.removeprefix(TAG_PREFIX)
    return f"llmbridge_tag(metadata, :{parameter})"


def conditions(
    filters: Mapping[str, Sequence[str | None]], parameters: dict[str, Any], *, prefix: str = ""
) -> list[str]:
    """Return one condition for each filter. Accepted values are added to `parameters`, as one JSON array for each
    filter; a single value is compared with `=`, so that SQLite can use the order of an index. `prefix` is put before
    each column: a table and a dot, or `+`, which keeps SQLite from choosing an index because of the condition."""
    made = []
    for number, (field, accepted) in enumerate(filters.items()):
        column = prefix + expression(field, parameters, "filter_tag")
        if len(accepted) == 1 and accepted[0] is not None:
            parameters[f"accepted_{number}"] = accepted[0]
            made.append(f"{column} = :accepted_{number}")
            continue
        parameters[f"accepted_{number}"] = json.dumps([value for value in accepted if value is not None])
        condition = f"{column} IN (SELECT value FROM json_each(:accepted_{number}))"  # noqa: S608  allow-listed
        made.append(f"({condition} OR {column} IS NULL)" if None in accepted else condition)
    return made


def define_tag(connection: sqlite3.Connection) -> None:
    """Define the SQL function that `expression` uses for tags."""
    connection.create_function("llmbridge_tag", 2, _tag, deterministic=True)


@lru_cache(maxsize=1024)
def _tag(metadata: str | None, name: str) -> str | None:
    entries: Mapping[str, Any] | None = None if metadata is None else json.loads(metadata)
    return tag_value(entries, name)
