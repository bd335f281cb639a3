"""The tree of commands, and the options that stand before a command."""

from __future__ import annotations

from typing import Annotated

import typer

from . import output
from .commands import calls, catalog, chat, models, prices, reprice, setup, storage, upkeep, usage
from .exit_codes import UserError
from .options import Database, Json, Plugin, Settings
from .parser import Group

EPILOG = "\n\n".join(
    (
        "Database: --db, else LLMBRIDGE_DATABASE_URL, else DATABASE_URL (each from the environment, else from ./.env), "
        "else ~/.llmbridge/llmbridge.db. Only chat, init-db, storage migrate and storage copy make a file that does "
        "not exist.",
        "Options: --db, --plugin and --json mean the same right after llmbridge and after the command; of two, the one "
        "after the command counts. storage plugins opens no database, and has only --json; so has storage copy, which "
        "names its two.",
        "Output: results go to stdout, all else to stderr. With --json, stdout is exactly one JSON document, for an "
        'error too: {"error": {"type": "...", "message": "..."}}. Money and the ids of models are text, times are '
        "ISO 8601 in UTC.",
        "Exit codes: 0 done; 1 the operation failed (vendor, store, plugin), or chat has an answer that is not known "
        "to be on the books; 2 a mistake in what was asked (option, URL, unknown model, unknown kind of database, "
        "a file to read that does not exist); 130 interrupted.",
    )
)

app = typer.Typer(
    name="llmbridge",
    cls=Group,
    help="Call any LLM and keep the books: every call, with its exact cost.",
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
    """Call any LLM and keep the books: every call, with its exact cost."""
    context.obj = Settings(db, json, plugin)
    if context.invoked_subcommand is None and json:
        raise UserError("there is no command; llmbridge --help lists them")
    if context.invoked_subcommand is None:
        output.line(context.get_help())
        raise typer.Exit
    _warn_of_foreign_distribution()


def _warn_of_foreign_distribution() -> None:
    from ..plugins import foreign_distribution_warning

    if (text := foreign_distribution_warning()) is not None:
        output.note(f"warning: {text}")


chat.add_to(app)
usage.add_to(app)
calls.add_to(app)
catalog.add_to(models.app)
prices.add_to(models.app)
reprice.add_to(models.app)
app.add_typer(models.app, name="models")
setup.add_to(app)
upkeep.add_to(app)
app.add_typer(storage.app, name="storage")
