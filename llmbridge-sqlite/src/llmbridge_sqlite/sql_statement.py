"""Parsing of SQL that users write, in SQLite's dialect.

Only templates are replaced. String literals, quoted names and comments are single tokens and are never changed. `$1` is
not changed either: for SQLite it is a named parameter, which may occur several times and in any order.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from llmbridge.storage.toolkit.sql_templates import Token, expand, refuse_transactions

SCHEMA = "main"

_TOKEN = re.compile(
    r"""
      (?P<comment>  --[^\n]* | /\*.*?(?:\*/|\Z) )
    | (?P<quoted>   '(?:[^']|'')*(?:'|\Z) | "(?:[^"]|"")*(?:"|\Z) | `(?:[^`]|``)*(?:`|\Z) | \[[^\]]*(?:\]|\Z) )
    | (?P<template> \{\{.*?\}\} )
    | (?P<numbered> \$[0-9]+ (?![\w$:(\x80-\U0010ffff]) )
    | (?P<mark>     \?(?![0-9]) )
    | (?P<named>    [$:@\#?][\w$\x80-\U0010ffff]+ (?: ::[\w$]+ )* )
    | (?P<word>     [A-Za-z_\x80-\U0010ffff][\w$\x80-\U0010ffff]* )
    | (?P<number>   [0-9][\w.]* )
    | (?P<other>    . )
    """,
    re.DOTALL | re.VERBOSE | re.ASCII,
)

_TRANSACTIONS = frozenset({"BEGIN", "COMMIT", "END", "ROLLBACK", "SAVEPOINT", "RELEASE"})


def tokens(query: str) -> Iterator[Token]:
    """Yield the tokens of `query`. Their joined texts are `query`."""
    for match in _TOKEN.finditer(query):
        yield Token(match.lastgroup or "other", match[0])


def prepare(query: str, args: tuple[Any, ...]) -> tuple[str, Any]:
    """Return the statement and the parameters that SQLite gets for `query` and `args`.

    :raises ValueError: the statement begins or ends a transaction, mixes `$1` with `?`, contains unknown parameters or
        templates, or does not have as many parameters as there are arguments
    """
    found = list(tokens(query))
    refuse_transactions(found, _TRANSACTIONS)
    values = [_bindable(value) for value in args]
    statement = expand(found, schema=SCHEMA, table='"{}"'.format)
    numbered = [token.text for token in found if token.kind == "numbered"]
    marks = sum(token.kind == "mark" for token in found)
    strange = sorted({token.text for token in found if token.kind == "named"})
    if strange:
        raise ValueError(f"unknown parameter {', '.join(strange)}: use $1, $2, … or ?")
    if numbered and marks:
        raise ValueError("a statement cannot mix $1, $2, … with ?: use one kind of parameter")
    if not numbered:
        _check_number(marks, len(values))
        return statement, values
    known = {f"${number}" for number in range(1, len(values) + 1)}
    missing = sorted(set(numbered) - known)
    if missing:
        raise ValueError(f"no argument for {', '.join(missing)}: {len(values)} were passed")
    _check_number(max(int(text[1:]) for text in numbered), len(values))
    return statement, {str(number): value for number, value in enumerate(values, start=1)}


def _check_number(wanted: int, given: int) -> None:
    if wanted != given:
        raise ValueError(f"the statement needs {wanted} arguments, {given} were passed")


def _bindable(value: Any) -> Any:
    """Convert a value to the form that the views have: money and ids as text, times as UTC text."""
    if isinstance(value, Decimal | UUID):
        return str(value)
    if isinstance(value, datetime):
        if value.utcoffset() is None:
            raise ValueError("a time has no time zone: pass an aware datetime")
        return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return value
