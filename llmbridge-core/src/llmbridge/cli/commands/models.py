"""`llmbridge models …`: the models that the books know, and what their tokens cost."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from difflib import get_close_matches
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .. import database, output
from ..exit_codes import UserError
from ..options import Database, Json, Plugin, Settings, settings
from ..output import Column
from ..parser import Command, Group

if TYPE_CHECKING:
    from ..._models.catalog import Origin
    from ..._pricing.rate_cards import RateCard
    from ...db import LLMDatabase
    from ...schemas import LLMModel

app = typer.Typer(cls=Group, rich_markup_mode="markdown", help="Show the models that the books know, and their prices.")

_CAPABILITIES = {
    "supports_vision": "vision",
    "supports_function_calling": "tools",
    "supports_parallel_tool_calls": "parallel tools",
    "supports_json_mode": "JSON",
}
_RATES = ("input", "output", "cache_read", "cache_write", "cache_write_1h", "reasoning")

Priced = tuple["LLMModel", "RateCard | None"]


@app.command("list", cls=Command)
def list_models(
    context: typer.Context,
    provider: Annotated[str | None, typer.Option(metavar="NAME", help="Only this vendor.")] = None,
    every: Annotated[bool, typer.Option("--all", metavar=" ", help="Retired models too.", show_default=False)] = False,
    db: Database = None,
    plugin: Plugin = None,
    json: Json = False,
) -> None:
    """List models with the rates in force now, in dollars per million tokens."""
    asked = settings(context, db, json, plugin)
    found, hint = asyncio.run(_list(asked, provider, active_only=not every))
    if hint is not None:
        output.note(output.clean(hint))
    show_list(found, as_json=asked.json, with_state=every)


def show_list(found: Sequence[Priced], *, as_json: bool, with_state: bool = False) -> None:
    """Print models with their rates, as a table or as one JSON document."""
    if as_json:
        output.json({"models": [_document(model, card) for model, card in found]})
        return
    columns = [
        Column("model"),
        Column("context", "figure"),
        Column("output", "figure"),
        Column("$/M in", "figure"),
        Column("$/M out", "figure"),
        Column("can"),
        *([Column("state")] if with_state else []),
    ]
    output.table(columns, [_cells(model, card)[: len(columns)] for model, card in found])


@app.command(cls=Command)
def show(
    context: typer.Context,
    model: Annotated[str, typer.Argument(metavar="VENDOR:NAME", help="The model.", show_default=False)],
    db: Database = None,
    plugin: Plugin = None,
    json: Json = False,
) -> None:
    """Show all that is known of one model."""
    asked = settings(context, db, json, plugin)
    found, card = asyncio.run(_find(asked, model))
    if asked.json:
        output.json(_document(found, card))
        return
    for name, value in _description(found, card):
        output.line(output.clean(f"{name + ':':<19}{value}"))


async def _list(asked: Settings, provider: str | None, *, active_only: bool) -> tuple[list[Priced], str | None]:
    """Models, and what to say where there are none."""
    async with database.opened(asked) as db:
        found = [_priced(db, model) for model in await db.list_models(provider, active_only)]
        if found or provider is None:
            return found, None
        if active_only and await db.list_models(provider, active_only=False):
            return [], f"all models of {provider!r} are retired: add --all"
        names = sorted({model.provider for model in await db.list_models(active_only=False)})
    close = get_close_matches(provider.lower(), names, n=1)
    hint = f"did you mean {close[0]}?" if close else f"there are models of {', '.join(names)}"
    return [], f"the books know no model of {provider!r}; {hint}"


async def _find(asked: Settings, text: str) -> Priced:
    vendor, _, name = text.partition(":")
    async with database.opened(asked) as db:
        stored = await db.list_models(active_only=False)
        found = [model for model in stored if (model.provider, model.model_name) == (vendor, name)]
        found = found or [model for model in stored if model.model_name == text]
        if len(found) == 1:
            return _priced(db, found[0])
    names = [f"{model.provider}:{model.model_name}" for model in found or stored]
    if found:
        raise UserError(f"{text!r} is a model of several vendors: {', '.join(names)}")
    close = get_close_matches(text, [*names, *(model.model_name for model in stored)], n=3)
    hint = f"did you mean {', '.join(close)}?" if close else "llmbridge models list --all shows those there are"
    raise UserError(f"the books know no model {text!r}; {hint}")


def _priced(db: LLMDatabase, model: LLMModel) -> Priced:
    return model, db.prices.rates(model.provider, model.model_name, datetime.now(UTC))


def _cells(model: LLMModel, card: RateCard | None) -> list[str]:
    rates = card.rates() if card is not None else None
    return [
        f"{model.provider}:{model.model_name}",
        output.count(model.max_context),
        output.count(model.max_output_tokens),
        _rate(rates.input if rates else None),
        _rate(rates.output if rates else None),
        _capabilities(model),
        _state(model),
    ]


def _description(model: LLMModel, card: RateCard | None) -> list[tuple[str, str]]:
    said = [
        ("model", f"{model.provider}:{model.model_name}"),
        ("name", model.display_name or "-"),
        ("description", model.description or "-"),
        ("state", _state(model)),
        ("context", output.tokens(model.max_context)),
        ("most output", output.tokens(model.max_output_tokens)),
        ("can", _capabilities(model)),
        ("entry", f"{model.source}, written {output.moment(model.updated_at) or '-'}"),
    ]
    origin = _origin(model)
    if origin is not None:
        said += [("as of", origin.date.isoformat()), ("see", origin.source)]
    if card is None:
        return [*said, ("rates", "unknown: its calls are unpriced")]
    whose = "own price from" if card.source == "own_prices" else "list price of"
    said.append(("rates", f"{whose} {card.version}, in dollars per million tokens"))
    for least, rates in zip((0, *card.thresholds), card.bands, strict=True):
        if least:
            said.append(("", f"for prompts of more than {least:,} tokens"))
        said += [(f"  {name.replace('_', ' ')}", _rate(getattr(rates, name))) for name in _RATES]
        if rates.request:
            said.append(("  per request", f"{_rate(rates.request)} dollars"))
    return said


def _document(model: LLMModel, card: RateCard | None) -> dict[str, Any]:
    rates = None
    if card is not None:
        bands = [
            {
                "prompt_tokens_over": least,
                **{name: getattr(band, name) for name in _RATES},
                "dollars_per_request": band.request,
            }
            for least, band in zip((0, *card.thresholds), card.bands, strict=True)
        ]
        rates = {"source": card.source, "version": card.version, "bands": bands}
    origin = _origin(model)
    checked = {"source": origin.source, "date": origin.date.isoformat()} if origin is not None else None
    # As text: a number of 63 bits is not what most readers of JSON take it for.
    known = {**model.model_dump(), "id": None if model.id is None else str(model.id)}
    return {**known, "active": model.is_active, "catalog_entry": checked, "rates": rates}


def _origin(model: LLMModel) -> Origin | None:
    """Where the catalog's entry can be checked; None for a model that its owner entered."""
    from ..._models import catalog

    return None if model.source == "user" else catalog.origin(model.provider, model.model_name)


def _capabilities(model: LLMModel) -> str:
    return ", ".join(name for field, name in _CAPABILITIES.items() if getattr(model, field)) or "-"


def _state(model: LLMModel) -> str:
    return "active" if model.inactive_from is None else f"retired {output.moment(model.inactive_from)}"


def _rate(rate: Any) -> str:
    from ..._shared.money import text

    return "-" if rate is None else text(rate)
