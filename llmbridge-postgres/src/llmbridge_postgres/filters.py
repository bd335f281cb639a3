"""Filters of a query as SQL conditions."""

from __future__ import annotations

from typing import Any

from llmbridge.storage import FILTER_FIELDS, GROUP_FIELDS, TAG_PREFIX, Filters

#: The column of `llmbridge_calls` for each field: the allow-list of identifiers.
_COLUMNS = {name: name for name in (*FILTER_FIELDS, *GROUP_FIELDS)}


class Parameters:
    """The numbered parameters of a statement."""

    def __init__(self) -> None:
        self.values: list[Any] = []

    def add(self, value: Any, kind: str) -> str:
        """Add a value of the PostgreSQL type `kind`, and return the text that stands for it in the statement."""
        self.values.append(value)
        return f"${len(self.values)}::{kind}"


def expression(field: str, parameters: Parameters) -> str:
    """Return SQL for `field`. The value of a tag is a text without change, a number or a bool as JSON text, else
    NULL."""
    if not field.startswith(TAG_PREFIX):
        return _COLUMNS[field]
    name = parameters.add(field.removeprefix(TAG_PREFIX), "text")
    kind = f"json_typeof(metadata -> {name})"
    return f"CASE WHEN {kind} IN ('string', 'number', 'boolean') THEN metadata ->> {name} END"


def conditions(filters: Filters, parameters: Parameters, *, by_origin: bool = True) -> list[str]:
    """Return one condition for each filter. The accepted values are one array; a single value is compared with `=`, so
    that PostgreSQL can use the order of an index. Without `by_origin`, it uses no index on the origin."""
    made = []
    for field, accepted in filters.items():
        column = expression(field, parameters)
        if field == "origin" and not by_origin:
            column = f"{column} || ''"
        if len(accepted) == 1 and accepted[0] is not None:
            made.append(f"({column}) = {parameters.add(accepted[0], 'text')}")
            continue
        values = parameters.add([value for value in accepted if value is not None], "text[]")
        condition = f"({column}) = ANY ({values})"
        made.append(f"({condition} OR ({column}) IS NULL)" if None in accepted else condition)
    return made
