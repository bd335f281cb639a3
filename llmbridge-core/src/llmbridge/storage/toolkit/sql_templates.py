"""SQL that people write: what is the same in every dialect. The tokens of a dialect are its backend's to find."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

_TEMPLATE = re.compile(r"\{\{\s*(?:(?P<schema>schema)|tables\.(?P<table>[A-Za-z_][A-Za-z0-9_]*))\s*\}\}")
_SPACE_AND_SEMICOLONS = frozenset(" \t\n\f\r;\ufeff")


@dataclass(frozen=True, slots=True)
class Token:
    """A piece of SQL. Of its kinds `comment` and `template` mean the same in every dialect; into what is a token of
    its own, as a string literal is, nothing looks."""

    kind: str
    text: str


def expand(found: Iterable[Token], *, schema: str, table: Callable[[str], str]) -> str:
    """The statement of these tokens, with `{{schema}}` and `{{tables.NAME}}` replaced by `schema` and `table(NAME)`.

    :raises ValueError: a template is none of the two
    """
    return "".join(_expand(token.text, schema, table) if token.kind == "template" else token.text for token in found)


def refuse_transactions(found: Iterable[Token], words: Collection[str]) -> None:
    """Raise ValueError if the first word of a statement is among `words`, given in upper case."""
    meant = (token for token in found if token.kind != "comment" and token.text not in _SPACE_AND_SEMICOLONS)
    first = next(meant, None)
    word = first.text.lstrip("\ufeff").upper() if first else ""
    if word in words:
        raise ValueError(f"{word} is refused: every statement is committed by itself")


def _expand(template: str, schema: str, table: Callable[[str], str]) -> str:
    match = _TEMPLATE.fullmatch(template)
    if match is None:
        raise ValueError(f"{template} is no template; known: {{{{schema}}}}, {{{{tables.NAME}}}}")
    return schema if match["schema"] else table(match["table"])
