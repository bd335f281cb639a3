"""`llmbridge models update`: fetches newer price data."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from ... import output
from ...options import Json, settings


def update(
    context: typer.Context,
    url: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Address of the data; default: LLMBRIDGE_PRICES_URL, else where genai-prices publishes them.",
            show_default=False,
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Fetch newer price data of genai-prices. No other command does.

    They are stored in the user's state directory; processes of this user on this machine use them within five minutes.
    Recorded calls keep their cost until llmbridge models reprice.
    """
    from ....db import LLMDatabase

    data = asyncio.run(LLMDatabase.update_prices(url))
    if settings(context, json=json).json:
        output.json({"version": data.version, "providers": data.providers, "models": data.models, "path": data.path})
        return
    output.line(f"{data.version}: {data.models:,} models of {data.providers:,} providers")
