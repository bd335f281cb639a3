"""Templates in SQL of users, in every dialect."""

from __future__ import annotations

import pytest

from llmbridge.storage.toolkit.sql_templates import Token, expand, refuse_transactions

WORDS = frozenset({"BEGIN", "COMMIT"})


def expanded(*found: Token) -> str:
    return expand(found, schema="S", table=lambda name: f"S.{name}")


@pytest.mark.parametrize(
    ("template", "expected"),
    [("{{schema}}", "S"), ("{{ schema }}", "S"), ("{{tables.calls}}", "S.calls"), ("{{ tables._a1 }}", "S._a1")],
)
def test_templates_are_replaced(template: str, expected: str) -> None:
    assert expanded(Token("word", "SELECT"), Token("other", " "), Token("template", template)) == f"SELECT {expected}"


@pytest.mark.parametrize("kind", ["comment", "quoted", "word", "other"])
def test_other_tokens_stay_as_they_are(kind: str) -> None:
    assert expanded(Token(kind, "{{schema}}")) == "{{schema}}"


@pytest.mark.parametrize(
    "template", ["{{}}", "{{tables}}", "{{tables.}}", "{{tables.a.b}}", "{{tables.1}}", "{{Schema}}"]
)
def test_unknown_templates_are_refused_and_told_which_there_are(template: str) -> None:
    with pytest.raises(ValueError, match=r"known: \{\{schema\}\}"):
        expanded(Token("template", template))


@pytest.mark.parametrize(
    "before",
    [(), (Token("comment", "-- a"), Token("other", "\n")), (Token("other", ";"),), (Token("other", "\ufeff"),)],
)
def test_a_transaction_is_refused_whatever_stands_before_it(before: tuple[Token, ...]) -> None:
    with pytest.raises(ValueError, match="BEGIN is refused"):
        refuse_transactions([*before, Token("word", "begin")], WORDS)


@pytest.mark.parametrize("first", ["SELECT", "BEGINNING", ""])
def test_other_statements_are_not(first: str) -> None:
    refuse_transactions([Token("word", first), Token("other", " "), Token("word", "BEGIN")], WORDS)
    refuse_transactions([], WORDS)
