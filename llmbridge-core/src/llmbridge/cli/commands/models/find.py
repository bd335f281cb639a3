"""`llmbridge models find`: finds models by words, abilities, size and price."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import typer

from ... import database
from ...options import Database, Json, Plugin, Provider, Settings, settings
from .table import ShownModel, show_list
from .wanted import Can, Context, wanted

MaxInput = Annotated[
    str | None, typer.Option(metavar="DOLLARS", help="At most that per million tokens of input.", show_default=False)
]
MaxOutput = Annotated[
    str | None, typer.Option(metavar="DOLLARS", help="At most that per million tokens of output.", show_default=False)
]


def find(
    context: typer.Context,
    text: Annotated[
        str, typer.Argument(metavar="TEXT", help="Words of its name or description.", show_default=False)
    ] = "",
    provider: Provider = None,
    can: Can = None,
    min_context: Context = None,
    max_input: MaxInput = None,
    max_output: MaxOutput = None,
    db: Database = None,
    plugin: Plugin = None,
    json: Json = False,
) -> None:
    """Find models by words, abilities, size and price, in dollars per million tokens.

    A model whose ability, size or price is unknown is not found by it.
    """
    from ....reports import check_rate

    options = {
        **wanted(provider, can, min_context),
        "max_input_rate": check_rate("--max-input", max_input),
        "max_output_rate": check_rate("--max-output", max_output),
    }
    asked = settings(context, db, json, plugin)
    found = asyncio.run(_find(asked, text, options))
    show_list(found, as_json=asked.json)


async def _find(asked: Settings, text: str, options: dict[str, Any]) -> list[ShownModel]:
    async with database.opened(asked) as db:
        found = await db.models.search(text, **options)
        return [ShownModel(one.model, one.card, db.models.origin(one.model)) for one in found]
