"""`llmbridge storage spool`: shows the calls that wait for the database, and retries those that were set aside."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import Annotated, Any

import typer

from ... import database, output
from ...exit_codes import UserError
from ...options import Database, Json, Plugin, Settings, settings
from ...output import Column

#: How many reasons why calls were set aside are shown.
_REASONS = 10

#: Timeout of moving the spooled calls to the database, in seconds.
_TIMEOUT = 600.0


def spool(
    context: typer.Context,
    retry: Annotated[
        bool,
        typer.Option(
            "--retry",
            metavar=" ",
            help="Retry the calls that were set aside, and move those that wait.",
            show_default=False,
        ),
    ] = False,
    db: Database = None,
    plugin: Plugin = None,
    json: Json = False,
) -> None:
    """Show how many calls wait for the database on this machine, and why others were set aside.

    The spool is that of this user's programs; LLMBRIDGE_SPOOL_DIR names another directory.
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


async def _spool(asked: Settings, *, retry: bool) -> dict[str, Any]:
    db, choice = database.connect_existing(asked)
    status = await db.spool_status(_REASONS)
    if status is None:
        raise UserError("a database in memory has no spool")
    retried = 0
    if retry:
        retried = await db.retry_spool()
        if retried or status.waiting:
            try:
                with choice.explained():
                    await db.initialize()
            finally:
                await db.close(timeout=_TIMEOUT)
        status = await db.spool_status(_REASONS) or status
    return {**asdict(status), "retried": retried}
