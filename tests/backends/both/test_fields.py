"""Both backends store every field of the table of fields, in a column of a suitable type."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import llmbridge_postgres
import llmbridge_sqlite
from llmbridge._records.fields import FIELDS, Kind
from llmbridge_postgres import codec as postgres_codec
from llmbridge_sqlite import codec as sqlite_codec

SQLITE: dict[Kind, str] = {
    **dict.fromkeys(("name", "user", "text", "message", "choice", "texts", "json", "counts", "labels"), "TEXT"),
    **dict.fromkeys(("tokens", "ms", "ordinal", "integer", "flag", "money", "time"), "INTEGER"),
    "uuid": "BLOB",
    "number": "REAL",
}
POSTGRES: dict[Kind, str] = {
    **dict.fromkeys(("name", "user", "text", "message", "choice"), "text"),
    **dict.fromkeys(("tokens", "ms", "ordinal", "integer", "money"), "bigint"),
    **dict.fromkeys(("texts", "json", "counts", "labels"), "json"),
    "flag": "boolean",
    "time": "timestamptz",
    "uuid": "uuid",
    "number": "double precision",
}


def columns(package: object) -> dict[str, str]:
    """The columns of the table of calls in the first migration, with their types in small letters."""
    (migration,) = (Path(package.__path__[0]) / "migrations").glob("001*.sql")  # type: ignore[attr-defined]
    table = re.search(r"CREATE TABLE \S*llmbridge_calls\S* \((.*?)^\)", migration.read_text(), re.DOTALL | re.MULTILINE)
    assert table is not None
    return dict(re.findall(r"^    (\w+) ([a-zA-Z]+(?: precision)?)", table[1], re.MULTILINE))


@pytest.mark.parametrize("codec", [sqlite_codec, postgres_codec])
def test_a_codec_reads_and_writes_every_field(codec: object) -> None:
    assert set(codec.CALL_FIELDS) == set(FIELDS)  # type: ignore[attr-defined]
    buckets = {"response_bucket", "first_token_bucket"}
    assert set(codec.CALL_COLUMNS) == {*FIELDS, *buckets}  # type: ignore[attr-defined]


@pytest.mark.parametrize(("package", "types"), [(llmbridge_sqlite, SQLITE), (llmbridge_postgres, POSTGRES)])
def test_a_column_has_the_type_of_the_kind(package: object, types: dict[Kind, str]) -> None:
    found = columns(package)
    assert {name: found[name] for name in FIELDS} == {name: types[field.kind] for name, field in FIELDS.items()}
