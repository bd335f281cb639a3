"""Backends with defects in SQLAccess."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Sequence
from typing import Any

from defects import CAPABILITIES, caught_by, contracts

from llmbridge.storage import SQLAccess, StorageRefusedError
from llmbridge.storage.memory import MemoryBackend
from llmbridge.testing.sql import SQLContract


@caught_by(SQLContract)
class Speaking(MemoryBackend, SQLAccess):
    """Sound, and speaks SQL, to a database that has nothing to do with the books."""

    declared = CAPABILITIES | {"sql"}

    _TOKEN = re.compile(
        r"""'(?:[^']|'')*' | "[^"]*" | --[^\n]* | /\*.*?\*/ | \$(?P<number>\d+) | {{tables\.(?P<table>\w+)}}""",
        re.S | re.X,
    )
    _TRANSACTION = re.compile(r"(?:\s|;|--[^\n]*\n|/\*.*?\*/)*(?:BEGIN|COMMIT|END|ROLLBACK)\b", re.S | re.I)

    def __init__(self) -> None:
        super().__init__()
        self._sql: sqlite3.Connection | None = None

    async def connect(self) -> None:
        await super().connect()
        if self._sql is None:
            self._sql = sqlite3.connect(":memory:", isolation_level=None)
            self._sql.row_factory = sqlite3.Row

    async def disconnect(self) -> None:
        await super().disconnect()
        if self._sql is not None:
            self._sql.close()
            self._sql = None

    def is_refused(self, query: str) -> bool:
        return self._TRANSACTION.match(query) is not None

    def render(self, query: str) -> str:
        def native(token: re.Match[str]) -> str:
            return token["table"] or (f":p{token['number']}" if token["number"] else token[0])

        return self._TOKEN.sub(native, query)

    def _run(self, query: str, args: Sequence[Any]) -> sqlite3.Cursor:
        if self._open and self.is_refused(query):
            raise ValueError("transactions are not for SQLAccess")
        assert self._sql is not None
        statement = self.render(query)
        named = {f"p{number}": value for number, value in enumerate(args, start=1)}
        try:
            return self._sql.execute(statement, named if ":p" in statement else args)
        except sqlite3.Error as error:
            raise StorageRefusedError(f"the database refused a statement: {error}") from error

    async def execute(self, query: str, *args: Any) -> None:
        self._run(query, args)

    async def fetch_all(self, query: str, *args: Any) -> list[dict[str, Any]]:
        return [dict(row) for row in self._run(query, args)]

    async def fetch_one(self, query: str, *args: Any) -> dict[str, Any] | None:
        return next(iter(await self.fetch_all(query, *args)), None)

    async def fetch_value(self, query: str, *args: Any) -> Any:
        row = await self.fetch_one(query, *args)
        return next(iter(row.values())) if row else None

    async def execute_and_return_id(self, query: str, *args: Any) -> int:
        return self._run(query, args).lastrowid or 0


@caught_by(SQLContract, "literals_quoted_names_and_comments_are_not_touched")
class BlindTemplates(Speaking):
    """Templates are filled in wherever they stand."""

    def render(self, query: str) -> str:
        return super().render(re.sub(r"{{tables\.(\w+)}}", r"\1", query))


@caught_by(SQLContract, "numbered_parameters_are_reusable_in_any_order")
class PositionalParameters(Speaking):
    """Parameters are bound in the order in which they appear."""

    def render(self, query: str) -> str:
        return re.sub(r":p\d+", "?", super().render(query))


@caught_by(SQLContract, "transactions_are_refused")
class OpenTransactions(Speaking):
    """A statement that begins with a comment may begin a transaction."""

    def is_refused(self, query: str) -> bool:
        return not query.startswith(("--", "/*")) and super().is_refused(query)


@caught_by(SQLContract, "rows_are_dicts_by_column")
class NativeRows(Speaking):
    """Rows come as the driver makes them."""

    async def fetch_all(self, query: str, *args: Any) -> list[Any]:
        return list(self._run(query, args))

    async def fetch_one(self, query: str, *args: Any) -> dict[str, Any] | None:
        return next((dict(row) for row in self._run(query, args)), None)


@caught_by(SQLContract, "a_failing_statement_is_an_error_of_the_contract")
class LeakingSQL(Speaking):
    """What the driver thinks of a statement, its own exception says."""

    async def execute(self, query: str, *args: Any) -> None:
        try:
            await super().execute(query, *args)
        except StorageRefusedError as error:
            raise error.__cause__ or error from None


@caught_by(
    SQLContract,
    "sql_is_there_if_and_only_if_it_is_declared",
    "rows_are_dicts_by_column",
    "numbered_parameters_are_reusable_in_any_order",
    "literals_quoted_names_and_comments_are_not_touched",
    "transactions_are_refused",
    "a_failing_statement_is_an_error_of_the_contract",
    "sql_needs_an_open_store",
)
class UndeclaredSQL(Speaking):
    """It speaks SQL, and its plugin does not say so."""

    declared = CAPABILITIES


globals().update(contracts(__name__))
