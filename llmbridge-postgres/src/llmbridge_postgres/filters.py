"""The filters of a question as conditions of SQL."""

from __future__ import annotations

from typing import Any

from llmbridge.storage import FILTER_FIELDS, GROUP_FIELDS, TAG_PREFIX, Filters

#: What a field of a question is in a row of `llmbridge_calls`, an allow-list of identifiers.
_COLUMNS = {name: name for name in (*FILTER_FIELDS, *GROUP_FIELDS)}


class Parameters:
    """The values of a statement, each known in its text by a number."""

    def __init__(self) -> None:
        self.values: list[Any] = []

    def add(self, value: Any, kind: str) -> str:
        """Take a value; give the text that stands for it, of the PostgreSQL type `kind`."""
        self.values.append(value)
        return f"${len(self.values)}::{kind}"


def expression(field: str, parameters: Parameters) -> str:
    """SQL for `field`. A tag is a top-level text as it is, a number or bool as its JSON text, else NULL."""
    if not field.startswith(TAG_PREFIX):
        return _COLUMNS[field]
    name = parameters.add(field.removeprefix(TAG_PREFIX), "text")
    kind = f"json_typeof(metadata -> {name})"
    return f"CASE WHEN {kind} IN ('string', 'number', 'boolean') THEN metadata ->> {name} END"


def conditions(filters: Filters, parameters: Parameters, *, by_origin: bool = True) -> list[str]:
    """Return one condition per filter, its accepted values as one array. One value alone is compared with `=`, by which
    PostgreSQL can follow the order of an index. Without `by_origin` it takes no index for the origin."""
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
