"""`llmbridge models load`: loads models from files in the format of llmbridge-py."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ... import database, filters, output
from ...options import Database, Json, Plugin, Settings, settings

if TYPE_CHECKING:
    from ....reports import LoadReport


def load(
    context: typer.Context,
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Directory of the files.", show_default=False)],
    no_prices: Annotated[
        bool, typer.Option("--no-prices", metavar=" ", help="Leave own prices as they are.", show_default=False)
    ] = False,
    db: Database = None,
    plugin: Plugin = None,
    json: Json = False,
) -> None:
    """Load models from files PROVIDER.json in the format of llmbridge-py.

    The other models of these providers are retired. Rates in the files become your own prices from now on, if they
    differ from the current ones. If a file or an entry is not valid, nothing is changed.
    """
    asked = settings(context, db, json, plugin)
    done = asyncio.run(_load(asked, directory, set_prices=not no_prices))
    if asked.json:
        output.json(asdict(done))
        return
    output.line(output.clean(f"providers: {', '.join(done.providers)}"))
    output.line(f"models:    {done.inserted:,} new, {done.updated:,} replaced, {done.retired:,} retired")


async def _load(asked: Settings, directory: Path, *, set_prices: bool) -> LoadReport:
    async with database.opened(asked) as db:
        with filters.invalid_arguments():
            return await db.load_models(directory, set_prices=set_prices)
