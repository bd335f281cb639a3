"""`llmbridge models list`: lists models with their current rates."""

from __future__ import annotations

import asyncio
from difflib import get_close_matches
from typing import Annotated

import typer

from ... import database, output
from ...options import Database, Json, Plugin, Provider, Settings, settings
from .table import ShownModel, show_list, with_rates


def list_models(
    context: typer.Context,
    provider: Provider = None,
    every: Annotated[bool, typer.Option("--all", metavar=" ", help="Retired models too.", show_default=False)] = False,
    db: Database = None,
    plugin: Plugin = None,
    json: Json = False,
) -> None:
    """List models with their current rates, in dollars per million tokens."""
    asked = settings(context, db, json, plugin)
    found, hint = asyncio.run(_list(asked, provider, active_only=not every))
    if hint is not None:
        output.note(output.clean(hint))
    show_list(found, as_json=asked.json, with_state=every)


async def _list(asked: Settings, provider: str | None, *, active_only: bool) -> tuple[list[ShownModel], str | None]:
    """Return models, and a note if there are none."""
    async with database.opened(asked) as db:
        found = [with_rates(db, model) for model in await db.list_models(provider, active_only)]
        if found or provider is None:
            return found, None
        if active_only and await db.list_models(provider, active_only=False):
            return [], f"all models of {provider!r} are retired: add --all"
        names = sorted({model.provider for model in await db.list_models(active_only=False)})
    close = get_close_matches(provider.lower(), names, n=1)
    hint = f"did you mean {close[0]}?" if close else f"there are models of {', '.join(names)}"
    return [], f"the database has no model of {provider!r}; {hint}"
