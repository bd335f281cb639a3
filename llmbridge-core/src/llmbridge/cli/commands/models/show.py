"""`llmbridge models show`: shows all that is known of one model."""

from __future__ import annotations

import asyncio
from difflib import get_close_matches
from typing import Annotated

import typer

from ... import database, output
from ...exit_codes import UserError
from ...options import Database, Json, Plugin, Settings, settings
from .table import RATES, SHOWN_UNITS, ShownModel, capabilities, document, state, with_rates


def show(
    context: typer.Context,
    model: Annotated[str, typer.Argument(metavar="PROVIDER:NAME", help="The model.", show_default=False)],
    db: Database = None,
    plugin: Plugin = None,
    json: Json = False,
) -> None:
    """Show all that is known of one model."""
    asked = settings(context, db, json, plugin)
    found = asyncio.run(_find(asked, model))
    if asked.json:
        output.json(document(found))
        return
    for name, value in _description(found):
        output.line(output.clean(f"{name + ':':<19}{value}"))


async def _find(asked: Settings, text: str) -> ShownModel:
    provider, _, name = text.partition(":")
    async with database.opened(asked) as db:
        stored = await db.list_models(active_only=False)
        found = [model for model in stored if (model.provider, model.model_name) == (provider, name)]
        found = found or [model for model in stored if model.model_name == text]
        if len(found) == 1:
            return with_rates(db, found[0])
    names = [f"{model.provider}:{model.model_name}" for model in found or stored]
    if found:
        raise UserError(f"{text!r} is a model of several providers: {', '.join(names)}")
    close = get_close_matches(text, [*names, *(model.model_name for model in stored)], n=3)
    hint = f"did you mean {', '.join(close)}?" if close else "llmbridge models list --all lists all"
    raise UserError(f"the database has no model {text!r}; {hint}")


def _description(shown: ShownModel) -> list[tuple[str, str]]:
    model, card, origin = shown
    lines = [
        ("model", f"{model.provider}:{model.model_name}"),
        ("name", model.display_name or "-"),
        ("description", model.description or "-"),
        ("state", state(model)),
        ("context", output.tokens(model.max_context)),
        ("most output", output.tokens(model.max_output_tokens)),
        ("can", capabilities(model)),
        ("entry", f"{model.source}, written {output.moment(model.updated_at) or '-'}"),
    ]
    if origin is not None:
        lines += [("as of", origin.confirmed.isoformat()), ("see", origin.source)]
        if origin.retires is not None:
            lines.append(("retires", f"{origin.retires.isoformat()}, see {origin.retires_source}"))
    if card is None:
        return [*lines, ("rates", "unknown: its calls are unpriced")]
    whose = "own price from" if card.source == "own_prices" else "list price of"
    times = f", times {output.money(card.factor)}" if card.factor is not None else ""
    lines.append(("rates", f"{whose} {card.version}{times}, in dollars per million tokens"))
    for least, rates in zip((0, *card.thresholds), card.bands, strict=True):
        if least:
            lines.append(("", f"for prompts of more than {least:,} tokens"))
        lines += [(f"  {name.replace('_', ' ')}", output.money(getattr(rates, name))) for name in RATES]
        others = sorted(rates.units.keys() - SHOWN_UNITS)
        lines += [(f"  {unit}", output.money(rates.units[unit])) for unit in others]
        if rates.request:
            lines.append(("  per request", f"{output.money(rates.request)} dollars"))
    return lines
