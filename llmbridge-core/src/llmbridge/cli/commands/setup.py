"""`llmbridge init-db` and `llmbridge health`: making the store, and asking it how it is."""

from __future__ import annotations

import asyncio
from typing import Any

import typer

from .. import database, output
from ..exit_codes import FAILED
from ..options import Database, Json, Plugin, Settings, settings
from ..parser import Command


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("init-db", cls=Command)(init_db)
    app.command(cls=Command)(health)


def init_db(context: typer.Context, db: Database = None, plugin: Plugin = None, json: Json = False) -> None:
    """Create the database, or bring it up to date.

    The bundled models are put in it, where they are missing.
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


def health(context: typer.Context, db: Database = None, plugin: Plugin = None, json: Json = False) -> None:
    """Ask whether the database answers, and has a schema that is up to date.

    The exit code is 1 if not, and if it is a file that does not exist. Migrates nothing.
    """
    asked = settings(context, db, json, plugin)
    report = asyncio.run(_check(asked))
    if asked.json:
        output.json(report)
    elif report["status"] == "healthy":
        output.line("healthy")
    else:
        output.line(output.clean(f"{report['status']}: {report['error']}"))
    if report["status"] != "healthy":
        raise typer.Exit(FAILED)


async def _initialize(asked: Settings) -> dict[str, Any]:
    db, choice = database.books(asked)
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


async def _check(asked: Settings) -> dict[str, Any]:
    db, choice = database.books(asked, migrate="check")
    if (text := choice.missing()) is not None:
        target = db.backend.target if db.backend is not None else None
        return {"database": choice.masked(), "status": "unhealthy", "target": target, "error": text}
    try:
        report = await db.health_check()
    finally:
        await db.close()
    return {"database": choice.masked(), **report}
