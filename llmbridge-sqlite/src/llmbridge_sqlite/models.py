"""Storing and listing of models and own prices."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from datetime import datetime

from llmbridge.storage import LLMModel, ModelPrice, UpsertResult

from .codec import MODEL_COLUMNS, PRICE_COLUMNS, decode_model, decode_price, encode_model, encode_price, to_micros

_MODEL_KEY = ("provider", "model_name")
_PRICE_KEY = (*_MODEL_KEY, "context", "effective_from")


def _upsert(table: str, columns: Sequence[str], key: Sequence[str], kept: Sequence[str] = ()) -> str:
    replaced = [f"{name} = excluded.{name}" for name in columns if name not in key and name not in kept]
    return " ".join(
        (
            f"INSERT INTO {table} (",
            ", ".join(columns),
            ") VALUES (",
            ", ".join("?" * len(columns)),
            ") ON CONFLICT (",
            ", ".join(key),
            ") DO UPDATE SET",
            ", ".join(replaced),
        )
    )


_UPSERT_MODEL = _upsert("llmbridge_models", MODEL_COLUMNS, _MODEL_KEY, kept=["created_at"])
_UPSERT_PRICE = _upsert("llmbridge_prices", PRICE_COLUMNS, _PRICE_KEY)
_COUNT_MODELS = "SELECT COUNT(*) FROM llmbridge_models"
_LIST_MODELS = " ".join(
    (
        "SELECT",
        ", ".join(MODEL_COLUMNS),
        """
        FROM llmbridge_models
        WHERE (:provider IS NULL OR provider = :provider)
            AND (:model_name IS NULL OR model_name = :model_name)
            AND (inactive_from IS NULL OR NOT :active_only)
        ORDER BY provider, model_name
        """,
    )
)
_RETIRE_MODEL = """
UPDATE llmbridge_models SET inactive_from = :at, updated_at = :at
WHERE provider = :provider AND model_name = :model_name AND inactive_from IS NULL
"""
_LIST_PRICES = " ".join(
    (
        "SELECT",
        ", ".join(PRICE_COLUMNS),
        """
        FROM llmbridge_prices
        WHERE (:provider IS NULL OR provider = :provider) AND (:model_name IS NULL OR model_name = :model_name)
        ORDER BY provider, model_name, context, effective_from
        """,
    )
)


def upsert_models(connection: sqlite3.Connection, models: Sequence[LLMModel]) -> UpsertResult:
    """Insert models or replace them. If a key occurs twice, the last one counts."""
    latest = {(model.provider, model.model_name): model for model in models}
    (before,) = connection.execute(_COUNT_MODELS).fetchone()
    connection.executemany(_UPSERT_MODEL, map(encode_model, latest.values()))
    (after,) = connection.execute(_COUNT_MODELS).fetchone()
    return UpsertResult(after - before, len(latest) - (after - before))


def list_models(
    connection: sqlite3.Connection, provider: str | None, model_name: str | None, active_only: bool
) -> list[LLMModel]:
    """Return models in the order of their keys."""
    wanted = {"provider": provider, "model_name": model_name, "active_only": int(active_only)}
    return [decode_model(row) for row in connection.execute(_LIST_MODELS, wanted).fetchall()]


def retire_models(connection: sqlite3.Connection, keys: Sequence[tuple[str, str]], at: datetime) -> int:
    """Retire the models that are active, and return how many there were."""
    before, micros = connection.total_changes, to_micros(at)
    connection.executemany(
        _RETIRE_MODEL, ({"provider": provider, "model_name": name, "at": micros} for provider, name in keys)
    )
    return connection.total_changes - before


def set_prices(connection: sqlite3.Connection, prices: Sequence[ModelPrice]) -> None:
    """Insert own prices or replace them. If a key occurs twice, the last one counts."""
    connection.executemany(_UPSERT_PRICE, map(encode_price, prices))


def list_prices(connection: sqlite3.Connection, provider: str | None, model_name: str | None) -> list[ModelPrice]:
    """Return own prices in the order of their keys."""
    wanted = {"provider": provider, "model_name": model_name}
    return [decode_price(row) for row in connection.execute(_LIST_PRICES, wanted).fetchall()]
