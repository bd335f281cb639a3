"""The tree of commands, and the options before a command."""

from __future__ import annotations

from typing import Annotated

import typer

from . import output
from .commands import models, storage
from .commands.calls import calls
from .commands.chat import chat
from .commands.doctor import doctor
from .commands.forget import forget
from .commands.health import health
from .commands.init_db import init_db
from .commands.purge import purge
from .commands.usage import usage
from .exit_codes import UserError
from .options import Database, Json, Plugin, Settings
from .parser import Command, Group

EPILOG = "\n\n".join(
    (
        "Database: --db, else LLMBRIDGE_DATABASE_URL, else DATABASE_URL (each from the environment, else from ./.env), "
        "else ~/.llmbridge/llmbridge.db. Only chat, init-db, storage migrate and storage copy create a file that does "
        "not exist.",
        "Options: --db, --plugin and --json mean the same before and after the command; the one after the command "
        "counts. storage plugins opens no database, and has only --json; so has storage copy, which names its two.",
        "Output: results go to stdout, all else to stderr. With --json, stdout is exactly one JSON document, for an "
        'error too: {"error": {"type": "...", "message": "..."}}. Money and the ids of models are text, times are '
        "ISO 8601 in UTC.",
        "Exit codes: 0 done; 1 the operation failed (provider, database, plugin), or chat has a response that may not "
        "be recorded; 2 invalid arguments (option, URL, unknown model, unknown kind of database, a file to read that "
        "does not exist); 130 interrupted.",
    )
)

app = typer.Typer(
    name="llmbridge",
    cls=Group,
    help="Call any LLM, and record every call with its exact cost in a database.",
    epilog=EPILOG,
    add_completion=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    if asked:
        from .. import __version__

        output.line(f"llmbridge {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    db: Database = None,
    plugin: Plugin = None,
    json: Json = False,
    version: Annotated[
        bool,
        typer.Option("--version", metavar=" ", help="Show the version and exit.", callback=_version, is_eager=True),
    ] = False,
) -> None:
    """Call any LLM, and record every call with its exact cost in a database."""
    context.obj = Settings(db, json, plugin)
    if context.invoked_subcommand is None and json:
        raise UserError("there is no command; llmbridge --help lists them")
    if context.invoked_subcommand is None:
        output.line(context.get_help())
        raise typer.Exit
    _warn_of_foreign_distribution(thorough=context.invoked_subcommand in ("doctor", "storage"))


def _warn_of_foreign_distribution(*, thorough: bool) -> None:
    from ..plugins import foreign_distribution_warning

    if (text := foreign_distribution_warning(thorough=thorough)) is not None:
        output.note(f"warning: {text}")


app.command(cls=Command)(chat)
app.command(cls=Command)(usage)
app.command(cls=Command)(calls)
app.command("init-db", cls=Command)(init_db)
app.command(cls=Command)(health)
app.command(cls=Command)(purge)
app.command(cls=Command)(forget)
app.command(cls=Command)(doctor)
app.add_typer(models.app, name="models")
app.add_typer(storage.app, name="storage")
