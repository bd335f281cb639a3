"""`llmbridge init-db`: creates the database, or migrates it."""

from __future__ import annotations

import asyncio
from typing import Any

import typer

from .. import database, output
from ..options import Database, Json, Plugin, Settings, settings


def init_db(context: typer.Context, db: Database = None, plugin: Plugin = None, json: Json = False) -> None:
    """Create the database, or bring it up to date.

    Missing models of the bundled catalog are added.
    """
    asked = settings(context, db, json, plugin)
    done = asyncio.run(_initialize(asked))
    if asked.json:
        output.json(done)
        return
    if done["created"]:
        output.line("created")
    output.line(f"migrations: {', '.join(done['applied']) or 'none needed'}")
    output.line(f"models: {done['models']}, {done['models_added']} of them added now")


async def _initialize(asked: Settings) -> dict[str, Any]:
    db, choice = database.connect(asked)
    try:
        with choice.explained():
            before = await db.schema_status()
            report = await db.apply_migrations()
            known = await db.backend.list_models(active_only=False) if db.backend is not None else []
            await db.initialize()
        models = await db.list_models(active_only=False)
    finally:
        await db.close()
    return {
        "database": choice.masked(),
        "created": before is not None and before.current is None,
        "applied": report.applied,
        "skipped": report.skipped,
        "models": len(models),
        "models_added": len(models) - len(known),
    }
