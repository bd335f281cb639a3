"""`llmbridge purge`: deletes old calls and keeps the sums over them."""

from __future__ import annotations

import asyncio
from datetime import UTC, date, datetime
from typing import Annotated
from zoneinfo import ZoneInfo

import typer

from .. import database, filters, output
from ..exit_codes import UserError
from ..options import Database, DryRun, Json, Plugin, Settings, settings


def purge(
    context: typer.Context,
    older_than: Annotated[
        str | None,
        typer.Option(
            "--older-than",
            metavar="TIME",
            help="Calls before then: 90d, 12w (back from now), 2026-01-31; rounded down to a UTC day.",
            show_default=False,
        ),
    ] = None,
    dry_run: DryRun = False,
    force: Annotated[
        bool,
        typer.Option("--force", metavar=" ", help="Keep less than 7 days; today's calls stay.", show_default=False),
    ] = False,
    db: Database = None,
    plugin: Plugin = None,
    json: Json = False,
) -> None:
    """Delete old calls, and keep the sums over them for ever.

    Sums are kept per day for origin, user, provider, model and status, and per quarter of an hour without the user. A
    query that needs finer detail of those days is refused from then on. Each day is deleted by itself, oldest first,
    so the command may be interrupted and run again.
    """
    if older_than is None:
        raise UserError("--older-than is missing: write for example --older-than 90d")
    now = datetime.now(UTC)
    before = filters.instant("--older-than", older_than, ZoneInfo("UTC"), now)
    if before is None:
        raise UserError("--older-than needs a time; all calls would be --older-than 0d --force")
    asked = settings(context, db, json, plugin)
    count = asyncio.run(_purge(asked, before, dry_run=dry_run, force=force))
    if asked.json:
        output.json({"before": before.date(), "calls": count, "dry_run": dry_run})
        return
    done = "would be deleted" if dry_run else "deleted"
    output.line(f"{output.calls(count)} before {before.date()} {done}; the sums over them stay")


async def _purge(asked: Settings, before: datetime, *, dry_run: bool, force: bool) -> int:
    def told(day: date, count: int) -> None:
        output.note(f"{day}: {output.calls(count)} deleted")

    async with database.opened(asked) as db:
        with filters.invalid_arguments():
            return await db.purge(before, dry_run=dry_run, force=force, on_day=told)
