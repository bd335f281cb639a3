"""Storing and listing of models and own prices. Rows are written in the order of their keys, so that writers cannot
deadlock."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from llmbridge.storage import LLMModel, ModelPrice, UpsertResult

from . import schema
from .codec import (
    JSON_COLUMNS,
    MODEL_COLUMNS,
    PRICE_COLUMNS,
    by_column,
    decode_model,
    decode_price,
    encode_model,
    encode_price,
)
from .connection import Connection


def _values(number: int, name: str, kind: str) -> str:
    values = f"unnest(${number}::{kind}[])"
    return f"{values}::json" if name in JSON_COLUMNS else values


def _upsert(table: str, columns: Mapping[str, str], key: Sequence[str], kept: Sequence[str] = ()) -> str:
    replaced = [f"{name} = excluded.{name}" for name in columns if name not in key and name not in kept]
    return " ".join(
        (
            f"INSERT INTO {{{{tables.{table}}}}} (",
            ", ".join(columns),
            ") SELECT",
            ", ".join(_values(number, *column) for number, column in enumerate(columns.items(), start=1)),
            "ON CONFLICT (",
            ", ".join(key),
            ") DO UPDATE SET",
            ", ".join(replaced),
            # xmax is 0 in a row that was inserted, and the id of this transaction in one that was replaced.
            "RETURNING (xmax = 0) AS inserted",
        )
    )


_UPSERT_MODELS = _upsert("llmbridge_models", MODEL_COLUMNS, ("provider", "model_name"), kept=["created_at"])
_UPSERT_PRICES = _upsert("llmbridge_prices", PRICE_COLUMNS, ("provider", "model_name", "context", "effective_from"))
_LIST_MODELS = " ".join(
    (
        "SELECT",
        ", ".join(MODEL_COLUMNS),
        """
        FROM {{tables.llmbridge_models}}
        WHERE ($1::text IS NULL OR provider = $1)
            AND ($2::text IS NULL OR model_name = $2)
            AND (inactive_from IS NULL OR NOT $3::boolean)
        ORDER BY provider, model_name
        """,
    )
)
_RETIRE_MODELS = """
WITH active AS (
    SELECT provider, model_name FROM {{tables.llmbridge_models}}
    WHERE (provider, model_name) IN (SELECT * FROM unnest($1::text[], $2::text[])) AND inactive_from IS NULL
    ORDER BY provider, model_name
    FOR UPDATE
)
UPDATE {{tables.llmbridge_models}} AS model SET inactive_from = $3, updated_at = $3
FROM active
WHERE model.provider = active.provider AND model.model_name = active.model_name
"""
_LIST_PRICES = " ".join(
    (
        "SELECT",
        ", ".join(f"{name}::text" if name in JSON_COLUMNS else name for name in PRICE_COLUMNS),
        """
        FROM {{tables.llmbridge_prices}}
        WHERE ($1::text IS NULL OR provider = $1) AND ($2::text IS NULL OR model_name = $2)
        ORDER BY provider, model_name, context, effective_from
        """,
    )
)


async def upsert_models(connection: Connection, models: Sequence[LLMModel], where: str) -> UpsertResult:
    """Insert models or replace them. If a key occurs twice, the last one counts."""
    latest = {(model.provider, model.model_name): model for model in models}
    rows = [encode_model(latest[key]) for key in sorted(latest)]
    async with connection.transaction():
        written = await connection.fetch(_UPSERT_MODELS, *by_column(rows, len(MODEL_COLUMNS)))
        await schema.check_writable(connection, where)
    inserted = sum(row["inserted"] for row in written)
    return UpsertResult(inserted, len(latest) - inserted)


async def list_models(
    connection: Connection, provider: str | None, model_name: str | None, active_only: bool
) -> list[LLMModel]:
    """Return models in the order of their keys."""
    return [decode_model(row) for row in await connection.fetch(_LIST_MODELS, provider, model_name, active_only)]


async def retire_models(connection: Connection, keys: Sequence[tuple[str, str]], at: datetime, where: str) -> int:
    """Retire the models that are active, and return how many there were."""
    async with connection.transaction():
        retired = await connection.execute(_RETIRE_MODELS, *by_column(keys, 2), at)
        await schema.check_writable(connection, where)
    return retired


async def set_prices(connection: Connection, prices: Sequence[ModelPrice], where: str) -> None:
    """Insert own prices or replace them. If a key occurs twice, the last one counts."""
    latest = {price.key: price for price in prices}
    rows = [encode_price(latest[key]) for key in sorted(latest)]
    async with connection.transaction():
        await connection.execute(_UPSERT_PRICES, *by_column(rows, len(PRICE_COLUMNS)))
        await schema.check_writable(connection, where)


async def list_prices(connection: Connection, provider: str | None, model_name: str | None) -> list[ModelPrice]:
    """Return own prices in the order of their keys."""
    return [decode_price(row) for row in await connection.fetch(_LIST_PRICES, provider, model_name)]
