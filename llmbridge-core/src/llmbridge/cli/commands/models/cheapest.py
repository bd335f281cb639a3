"""`llmbridge models cheapest`: lists the models with the lowest cost of one call."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ... import database, output
from ...options import Database, Json, Plugin, Provider, Settings, settings
from ...output import Column
from .wanted import Can, Context, wanted

if TYPE_CHECKING:
    from ....reports import ModelCost


def cheapest(
    context: typer.Context,
    prompt: Annotated[int, typer.Option("--in", metavar="TOKENS", min=0, help="Tokens of input.", show_default=False)],
    completion: Annotated[
        int, typer.Option("--out", metavar="TOKENS", min=0, help="Tokens of output.", show_default=False)
    ],
    limit: Annotated[int, typer.Option("--limit", "-n", metavar="N", min=1, help="Most models to show.")] = 10,
    provider: Provider = None,
    can: Can = None,
    min_context: Context = None,
    every: Annotated[
        bool,
        typer.Option("--all", metavar=" ", help="Retired and long unconfirmed models too.", show_default=False),
    ] = False,
    db: Database = None,
    plugin: Plugin = None,
    json: Json = False,
) -> None:
    """List the models with the lowest cost of a call with so many tokens.

    Models without a price, and those that are known to be too small, are left out. So are retired models, and those of
    the bundled catalog that nobody has confirmed for a year.
    """
    options = {**wanted(provider, can, min_context), "active_only": not every}
    asked = settings(context, db, json, plugin)
    found = asyncio.run(_cheapest(asked, prompt, completion, options))[:limit]
    if asked.json:
        output.json({"models": [{"model": one.model.name, "cost": one.cost} for one in found]})
        return
    output.table(
        [Column("model"), Column("cost $", "figure")], [[one.model.name, output.money(one.cost)] for one in found]
    )


async def _cheapest(asked: Settings, prompt: int, completion: int, options: dict[str, Any]) -> list[ModelCost]:
    async with database.opened(asked) as db:
        return await db.models.cheapest(prompt, completion, **options)
