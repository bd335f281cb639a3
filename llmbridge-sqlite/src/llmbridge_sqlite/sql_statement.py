"""SQL that people write: its tokens, parameters and templates.

Nothing is changed but templates; string literals, quoted names and comments are tokens of their own, into which
nothing looks. `$1` stays as it is, since SQLite takes it for a named parameter: it is bound by its name, so in
whatever order and as often as it occurs.
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
    """The tokens of `query`; their texts joined are `query`."""
    for match in _TOKEN.finditer(query):
        yield Token(match.lastgroup or "other", match[0])


def prepare(query: str, args: tuple[Any, ...]) -> tuple[str, Any]:
    """What SQLite is given for `query` and `args`: the statement, and its parameters.

    :raises ValueError: the statement begins or ends a transaction, mixes `$1` with `?`, has parameters or
        templates that are not known, or not as many as there are arguments
    """
    found = list(tokens(query))
    refuse_transactions(found, _TRANSACTIONS)
    values = [_bindable(value) for value in args]
    statement = expand(found, schema=SCHEMA, table='"{}"'.format)
    numbered = [token.text for token in found if token.kind == "numbered"]
    marks = sum(token.kind == "mark" for token in found)
    strange = sorted({token.text for token in found if token.kind == "named"})
    if strange:
        raise ValueError(f"parameters are $1, $2, … or ?, not {', '.join(strange)}")
    if numbered and marks:
        raise ValueError("a statement takes either $1, $2, … or ?, not both")
    if not numbered:
        _check_number(marks, len(values))
        return statement, values
    known = {f"${number}" for number in range(1, len(values) + 1)}
    missing = sorted(set(numbered) - known)
    if missing:
        raise ValueError(f"{', '.join(missing)} has no argument; there are {len(values)}")
    _check_number(max(int(text[1:]) for text in numbered), len(values))
    return statement, {str(number): value for number, value in enumerate(values, start=1)}


def _check_number(wanted: int, given: int) -> None:
    if wanted != given:
        raise ValueError(f"the statement takes {wanted} arguments, {given} were given")


def _bindable(value: Any) -> Any:
    """A value as the views show it: money and ids as text, time as UTC text."""
    if isinstance(value, Decimal | UUID):
        return str(value)
    if isinstance(value, datetime):
        if value.utcoffset() is None:
            raise ValueError("a time needs a time zone")
        return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return value
