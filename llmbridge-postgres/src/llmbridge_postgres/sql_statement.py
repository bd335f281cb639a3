"""Parsing of SQL that users write, in PostgreSQL's dialect.

Only templates are replaced. String literals, quoted names and comments are single tokens and are never changed. `$1` is
PostgreSQL's own syntax and is not changed either.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from llmbridge.storage.toolkit.sql_templates import Token, expand, refuse_transactions

_TOKEN = re.compile(
    r"""
      (?P<comment>  --[^\n]* )
    | (?P<quoted>   [eE]'(?:[^'\\]|''|\\.)*(?:'|\Z) | '(?:[^']|'')*(?:'|\Z) | "(?:[^"]|"")*(?:"|\Z)
                  | (?P<dollar>\$(?:[A-Za-z_\x80-\U0010ffff][\w\x80-\U0010ffff]*)?\$) .*? (?:(?P=dollar)|\Z) )
    | (?P<template> \{\{.*?\}\} )
    | (?P<word>     [A-Za-z_\x80-\U0010ffff][\w$\x80-\U0010ffff]* )
    | (?P<number>   [0-9][\w.]* )
    | (?P<other>    . )
    """,
    re.DOTALL | re.VERBOSE | re.ASCII,
)
_COMMENT_EDGE = re.compile(r"/\*|\*/")

_TRANSACTIONS = frozenset({"BEGIN", "START", "COMMIT", "END", "ROLLBACK", "ABORT", "SAVEPOINT", "RELEASE"})


def tokens(query: str) -> Iterator[Token]:
    """Yield the tokens of `query`. Their joined texts are `query`."""
    start = 0
    while start < len(query):
        if query.startswith("/*", start):
            end, kind = _comment_end(query, start), "comment"
        else:
            match = _TOKEN.match(query, start)
            assert match is not None, "a token is at least one character"  # noqa: S101
            end = match.end()
            kind = next(name for name, text in match.groupdict().items() if text is not None)
        yield Token(kind, query[start:end])
        start = end


def prepare(query: str, *, schema: str, table: Callable[[str], str]) -> str:
    """Return the statement that is sent to PostgreSQL for `query`.

    :raises ValueError: the statement begins or ends a transaction, or contains an unknown template
    """
    found = list(tokens(query))
    refuse_transactions(found, _TRANSACTIONS)
    return expand(found, schema=schema, table=table)


def returning_id(statement: str) -> str:
    """Return `statement` with `RETURNING id`, unless it has a RETURNING clause."""
    found = list(tokens(statement))
    if any(token.kind == "word" and token.text.upper() == "RETURNING" for token in found):
        return statement
    while found and (found[-1].kind == "comment" or found[-1].text.isspace() or found[-1].text == ";"):
        found.pop()
    return "".join(token.text for token in found) + " RETURNING id"


def _comment_end(query: str, start: int) -> int:
    """Return the end of the comment that begins at `start`. In PostgreSQL, comments can be nested."""
    depth = 0
    for edge in _COMMENT_EDGE.finditer(query, start):
        depth += 1 if edge[0] == "/*" else -1
        if depth == 0:
            return edge.end()
    return len(query)
