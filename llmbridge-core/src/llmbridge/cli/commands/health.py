"""`llmbridge health`: whether the database responds and its schema is up to date."""

from __future__ import annotations

import asyncio
from typing import Any

import typer

from .. import database, output
from ..exit_codes import FAILED
from ..options import Database, Json, Plugin, Settings, settings


def health(context: typer.Context, db: Database = None, plugin: Plugin = None, json: Json = False) -> None:
    """Check whether the database responds, and has a schema that is up to date.

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


async def _check(asked: Settings) -> dict[str, Any]:
    db, choice = database.connect(asked, migrate="check")
    if (text := choice.missing()) is not None:
        target = db.backend.target if db.backend is not None else None
        return {"database": choice.masked(), "status": "unhealthy", "target": target, "error": text}
    try:
        report = await db.health_check()
    finally:
        await db.close()
    return {"database": choice.masked(), **report}
