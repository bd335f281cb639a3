"""`llmbridge storage …`: the kinds of database that are installed, and the schema of one."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import typer

from . import database, output
from .output import Column
from .parser import Command, Group
from .settings import Database, Json, Plugin, Settings, settings

if TYPE_CHECKING:
    from ..storage.types import MigrationReport

app = typer.Typer(cls=Group, rich_markup_mode="markdown", help="Show storage plugins, and the schema of a database.")


@app.command(cls=Command)
def plugins(context: typer.Context, json: Json = False) -> None:
    """List the storage plugins that are installed; a broken one with its error."""
    from ..plugins import storage_plugins

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
