"""SQL of users, in PostgreSQL's own dialect."""

from __future__ import annotations

import pytest

from llmbridge.errors import StorageError
from llmbridge.testing import make_call
from llmbridge_postgres import PostgreSQLBackend
from llmbridge_postgres.sql_statement import prepare, returning_id, tokens


def prepared(query: str) -> str:
    return prepare(query, schema="S", table=lambda name: f"S.{name}")


@pytest.mark.parametrize(
    "text",
    [
        "'{{schema}}'",
        "'it''s {{schema}}'",
        "E'\\' {{schema}}'",
        "e'{{schema}}'",
        "$${{schema}}$$",
        "$body$ $$ {{schema}} ' $body$",
        '"{{schema}}"',
        "-- {{schema}}",
        "/* {{schema}} */",
        "/* /* nested */ {{schema}} */",
        "/* {{schema}} never closed",
        "'{{schema}} never closed",
    ],
)
def test_literals_quoted_names_and_comments_stay_as_they_are(text: str) -> None:
    assert prepared(f"SELECT {text}") == f"SELECT {text}"
    assert "".join(token.text for token in tokens(f"SELECT {text}")) == f"SELECT {text}"


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("SELECT * FROM {{tables.a}} JOIN {{ tables.b }} ON true", "SELECT * FROM S.a JOIN S.b ON true"),
        ("SELECT '{{schema}}', {{schema}}.f($1, $1)", "SELECT '{{schema}}', S.f($1, $1)"),
        (
            "SELECT a[1], b ? 'k', $1::jsonb #> '{x}' FROM {{tables.t}}",
            "SELECT a[1], b ? 'k', $1::jsonb #> '{x}' FROM S.t",
        ),
        ("SELECT 1 /* a /* b */ c */ + {{tables.t}}.x", "SELECT 1 /* a /* b */ c */ + S.t.x"),
        ("SELECT name'x', {{schema}}", "SELECT name'x', S"),
    ],
)
def test_templates_outside_of_them_are_replaced(query: str, expected: str) -> None:
    assert prepared(query) == expected


@pytest.mark.parametrize("query", ["SELECT {{table.a}}", "SELECT {{tables.a-b}}", "SELECT {{}}"])
def test_unknown_templates_are_refused(query: str) -> None:
    with pytest.raises(ValueError, match="is not a valid template"):
        prepared(query)


@pytest.mark.parametrize("word", ["START TRANSACTION", "ABORT", "SAVEPOINT a", "RELEASE a", "/* /* */ */ BEGIN"])
def test_transactions_are_refused(word: str) -> None:
    with pytest.raises(ValueError, match="runs in its own transaction"):
        prepared(word)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("INSERT INTO a VALUES (1)", "INSERT INTO a VALUES (1) RETURNING id"),
        ("INSERT INTO a VALUES (1) ; -- done", "INSERT INTO a VALUES (1) RETURNING id"),
        ("INSERT INTO a VALUES ('returning')", "INSERT INTO a VALUES ('returning') RETURNING id"),
        ("INSERT INTO a VALUES (1) returning b", "INSERT INTO a VALUES (1) returning b"),
    ],
)
def test_an_insert_gives_back_its_id(query: str, expected: str) -> None:
    assert returning_id(query) == expected


async def test_several_statements_at_once_are_refused(backend: PostgreSQLBackend) -> None:
    with pytest.raises(ValueError, match="one statement"):
        await backend.execute("SELECT 1; BEGIN")
    assert (await backend.record_calls([make_call()])).inserted == 1


async def test_the_number_of_arguments_must_fit(backend: PostgreSQLBackend) -> None:
    with pytest.raises(ValueError, match="expects 1 argument"):
        await backend.fetch_value("SELECT $1::int")


async def test_settings_of_a_statement_have_no_effect_on_later_ones(url: str) -> None:
    async with PostgreSQLBackend(url, max_connections=1) as backend:
        await backend.execute("SET search_path TO pg_catalog")
        assert await backend.fetch_value("SHOW search_path") != "pg_catalog"


async def test_an_identity_column_gives_its_id(backend: PostgreSQLBackend) -> None:
    await backend.execute(
        "CREATE TABLE {{tables.notes}} (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, body text)"
    )
    for expected in (1, 2):
        assert await backend.execute_and_return_id("INSERT INTO {{tables.notes}} (body) VALUES ($1)", "x") == expected
    with pytest.raises(StorageError, match="no id"):
        await backend.execute_and_return_id("INSERT INTO {{tables.notes}} (body) SELECT 'x' WHERE false")


async def test_a_wrong_statement_says_what_is_wrong(backend: PostgreSQLBackend) -> None:
    with pytest.raises(StorageError, match='column "nothing" does not exist'):
        await backend.fetch_all("SELECT nothing FROM {{tables.llmbridge_calls}}")
