"""`llmbridge models find`, `cheapest` and `load`: which models fit, what they ask, and models from files."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .. import database, filters, output
from ..exit_codes import UserError
from ..options import Database, Json, Plugin, Settings, settings
from ..output import Column
from ..parser import Command
from . import models

if TYPE_CHECKING:
    from ..._models.queries import ModelCost, PricedModel
    from ..._models.registry import LoadReport

_ABILITIES = {
    "vision": "vision",
    "tools": "function_calling",
    "parallel-tools": "parallel_tool_calls",
    "json": "json_mode",
}

Provider = Annotated[str | None, typer.Option(metavar="NAME", help="Only this vendor.")]
Can = Annotated[
    list[str] | None,
    typer.Option(metavar="ABILITY,...", help="Only those that can do vision, tools, parallel-tools, json. Repeatable."),
]
Context = Annotated[
    int | None, typer.Option(metavar="TOKENS", min=1, help="With a context of at least that.", show_default=False)
]
MaxInput = Annotated[
    str | None, typer.Option(metavar="DOLLARS", help="At most that per million tokens of input.", show_default=False)
]
MaxOutput = Annotated[
    str | None, typer.Option(metavar="DOLLARS", help="At most that per million tokens of output.", show_default=False)
]


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    app.command(cls=Command)(find)
    app.command(cls=Command)(cheapest)
    app.command(cls=Command)(load)


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

    What is not known of a model it is taken not to have.
    """
    wanted = _wanted(provider, can, min_context, max_input, max_output)
    asked = settings(context, db, json, plugin)
    found = asyncio.run(_find(asked, text, wanted))
    models.show_list([(one.model, one.card) for one in found], as_json=asked.json)


def cheapest(
    context: typer.Context,
    prompt: Annotated[int, typer.Option("--in", metavar="TOKENS", min=0, help="Tokens of input.", show_default=False)],
    answer: Annotated[
        int, typer.Option("--out", metavar="TOKENS", min=0, help="Tokens of output.", show_default=False)
    ],
    limit: Annotated[int, typer.Option("--limit", "-n", metavar="N", min=1, help="Most models to show.")] = 10,
    provider: Provider = None,
    can: Can = None,
    min_context: Context = None,
    db: Database = None,
    plugin: Plugin = None,
    json: Json = False,
) -> None:
    """Show which models ask least for a call with so many tokens.

    Left out are those without a price, and those known to be too small for it.
    """
    wanted = _wanted(provider, can, min_context, None, None)
    asked = settings(context, db, json, plugin)
    found = asyncio.run(_cheapest(asked, prompt, answer, wanted))[:limit]
    if asked.json:
        output.json({"models": [{"model": one.model.name, "cost": one.cost} for one in found]})
        return
    output.table([Column("model"), Column("cost $", "figure")], [[one.model.name, _dollars(one)] for one in found])


def load(
    context: typer.Context,
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Where the files are.", show_default=False)],
    no_prices: Annotated[
        bool, typer.Option("--no-prices", metavar=" ", help="Leave own prices as they are.", show_default=False)
    ] = False,
    db: Database = None,
    plugin: Plugin = None,
    json: Json = False,
) -> None:
    """Take models from files VENDOR.json, in llmbridge-py's form, and retire the other models of these vendors.

    Rates in them become your own prices from now on where they differ from those in force. If a file or an entry does
    not parse nothing is changed.
    """
    asked = settings(context, db, json, plugin)
    done = asyncio.run(_load(asked, directory, set_prices=not no_prices))
    if asked.json:
        output.json(asdict(done))
        return
    output.line(output.clean(f"vendors: {', '.join(done.providers)}"))
    output.line(f"models:  {done.inserted:,} new, {done.updated:,} replaced, {done.retired:,} retired")


def _wanted(
    provider: str | None, can: list[str] | None, min_context: int | None, max_input: str | None, max_output: str | None
) -> dict[str, Any]:
    from ..._records.validation import check_rate

    abilities = [name.strip() for word in can or () for name in word.split(",")]
    for name in abilities:
        if name not in _ABILITIES:
            raise UserError(f"--can {name!r} is no ability; known: {', '.join(_ABILITIES)}")
    return {
        "provider": provider,
        "min_context": min_context,
        "max_input_rate": check_rate("--max-input", max_input),
        "max_output_rate": check_rate("--max-output", max_output),
        **{_ABILITIES[name]: True for name in abilities},
    }


async def _find(asked: Settings, text: str, wanted: Any) -> list[PricedModel]:
    async with database.opened(asked) as db:
        return await db.models.search(text, **wanted)


async def _cheapest(asked: Settings, prompt: int, answer: int, wanted: Any) -> list[ModelCost]:
    async with database.opened(asked) as db:
        return await db.models.cheapest(prompt, answer, **wanted)


async def _load(asked: Settings, directory: Path, *, set_prices: bool) -> LoadReport:
    async with database.opened(asked) as db:
        with filters.answerable():
            return await db.load_models(directory, set_prices=set_prices)


def _dollars(found: ModelCost) -> str:
    from ..._shared.money import text

    return text(found.cost)
