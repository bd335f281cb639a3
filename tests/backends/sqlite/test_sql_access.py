"""SQL of users: parameters, templates, and one committed statement at a time."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from decimal import Decimal
from uuid import UUID

import pytest

from llmbridge.storage import ConstraintError, RecordRejectedError, StorageError
from llmbridge.testing import make_call
from llmbridge_sqlite import SQLiteBackend
from llmbridge_sqlite.sql_statement import prepare, tokens


@pytest.fixture
async def sql():
    async with SQLiteBackend(":memory:") as backend:
        await backend.execute("CREATE TABLE notes (id INTEGER PRIMARY KEY, body TEXT UNIQUE)")
        yield backend


async def test_the_proposal_runs_as_written():
    backend = SQLiteBackend(":memory:")
    await backend.connect()
    await backend.execute("""
        CREATE TABLE test (id INTEGER PRIMARY KEY, name TEXT)
    """)
    id = await backend.execute_and_return_id("INSERT INTO test (name) VALUES (?)", "test_value")  # noqa: A001
    assert id == 1
    result = await backend.fetch_one("SELECT * FROM test WHERE id = ?", 1)
    assert result["name"] == "test_value"
    await backend.disconnect()


async def test_numbers_bind_whatever_their_order(sql):
    assert await sql.fetch_one("SELECT $2 AS b, $1 AS a, $1 AS again", "one", "two") == {
        "b": "two",
        "a": "one",
        "again": "one",
    }


@pytest.mark.parametrize(
    ("query", "args"),
    [
        ("SELECT $1, ?", (1, 2)),
        ("SELECT $1", ()),
        ("SELECT $1", (1, 2)),
        ("SELECT $0", (1,)),
        ("SELECT $01", (1,)),
        ("SELECT ?", ()),
        ("SELECT ?2", (1, 2)),
        ("SELECT :name", (1,)),
        ("SELECT @name", (1,)),
        ("SELECT $name", (1,)),
        ("SELECT $1::text", (1,)),
        ("SELECT 1", (1,)),
        ("SELECT {{nothing}}", ()),
        ("SELECT * FROM {{tables.a b}}", ()),
        ("SELECT 1; SELECT 2", ()),
        ("SELECT $1", (datetime(2024, 1, 1),)),
    ],
)
async def test_parameters_and_templates_that_do_not_fit_are_value_errors(sql, query, args):
    with pytest.raises(ValueError, match=r".+"):
        await sql.fetch_all(query, *args)


@pytest.mark.parametrize(
    "kept", ["'$1 ? {{schema}}'", '"$1 ?"', "`$1 ?`", "[$1 ?]", "/* $1 ? */ 1", "-- $1 ?\n1", "'it''s $1'"]
)
def test_literals_names_and_comments_are_one_token(kept):
    assert prepare(f"SELECT {kept} AS x, $1", (5,)) == (f"SELECT {kept} AS x, $1", {"1": 5})


@pytest.mark.parametrize(
    "query", ["", "SELECT 'unfinished $1", "/* unfinished ?", 'SELECT a$1, \U0001f600$1 FROM "x', "5$1e 1.5e3"]
)
def test_the_tokens_joined_are_the_query(query):
    assert "".join(token.text for token in tokens(query)) == query


async def test_templates_name_the_schema_and_its_tables(sql):
    await sql.execute("INSERT INTO {{tables.notes}} (body) VALUES ($1)", "a")
    assert await sql.fetch_value("SELECT body FROM {{schema}}.notes") == "a"
    assert await sql.fetch_value("SELECT '{{tables.notes}}'") == "{{tables.notes}}"


@pytest.mark.parametrize(
    "statement",
    [
        "BEGIN",
        "begin immediate",
        "\n\t COMMIT",
        "-- x\nROLLBACK",
        "/* x */END",
        "SAVEPOINT a",
        "RELEASE a",
        ";;BEGIN",
        "\ufeffBEGIN",
    ],
)
async def test_transactions_are_refused(sql, statement):
    with pytest.raises(ValueError, match="refused"):
        await sql.execute(statement)


async def test_each_statement_is_committed(backend, other):
    await backend.execute("CREATE TABLE notes (body)")
    await backend.fetch_one("INSERT INTO notes VALUES ($1), ($2) RETURNING body", "a", "b")
    assert [row["body"] for row in other().execute("SELECT body FROM notes")] == ["a", "b"]


async def test_the_id_of_a_new_row_is_what_was_returned_or_the_last(sql):
    assert await sql.execute_and_return_id("INSERT INTO notes (id, body) VALUES (7, 'a') RETURNING body, id") == 7
    assert await sql.execute_and_return_id("INSERT INTO notes (body) VALUES ('b') RETURNING id * 10") == 80
    assert await sql.execute_and_return_id("/* x */ INSERT INTO notes (body) VALUES ('c')") == 9
    assert await sql.execute_and_return_id("WITH x AS (SELECT 'd') INSERT INTO notes (body) SELECT * FROM x") == 10


async def test_no_new_row_has_no_id(sql):
    await sql.execute("INSERT INTO notes (body) VALUES ('a')")
    with pytest.raises(StorageError, match="no row"):
        await sql.execute_and_return_id("INSERT INTO notes (body) VALUES ('a') ON CONFLICT DO NOTHING")


async def test_money_ids_and_times_are_bound_as_the_views_show_them(backend):
    call = make_call(estimated_cost=Decimal("0.10"))
    await backend.record_calls([call])
    at = call.called_at.astimezone(timezone(timedelta(hours=5)))
    row = await backend.fetch_one("SELECT * FROM call_log WHERE id = $1 AND called_at = $2", call.id, at)
    assert row["estimated_cost"] == "0.1"
    assert await backend.fetch_value("SELECT $1", Decimal("0.10")) == "0.10"
    assert await backend.fetch_value("SELECT $1", UUID(int=1)) == str(UUID(int=1))


@pytest.mark.parametrize("value", [2**63, "\ud800", object(), [1]])
async def test_values_that_sqlite_cannot_hold_are_rejected(sql, value):
    with pytest.raises(RecordRejectedError):
        await sql.execute("INSERT INTO notes (body) VALUES ($1)", value)


async def test_a_violated_constraint_and_wrong_sql_are_errors(sql):
    await sql.execute("INSERT INTO notes (body) VALUES ('a')")
    with pytest.raises(ConstraintError, match="UNIQUE"):
        await sql.execute("INSERT INTO notes (body) VALUES ('a')")
    with pytest.raises(StorageError, match="syntax"):
        await sql.execute("SELEC 1")
    assert await sql.fetch_value("SELECT COUNT(*) FROM notes") == 1
