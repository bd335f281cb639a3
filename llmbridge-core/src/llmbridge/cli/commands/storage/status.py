"""`llmbridge storage status`: shows the state of the schema."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import Any

import typer

from ... import database, output
from ...options import Database, Json, Plugin, Settings, settings


def status(context: typer.Context, db: Database = None, plugin: Plugin = None, json: Json = False) -> None:
    """Show the state of the schema. Migrates nothing."""
    asked = settings(context, db, json, plugin)
    found = asyncio.run(_status(asked))
    if asked.json:
        output.json(found)
        return
    for name, value in (
        ("target", found["target"] or "in memory"),
        ("current", found["current"] or "none: the database is empty"),
        ("head", found["head"]),
        ("pending", ", ".join(found["pending"]) or "none"),
        ("identity", found["identity"] or "none"),
        ("writable", _writable(found)),
    ):
        output.line(output.clean(f"{name + ':':<10}{value}"))


def _writable(found: dict[str, Any]) -> str:
    if not found["writable"]:
        return "no: it was migrated by a newer release; upgrade llmbridge"
    return "no: this user may only read it" if found["read_only"] else "yes"


async def _status(asked: Settings) -> dict[str, Any]:
    db, choice = database.connect_existing(asked)
    try:
        with choice.explained():
            found = await db.schema_status()
    finally:
        await db.close()
    return {"target": db.backend.target if db.backend is not None else None, **(asdict(found) if found else {})}
