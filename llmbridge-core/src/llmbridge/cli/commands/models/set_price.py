"""`llmbridge models set-price`: sets or withdraws your own price of a model."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any
from zoneinfo import ZoneInfo

import typer

from ... import database, filters, output
from ...exit_codes import UserError
from ...options import Database, Json, Plugin, Settings, settings
from .prices import RATES, document

if TYPE_CHECKING:
    from decimal import Decimal

    from ....storage import ModelPrice


def _dollars(option: str, tokens: str) -> Any:
    return typer.Option(option, metavar="DOLLARS", help=f"Of a million tokens {tokens}.", show_default=False)


def set_price(
    context: typer.Context,
    model: Annotated[str, typer.Argument(metavar="PROVIDER:NAME", help="The model.", show_default=False)],
    of_input: Annotated[str | None, _dollars("--input", "of input")] = None,
    of_output: Annotated[str | None, _dollars("--output", "of output")] = None,
    cache_read: Annotated[str | None, _dollars("--cache-read", "read from a cache")] = None,
    cache_write: Annotated[str | None, _dollars("--cache-write", "written to a cache")] = None,
    cache_write_1h: Annotated[
        str | None, _dollars("--cache-write-1h", "written to one that keeps them an hour")
    ] = None,
    start: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="TIME",
            help="Applies from then on: 2026-01-31 (UTC), or an ISO 8601 time; default: now.",
            show_default=False,
        ),
    ] = None,
    withdraw: Annotated[
        bool,
        typer.Option(
            "--withdraw", metavar=" ", help="Use the price of genai-prices again from then on.", show_default=False
        ),
    ] = False,
    db: Database = None,
    plugin: Plugin = None,
    json: Json = False,
) -> None:
    """Set your own price of a model, which takes precedence over that of genai-prices, or withdraw it.

    It applies until the next one of the same model. A rate that is not given is unknown: a call that needs it has no
    cost. 0 is a price. Recorded calls keep their cost until llmbridge models reprice.
    """
    from ....reports import check_rate
    from ....storage import ModelPrice

    provider, colon, name = model.partition(":")
    if not (provider and colon and name):
        raise UserError(f"{model!r} has no provider; write PROVIDER:NAME, such as openai:{name or model or 'gpt-4o'}")
    given = dict(zip(RATES, (of_input, of_output, cache_read, cache_write, cache_write_1h), strict=True))
    rates = {field: check_rate(f"--{field.replace('_', '-')}", rate) for field, rate in given.items()}
    if withdraw and any(rate is not None for rate in rates.values()):
        raise UserError("--withdraw takes no rates: set a price, or withdraw the current one")
    if not withdraw and rates["input"] is None and rates["output"] is None:
        raise UserError("give --input and --output, in dollars per million tokens, or --withdraw")
    now = datetime.now(UTC)
    begins = now if start is None else filters.instant("--from", start, ZoneInfo("UTC"), now)
    if begins is None:
        raise UserError("--from needs a time from which the price applies")
    price = ModelPrice(provider, name, begins, **rates)
    asked = settings(context, db, json, plugin)
    price = asyncio.run(_set(asked, price))
    if asked.json:
        output.json(document(price))
        return
    output.line(output.clean(f"{price.provider}:{name} from {output.moment(begins)}: {_rates(rates)}"))


async def _set(asked: Settings, price: ModelPrice) -> ModelPrice:
    """Set the price, with the name of the provider as calls have it."""
    from ....providers.routing import known_as

    async with database.opened(asked) as db:
        names = await filters.known_providers(db)
        provider = known_as(price.provider, names)
        if provider is None:
            filters.note_unknown_provider(price.provider, names)
        price = replace(price, provider=provider or price.provider)
        await db.set_prices([price])
    return price


def _rates(rates: dict[str, Decimal | None]) -> str:
    known = [f"{name.replace('_', ' ')} {output.money(rate)}" for name, rate in rates.items() if rate is not None]
    if not known:
        return "no price of your own"
    unknown = [name.replace("_", " ") for name, rate in rates.items() if rate is None]
    text = f"{', '.join(known)} dollars per million tokens"
    return f"{text}; unknown: {', '.join(unknown)}" if unknown else text
