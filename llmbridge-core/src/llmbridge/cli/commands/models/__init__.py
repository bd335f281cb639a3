"""`llmbridge models …`: models and their prices."""

from __future__ import annotations

import typer

from ...parser import Command, Group
from .cheapest import cheapest
from .find import find
from .list import list_models
from .load import load
from .prices import prices
from .reprice import reprice
from .set_price import set_price
from .show import show
from .update import update

app = typer.Typer(cls=Group, rich_markup_mode="markdown", help="Show the models of a database, and their prices.")

app.command("list", cls=Command)(list_models)
app.command(cls=Command)(show)
app.command(cls=Command)(find)
app.command(cls=Command)(cheapest)
app.command(cls=Command)(load)
app.command(cls=Command)(prices)
app.command("set-price", cls=Command)(set_price)
app.command(cls=Command)(update)
app.command(cls=Command)(reprice)
