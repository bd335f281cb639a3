"""`llmbridge storage migrate`: migrates the schema."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import typer

from ... import database, output
from ...options import Database, Json, Plugin, Settings, settings

if TYPE_CHECKING:
    from ....storage import MigrationReport


def migrate(context: typer.Context, db: Database = None, plugin: Plugin = None, json: Json = False) -> None:
    """Bring the schema up to date."""
    asked = settings(context, db, json, plugin)
    report = asyncio.run(_migrate(asked))
    if asked.json:
        output.json({"applied": report.applied, "skipped": report.skipped, "total": report.total})
        return
    output.line(f"applied: {', '.join(report.applied) or 'none'}")
    output.line(f"there already: {', '.join(report.skipped) or 'none'}")


async def _migrate(asked: Settings) -> MigrationReport:
    db, choice = database.connect(asked)
    try:
        with choice.explained():
            return await db.apply_migrations()
    finally:
        await db.close()
