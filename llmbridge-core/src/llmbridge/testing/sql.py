"""Tests of `SQLAccess` [sql] and of the methods for monitoring [monitoring]."""

from __future__ import annotations

from typing import cast

import pytest

from ..errors import StorageClosedError, StorageError, UnsupportedOperationError
from ..storage.base import SQLAccess, StorageBackend
from .harness import Harness, Store, bare
from .records import make_call

_MONITORING = ("get_slow_queries", "get_query_metrics", "get_pool_stats")

_CREATE = "CREATE TABLE {{tables.kit_notes}} (id INTEGER PRIMARY KEY, body TEXT)"
_INSERT = "INSERT INTO {{tables.kit_notes}} (id, body) VALUES ($1, $2)"


class SQLContract(Harness):
    """`SQLAccess` and the methods for monitoring; a backend has them if and only if its plugin declares them."""

    @pytest.fixture
    def sql(self, store: Store, backend: StorageBackend) -> SQLAccess | None:
        """Return the backend as `SQLAccess`; None if it does not have the capability."""
        assert isinstance(bare(backend), SQLAccess) is ("sql" in store.capabilities)
        return cast("SQLAccess", backend) if "sql" in store.capabilities else None

    async def test_sql_is_there_if_and_only_if_it_is_declared(self, sql: SQLAccess | None) -> None:
        if sql is not None:
            assert await sql.fetch_value("SELECT 1") == 1

    async def test_rows_are_dicts_by_column(self, sql: SQLAccess | None) -> None:
        if sql is None:
            return
        await sql.execute(_CREATE)
        assert await sql.fetch_all("SELECT * FROM {{tables.kit_notes}}") == []
        assert await sql.fetch_one("SELECT * FROM {{tables.kit_notes}}") is None
        assert await sql.fetch_value("SELECT body FROM {{tables.kit_notes}}") is None
        assert await sql.execute_and_return_id(_INSERT, 7, "seven") == 7
        await sql.execute(_INSERT, 8, None)
        rows = await sql.fetch_all("SELECT id, body FROM {{tables.kit_notes}} ORDER BY id")
        assert rows == [{"id": 7, "body": "seven"}, {"id": 8, "body": None}]
        assert all(type(row) is dict for row in rows)
        assert await sql.fetch_one("SELECT body FROM {{tables.kit_notes}} WHERE id = $1", 7) == {"body": "seven"}
        assert await sql.fetch_value("SELECT COUNT(*) FROM {{tables.kit_notes}}") == 2

    async def test_numbered_parameters_are_reusable_in_any_order(self, sql: SQLAccess | None) -> None:
        if sql is None:
            return
        query = "SELECT CAST($2 AS TEXT) AS b, CAST($1 AS TEXT) AS a, CAST($1 AS TEXT) AS c, CAST($11 AS TEXT) AS d"
        middle = " ".join(f"AND CAST(${n} AS TEXT) IS NOT NULL" for n in range(3, 11))
        row = await sql.fetch_one(f"{query} WHERE 1 = 1 {middle}", *"abcdefghijk")
        assert row == {"b": "b", "a": "a", "c": "a", "d": "k"}

    async def test_literals_quoted_names_and_comments_are_not_touched(self, sql: SQLAccess | None) -> None:
        if sql is None:
            return
        text = "it''s $1, $2, {{tables.kit_notes}}, {{schema}} -- /* \""
        query = (
            f"SELECT '{text}' AS body, /* $3 ' {{{{tables.nothing}}}} */ "
            'CAST($1 AS TEXT) AS "$2 {{schema}}" -- $4 \''
        )
        row = await sql.fetch_one(query, "one")
        assert row == {"body": text.replace("''", "'"), "$2 {{schema}}": "one"}

    @pytest.mark.parametrize(
        "statement",
        [
            "BEGIN",
            "begin transaction",
            " COMMIT;",
            "ROLLBACK",
            "END",
            "-- a\nBEGIN",
            "/* a */ /* b */ commit",
            ";BEGIN",
        ],
    )
    async def test_transactions_are_refused(
        self, sql: SQLAccess | None, backend: StorageBackend, statement: str
    ) -> None:
        if sql is None:
            return
        for run in (sql.execute, sql.fetch_one, sql.fetch_all, sql.fetch_value, sql.execute_and_return_id):
            with pytest.raises(ValueError, match=r".+"):
                await run(statement)
        assert (await backend.record_calls([make_call()])).inserted == 1

    async def test_a_failing_statement_is_an_error_of_the_contract(
        self, sql: SQLAccess | None, backend: StorageBackend
    ) -> None:
        if sql is None:
            return
        await sql.execute(_CREATE)
        await sql.execute(_INSERT, 1, "first")
        for statement in (
            "SELECT FROM WHERE",
            "SELECT * FROM kit_absent",
            "INSERT INTO {{tables.kit_notes}} (id) VALUES (1)",
        ):
            with pytest.raises((StorageError, ValueError)):
                await sql.execute(statement)
        assert await sql.fetch_value("SELECT COUNT(*) FROM {{tables.kit_notes}}") == 1
        assert (await backend.record_calls([make_call()])).inserted == 1

    async def test_sql_needs_an_open_store(self, sql: SQLAccess | None, backend: StorageBackend) -> None:
        await backend.disconnect()
        if sql is None:
            return
        for run in (sql.execute, sql.fetch_one, sql.fetch_all, sql.fetch_value, sql.execute_and_return_id):
            with pytest.raises(StorageClosedError):
                await run("SELECT 1")

    async def test_monitoring_answers_if_and_only_if_it_is_declared(
        self, store: Store, backend: StorageBackend
    ) -> None:
        for name in _MONITORING:
            method = getattr(backend, name, None)
            if "monitoring" in store.capabilities:
                assert callable(method), f"monitoring is declared, but there is no {name}()"
            elif method is not None:
                with pytest.raises(UnsupportedOperationError):
                    await method()
