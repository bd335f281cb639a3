"""Templates in user-written SQL, for all dialects. Each backend splits a statement into the tokens of its dialect."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

_TEMPLATE = re.compile(r"\{\{\s*(?:(?P<schema>schema)|tables\.(?P<table>[A-Za-z_][A-Za-z0-9_]*))\s*\}\}")
_SPACE_AND_SEMICOLONS = frozenset(" \t\n\f\r;\ufeff")


@dataclass(frozen=True, slots=True)
class Token:
    """Piece of a SQL statement.

    The kinds `comment` and `template` have the same meaning in every dialect. A string literal or a quoted name is one
    token, so templates in it are not replaced.
    """

    kind: str
    text: str


def expand(found: Iterable[Token], *, schema: str, table: Callable[[str], str]) -> str:
    """Return the statement with `{{schema}}` and `{{tables.NAME}}` replaced by `schema` and `table(NAME)`.

    :raises ValueError: a template is neither of the two
    """
    return "".join(_expand(token.text, schema, table) if token.kind == "template" else token.text for token in found)


def refuse_transactions(found: Iterable[Token], words: Collection[str]) -> None:
    """Raise ValueError if the first word of a statement is one of `words`, which are in upper case."""
    meant = (token for token in found if token.kind != "comment" and token.text not in _SPACE_AND_SEMICOLONS)
    first = next(meant, None)
    word = first.text.lstrip("\ufeff").upper() if first else ""
    if word in words:
        raise ValueError(f"{word} is refused: each statement runs in its own transaction")


def _expand(template: str, schema: str, table: Callable[[str], str]) -> str:
    match = _TEMPLATE.fullmatch(template)
    if match is None:
        raise ValueError(f"{template} is not a valid template; known: {{{{schema}}}}, {{{{tables.NAME}}}}")
    return schema if match["schema"] else table(match["table"])
