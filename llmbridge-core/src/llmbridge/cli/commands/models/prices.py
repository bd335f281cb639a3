"""`llmbridge models prices`: lists your own prices."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import typer

from ... import database, output
from ...options import Database, Json, Plugin, Provider, Settings, settings
from ...output import Column

if TYPE_CHECKING:
    from ....storage import ModelPrice

#: The rates of an own price, in the order in which they are shown.
RATES = ("input", "output", "cache_read", "cache_write", "cache_write_1h")


def prices(
    context: typer.Context,
    provider: Provider = None,
    db: Database = None,
    plugin: Plugin = None,
    json: Json = False,
) -> None:
    """List your own prices, in dollars per million tokens, with the time from which each applies.

    They take precedence over those of genai-prices. A rate of - is unknown: a call that needs it has no cost. If all
    are -, the price before was withdrawn, or the factor multiplies the price of genai-prices. Model * is all models of
    a provider.
    """
    asked = settings(context, db, json, plugin)
    found = asyncio.run(_list(asked, provider))
    if asked.json:
        output.json({"prices": [document(price) for price in found]})
        return
    columns = [
        Column("model"),
        Column("applies from", "mark"),
        *(Column(f"$/M {name}", "figure") for name in ("in", "out", "cache| read", "cache| write", "1 h| write")),
    ]
    more = [
        (Column("context"), describe_context, any(price.context for price in found)),
        (Column("other rates"), describe_others, any(price.rates for price in found)),
        (Column("factor", "figure"), _factor, any(price.factor is not None for price in found)),
    ]
    shown = [(column, describe) for column, describe, is_used in more if is_used]
    rows = [[*_cells(price), *(describe(price) for _, describe in shown)] for price in found]
    output.table([*columns, *(column for column, _ in shown)], rows)


async def _list(asked: Settings, provider: str | None) -> list[ModelPrice]:
    async with database.opened(asked) as db:
        return await db.list_prices(provider)


def document(price: ModelPrice) -> dict[str, Any]:
    """Return an own price, for JSON."""
    named = {"provider": price.provider, "model_name": price.model_name, "effective_from": price.effective_from}
    return {
        **named,
        **{name: getattr(price, name) for name in RATES},
        "rates": dict(price.rates),
        "context": dict(price.context),
        "factor": price.factor,
    }


def describe_context(price: ModelPrice) -> str:
    """Return the price context for which an own price holds, in words."""
    return ", ".join(f"{name}={value}" for name, value in sorted(price.context.items())) or "-"


def describe_others(price: ModelPrice) -> str:
    """Return the rates of an own price that have no column, in words."""
    return ", ".join(f"{unit} {output.money(rate)}" for unit, rate in sorted(price.rates.items())) or "-"


def _factor(price: ModelPrice) -> str:
    return output.money(price.factor)


def _cells(price: ModelPrice) -> list[str]:
    return [
        f"{price.provider}:{price.model_name}",
        output.moment(price.effective_from) or "",
        *(output.money(getattr(price, name)) for name in RATES),
    ]
