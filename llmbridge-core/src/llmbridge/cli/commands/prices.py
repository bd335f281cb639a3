"""`llmbridge models prices`, `set-price` and `update`: the prices of one's own, and newer ones of genai-prices."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any
from zoneinfo import ZoneInfo

import typer

from .. import database, filters, output
from ..exit_codes import UserError
from ..options import Database, Json, Plugin, Settings, settings
from ..output import Column
from ..parser import Command

if TYPE_CHECKING:
    from decimal import Decimal

    from ...storage.types import ModelPrice

_RATES = ("input", "output", "cache_read", "cache_write", "cache_write_1h")


def _dollars(option: str, tokens: str) -> Any:
    return typer.Option(option, metavar="DOLLARS", help=f"Of a million tokens {tokens}.", show_default=False)


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    app.command(cls=Command)(prices)
    app.command("set-price", cls=Command)(set_price)
    app.command(cls=Command)(update)


def prices(
    context: typer.Context,
    provider: Annotated[str | None, typer.Option(metavar="NAME", help="Only this vendor.")] = None,
    db: Database = None,
    plugin: Plugin = None,
    json: Json = False,
) -> None:
    """List your own prices, in dollars per million tokens, with the time from which each is in force.

    They go before those of genai-prices. A rate of - is not known: a call that needs it has no cost. Where all are -
    the price before was withdrawn.
    """
    asked = settings(context, db, json, plugin)
    found = asyncio.run(_list(asked, provider))
    if asked.json:
        output.json({"prices": [_document(price) for price in found]})
        return
    columns = [
        Column("model"),
        Column("in force from", "mark"),
        *(Column(f"$/M {name}", "figure") for name in ("in", "out", "cache| read", "cache| write", "1 h| write")),
    ]
    output.table(columns, [_cells(price) for price in found])


def set_price(
    context: typer.Context,
    model: Annotated[str, typer.Argument(metavar="VENDOR:NAME", help="The model.", show_default=False)],
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
            help="In force from then on: 2026-01-31 (UTC), or an ISO 8601 time; not given, from now on.",
            show_default=False,
        ),
    ] = None,
    withdraw: Annotated[
        bool,
        typer.Option(
            "--withdraw", metavar=" ", help="Have the price of genai-prices again from then on.", show_default=False
        ),
    ] = False,
    db: Database = None,
    plugin: Plugin = None,
    json: Json = False,
) -> None:
    """Set your own price of a model, which goes before that of genai-prices, or withdraw it.

    It is in force until the next one of the same model. A rate that is not given is not known: a call that needs it
    has no cost. 0 is a price. Calls on the books keep their cost until llmbridge models reprice.
    """
    from ..._records.validation import check_rate
    from ...storage.types import ModelPrice

    vendor, colon, name = model.partition(":")
    if not (vendor and colon and name):
        raise UserError(f"{model!r} names no vendor; write VENDOR:NAME, such as openai:{name or model or 'gpt-4o'}")
    given = dict(zip(_RATES, (of_input, of_output, cache_read, cache_write, cache_write_1h), strict=True))
    rates = {field: check_rate(f"--{field.replace('_', '-')}", rate) for field, rate in given.items()}
    if withdraw and any(rate is not None for rate in rates.values()):
        raise UserError("--withdraw goes without rates: set a price, or withdraw the one that is in force")
    if not withdraw and rates["input"] is None and rates["output"] is None:
        raise UserError("give --input and --output, in dollars per million tokens, or --withdraw")
    now = datetime.now(UTC)
    begins = now if start is None else filters.instant(filters.time("--from", start, now), ZoneInfo("UTC"))
    if begins is None:
        raise UserError("--from needs a time from which the price is in force")
    price = ModelPrice(vendor, name, begins, **rates)
    asked = settings(context, db, json, plugin)
    price = asyncio.run(_set(asked, price))
    if asked.json:
        output.json(_document(price))
        return
    output.line(output.clean(f"{price.provider}:{name} from {output.moment(begins)}: {_told(rates)}"))


def update(
    context: typer.Context,
    url: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Where to fetch them from; not given, LLMBRIDGE_PRICES_URL, else where genai-prices publishes them.",
            show_default=False,
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Fetch newer data of genai-prices, which nothing else does.

    It lies in the user's state directory; processes of this user on this machine take it up within five minutes. Calls
    on the books keep their cost until llmbridge models reprice.
    """
    from ..._pricing.genai_prices import editions

    edition = editions.update(url)
    providers, models = len(edition.providers), sum(len(vendor.models) for vendor in edition.providers)
    if settings(context, json=json).json:
        path = str(editions.path())
        output.json({"version": edition.version, "vendors": providers, "models": models, "path": path})
        return
    output.line(f"{edition.version}: {models:,} models of {providers:,} vendors")


async def _list(asked: Settings, provider: str | None) -> list[ModelPrice]:
    async with database.opened(asked) as db:
        return await db.list_prices(provider)


async def _set(asked: Settings, price: ModelPrice) -> ModelPrice:
    """Set the price, of the vendor as calls name it."""
    from ...providers.routing import known_as

    async with database.opened(asked) as db:
        names = await filters.known(db)
        vendor = known_as(price.provider, names)
        if vendor is None:
            filters.tell_unknown(price.provider, names)
        price = replace(price, provider=vendor or price.provider)
        await db.set_prices([price])
    return price


def _cells(price: ModelPrice) -> list[str]:
    return [
        f"{price.provider}:{price.model_name}",
        output.moment(price.effective_from) or "",
        *(_rate(getattr(price, name)) for name in _RATES),
    ]


def _document(price: ModelPrice) -> dict[str, Any]:
    named = {"provider": price.provider, "model_name": price.model_name, "effective_from": price.effective_from}
    return {**named, **{name: getattr(price, name) for name in _RATES}}


def _told(rates: dict[str, Decimal | None]) -> str:
    known = [f"{name.replace('_', ' ')} {_rate(rate)}" for name, rate in rates.items() if rate is not None]
    if not known:
        return "no price of your own"
    unknown = [name.replace("_", " ") for name, rate in rates.items() if rate is None]
    text = f"{', '.join(known)} dollars per million tokens"
    return f"{text}; unknown: {', '.join(unknown)}" if unknown else text


def _rate(rate: Decimal | None) -> str:
    from ..._shared.money import text

    return "-" if rate is None else text(rate)
