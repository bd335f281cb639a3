"""`llmbridge models set-price`: sets or withdraws your own price of a model, or a factor of list prices."""

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
from .prices import RATES, describe_context, describe_others, document

if TYPE_CHECKING:
    from ....storage import ModelPrice


def _dollars(option: str, tokens: str) -> Any:
    return typer.Option(option, metavar="DOLLARS", help=f"Of a million tokens {tokens}.", show_default=False)


def set_price(
    context: typer.Context,
    model: Annotated[
        str,
        typer.Argument(
            metavar="PROVIDER:NAME", help="The model; NAME * is all models of the provider.", show_default=False
        ),
    ],
    of_input: Annotated[str | None, _dollars("--input", "of input")] = None,
    of_output: Annotated[str | None, _dollars("--output", "of output")] = None,
    cache_read: Annotated[str | None, _dollars("--cache-read", "read from a cache")] = None,
    cache_write: Annotated[str | None, _dollars("--cache-write", "written to a cache")] = None,
    cache_write_1h: Annotated[
        str | None, _dollars("--cache-write-1h", "written to one that keeps them an hour")
    ] = None,
    rate: Annotated[
        list[str] | None,
        typer.Option(
            metavar="UNIT=DOLLARS",
            help="Of another unit of genai-prices, such as web_searches=10: of a million tokens or characters, of an "
            "hour of audio, of a thousand of most others. Repeatable.",
            show_default=False,
        ),
    ] = None,
    context_of: Annotated[
        list[str] | None,
        typer.Option(
            "--context",
            metavar="NAME=VALUE",
            help="Only for calls with this price context, such as service_tier=priority. Repeatable.",
            show_default=False,
        ),
    ] = None,
    factor: Annotated[
        str | None,
        typer.Option(metavar="NUMBER", help="Multiplies list prices, such as 0.78 for 22 % off.", show_default=False),
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

    It applies until the next one of the same model and context. A rate that is not given is unknown: a call that needs
    it has no cost. 0 is a price. A factor multiplies the price of genai-prices instead. Recorded calls keep their cost
    until llmbridge models reprice.
    """
    from ....reports import check_rate
    from ....storage import ModelPrice

    provider, colon, name = model.partition(":")
    if not (provider and colon and name):
        raise UserError(f"{model!r} has no provider; write PROVIDER:NAME, such as openai:{name or model or 'gpt-4o'}")
    given = dict(zip(RATES, (of_input, of_output, cache_read, cache_write, cache_write_1h), strict=True))
    rates = {field: check_rate(f"--{field.replace('_', '-')}", rate) for field, rate in given.items()}
    others = {unit: check_rate(f"--rate {unit}", dollars) for unit, dollars in _pairs("--rate", rate).items()}
    multiplier = check_rate("--factor", factor)
    has_rates = bool(others) or any(rate is not None for rate in rates.values())
    if withdraw and (has_rates or multiplier is not None):
        raise UserError("--withdraw takes neither rates nor a factor: set a price, or withdraw the current one")
    if multiplier is not None and has_rates:
        raise UserError("--factor takes no rates: it multiplies those of genai-prices")
    if not (withdraw or others or multiplier is not None) and rates["input"] is None and rates["output"] is None:
        raise UserError("give --input and --output, in dollars per million tokens, --rate, --factor or --withdraw")
    now = datetime.now(UTC)
    begins = now if start is None else filters.instant("--from", start, ZoneInfo("UTC"), now)
    if begins is None:
        raise UserError("--from needs a time from which the price applies")
    price = ModelPrice(
        provider,
        name,
        begins,
        input=rates["input"],
        output=rates["output"],
        cache_read=rates["cache_read"],
        cache_write=rates["cache_write"],
        cache_write_1h=rates["cache_write_1h"],
        rates={unit: dollars for unit, dollars in others.items() if dollars is not None},
        context=_pairs("--context", context_of),
        factor=multiplier,
    )
    asked = settings(context, db, json, plugin)
    price = asyncio.run(_set(asked, price))
    if asked.json:
        output.json(document(price))
        return
    where = f" ({describe_context(price)})" if price.context else ""
    output.line(output.clean(f"{price.provider}:{name}{where} from {output.moment(begins)}: {_described(price)}"))


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


def _pairs(option: str, texts: list[str] | None) -> dict[str, str]:
    """Return what an option names, from texts `NAME=VALUE`."""
    found: dict[str, str] = {}
    for text in texts or ():
        name, equals, value = text.partition("=")
        if not (name and equals and value):
            raise UserError(f"{option} {text!r} has no value; write NAME=VALUE")
        if name in found:
            raise UserError(f"{option} {name!r} is given twice")
        found[name] = value
    return found


def _described(price: ModelPrice) -> str:
    if price.factor is not None:
        return f"{output.money(price.factor)} times the list price"
    rates = {name: getattr(price, name) for name in RATES}
    known = [f"{name.replace('_', ' ')} {output.money(rate)}" for name, rate in rates.items() if rate is not None]
    if not known and not price.rates:
        return "no price of your own"
    unknown = [name.replace("_", " ") for name, rate in rates.items() if rate is None]
    parts = [
        *([f"{', '.join(known)} dollars per million tokens"] if known else []),
        *([describe_others(price)] if price.rates else []),
        *([f"unknown: {', '.join(unknown)}"] if unknown else []),
    ]
    return "; ".join(parts)
