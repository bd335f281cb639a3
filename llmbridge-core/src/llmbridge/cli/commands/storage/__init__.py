"""`llmbridge storage …`: storage plugins, the schema and the spool of a database, and copies."""

from __future__ import annotations

import typer

from ...parser import Command, Group
from .copy import copy
from .migrate import migrate
from .plugins import plugins
from .spool import spool
from .status import status

app = typer.Typer(
    cls=Group,
    rich_markup_mode="markdown",
    help="Show storage plugins, the schema of a database and its spool; copy a database.",
)

app.command(cls=Command)(plugins)
app.command(cls=Command)(status)
app.command(cls=Command)(migrate)
app.command(cls=Command)(spool)
app.command(cls=Command)(copy)
