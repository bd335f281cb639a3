"""`llmbridge storage …`: the kinds of database that are installed, the schema of one, and what waits for it."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .. import database, output
from ..exit_codes import UserError
from ..options import Database, Json, Plugin, Settings, settings
from ..output import Column
from ..parser import Command, Group

if TYPE_CHECKING:
    from ..._maintenance.copy import CopyReport
    from ...storage.types import MigrationReport

#: How many calls are copied between two words about it.
_REPORT_EVERY = 50_000
#: How many reasons why calls were set aside are shown.
_REASONS = 10
#: Seconds that calls get to leave the spool.
_PATIENCE = 600.0

app = typer.Typer(
    cls=Group,
    rich_markup_mode="markdown",
    help="Show storage plugins, the schema of a database and what waits for it; copy books.",
)


@app.command(cls=Command)
def plugins(context: typer.Context, json: Json = False) -> None:
    """List the storage plugins that are installed; a broken one with its error."""
    from ...plugins import storage_plugins

    found = storage_plugins()
    if settings(context, json=json).json:
        output.json({"plugins": [asdict(plugin) for plugin in found]})
        return
    columns = [Column("scheme"), Column("distribution"), Column("version"), Column("capabilities, or why not usable")]
    output.table(
        columns,
        [
            [plugin.name, plugin.distribution, plugin.version, plugin.error or ", ".join(plugin.capabilities) or "-"]
            for plugin in found
        ],
    )


@app.command(cls=Command)
def status(context: typer.Context, db: Database = None, plugin: Plugin = None, json: Json = False) -> None:
    """Show how far the schema is; migrates nothing."""
    asked = settings(context, db, json, plugin)
    found = asyncio.run(_status(asked))
    if asked.json:
        output.json(found)
        return
    for name, value in (
        ("target", found["target"] or "in memory"),
        ("current", found["current"] or "none: the store is empty"),
        ("head", found["head"]),
        ("pending", ", ".join(found["pending"]) or "none"),
        ("writable", "yes" if found["writable"] else "no: it was migrated by a newer release; upgrade llmbridge"),
    ):
        output.line(output.clean(f"{name + ':':<10}{value}"))


@app.command(cls=Command)
def migrate(context: typer.Context, db: Database = None, plugin: Plugin = None, json: Json = False) -> None:
    """Bring the schema up to date."""
    asked = settings(context, db, json, plugin)
    report = asyncio.run(_migrate(asked))
    if asked.json:
        output.json({"applied": report.applied, "skipped": report.skipped, "total": report.total})
        return
    output.line(f"applied: {', '.join(report.applied) or 'none'}")
    output.line(f"there already: {', '.join(report.skipped) or 'none'}")


@app.command(cls=Command)
def spool(
    context: typer.Context,
    retry: Annotated[
        bool,
        typer.Option(
            "--retry", metavar=" ", help="Try again what was set aside, and move what waits.", show_default=False
        ),
    ] = False,
    db: Database = None,
    plugin: Plugin = None,
    json: Json = False,
) -> None:
    """Show how many calls wait for the database on this machine, and why others were set aside.

    It looks where this user's programs let them wait; set LLMBRIDGE_SPOOL_DIR to look elsewhere.
    """
    asked = settings(context, db, json, plugin)
    found = asyncio.run(_spool(asked, retry=retry))
    if asked.json:
        output.json(found)
        return
    for name in ("path", "waiting", "set_aside"):
        shown = found[name] if name == "path" else f"{found[name]:,}"
        output.line(output.clean(f"{name.replace('_', ' ') + ':':<11}{shown}"))
    if found["reasons"]:
        columns = [Column("calls", "figure"), Column("set aside because")]
        output.table(columns, [[f"{calls:,}", reason] for reason, calls in found["reasons"].items()])


@app.command(cls=Command)
def copy(
    context: typer.Context,
    source: Annotated[str, typer.Argument(metavar="FROM", help="Database to read.", show_default=False)],
    target: Annotated[
        str, typer.Argument(metavar="TO", help="Database to write, made where it is missing.", show_default=False)
    ],
    json: Json = False,
) -> None:
    """Carry the books to another database: calls with their ids, models, own prices, totals of purged days.

    It may be interrupted and run again: what is there already stays as it is. Of days that FROM has purged TO must have
    nothing but what an earlier run brought: run it once more before such a purge.
    """
    asked = settings(context, json=json)
    report = asyncio.run(_copy(database.Choice(source, "FROM"), database.Choice(target, "TO")))
    if asked.json:
        output.json(asdict(report))
        return
    output.line(f"calls:  {report.calls:,} copied, {report.duplicates:,} there already, {report.expired:,} too old")
    output.line(f"totals: {report.totals:,} rows of purged days")
    output.line(f"models: {report.models:,}, own prices: {report.prices:,}")


async def _copy(source: database.Choice, target: database.Choice) -> CopyReport:
    from ...db import LLMDatabase

    if (text := source.missing()) is not None:
        raise UserError(output.clean(text))
    with source.explained():
        from_db = LLMDatabase(source.url)
    with target.explained():
        to_db = LLMDatabase(target.url)
    if from_db.backend is None or to_db.backend is None:
        raise UserError("name two databases, such as sqlite:///calls.db postgresql://host/database")
    if from_db.backend.target is not None and from_db.backend.target == to_db.backend.target:
        raise UserError("FROM and TO are the same database")
    async with AsyncExitStack() as closing:
        for db in (from_db, to_db):
            closing.push_async_callback(db.close)
        await database.open_to_read(from_db, source)
        with target.explained():
            await to_db.initialize()
        return await from_db.copy_to(to_db, on_page=_told)


async def _spool(asked: Settings, *, retry: bool) -> dict[str, Any]:
    from ..._recording.writer import make_spool

    db, choice = database.books_to_read(asked)
    place = make_spool(db.backend.target if db.backend is not None else None, None)
    if place is None:
        raise UserError("calls of a database in memory wait nowhere")
    retried = place.retry() if retry else 0
    if retry and place.counts().waiting:
        try:
            with choice.explained():
                await db.initialize()
        finally:
            await db.close(timeout=_PATIENCE)
    return {"path": str(place.path), **asdict(place.counts()), "reasons": place.refusals(_REASONS), "retried": retried}


def _told(report: CopyReport) -> None:
    done = report.calls + report.duplicates + report.expired
    if done and not done % _REPORT_EVERY:
        output.note(f"{output.calls(done)} done")


async def _status(asked: Settings) -> dict[str, Any]:
    db, choice = database.books_to_read(asked)
    try:
        with choice.explained():
            found = await db.schema_status()
    finally:
        await db.close()
    return {"target": db.backend.target if db.backend is not None else None, **(asdict(found) if found else {})}


async def _migrate(asked: Settings) -> MigrationReport:
    db, choice = database.books(asked)
    try:
        with choice.explained():
            return await db.apply_migrations()
    finally:
        await db.close()
