"""`llmbridge purge`: deletes old calls and keeps the sums over them."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Annotated
from zoneinfo import ZoneInfo

import typer

from ...errors import UnsupportedOperationError
from .. import database, filters, output
from ..confirmation import confirm
from ..exit_codes import UserError
from ..options import Database, DryRun, Json, Plugin, Settings, Yes, settings

if TYPE_CHECKING:
    from ...db import LLMDatabase


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
    compact: Annotated[
        bool,
        typer.Option(
            "--compact",
            metavar=" ",
            help="Give the space of deleted calls back to the file system. SQLite rewrites the whole file for it.",
            show_default=False,
        ),
    ] = False,
    yes: Yes = False,
    force: Annotated[
        bool,
        typer.Option(
            "--force",
            metavar=" ",
            help="Keep less than 7 days, or purge beyond the database's clock or newest call; today's calls stay.",
            show_default=False,
        ),
    ] = False,
    db: Database = None,
    plugin: Plugin = None,
    json: Json = False,
) -> None:
    """Delete old calls, and keep the sums over them for ever.

    Sums are kept per day for origin, user, provider, model and status, and per quarter of an hour without the user. A
    query that needs finer detail of those days is refused from then on. Each day is deleted by itself, oldest first,
    so the command may be interrupted and run again.

    The database uses the space of deleted calls for new ones; --compact makes a SQLite file smaller.
    """
    if older_than is None:
        raise UserError("--older-than is missing: write for example --older-than 90d")
    now = datetime.now(UTC)
    before = filters.instant("--older-than", older_than, ZoneInfo("UTC"), now)
    if before is None:
        raise UserError("--older-than needs a time; all calls would be --older-than 0d --force")
    asked = settings(context, db, json, plugin)
    count, freed = asyncio.run(_purge(asked, before, dry_run=dry_run, force=force, compact=compact, yes=yes))
    if asked.json:
        output.json({"before": before.date(), "calls": count, "dry_run": dry_run, "freed_bytes": freed})
        return
    done = "would be deleted" if dry_run else "deleted"
    output.line(f"{output.calls(count)} before {before.date()} {done}; the sums over them stay")


async def _purge(
    asked: Settings, before: datetime, *, dry_run: bool, force: bool, compact: bool, yes: bool
) -> tuple[int, int | None]:
    """Return how many calls were purged, and how many bytes were given back (None: none were asked for)."""

    def told(day: date, count: int) -> None:
        output.note(f"{day}: {output.calls(count)} deleted")

    async with database.opened(asked) as db:
        with filters.invalid_arguments():
            count = await db.purge(before, dry_run=True, force=force)
            if dry_run:
                return count, None
            if count:
                confirm(
                    f"delete {output.calls(count)} before {before.date()} and keep their sums?",
                    yes=yes,
                    unattended=True,
                )
            count = await db.purge(before, force=force, on_day=told)
        return count, await _compact(db) if compact else None


async def _compact(db: LLMDatabase) -> int | None:
    started = time.monotonic()
    try:
        freed = await db.compact()
    except UnsupportedOperationError as error:
        output.note(output.clean(str(error)))
        return None
    output.note(f"{freed:,} bytes given back in {time.monotonic() - started:.1f} s")
    return freed
