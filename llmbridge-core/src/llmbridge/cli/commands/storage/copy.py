"""`llmbridge storage copy`: copies a database to another one."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from ... import database, output
from ...exit_codes import UserError
from ...options import Json, settings

if TYPE_CHECKING:
    from ....reports import CopyReport

#: How many calls are copied between two notes of progress.
_REPORT_EVERY = 50_000


def copy(
    context: typer.Context,
    source: Annotated[str, typer.Argument(metavar="FROM", help="Database to read.", show_default=False)],
    target: Annotated[
        str, typer.Argument(metavar="TO", help="Database to write; a missing one is created.", show_default=False)
    ],
    json: Json = False,
) -> None:
    """Copy calls with their ids, models, own prices and totals of purged days to another database.

    The command may be interrupted and run again: what TO has already stays as it is. Of days that FROM has purged, TO
    must have nothing but what an earlier run copied: run it once more before such a purge.
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
    from ....db import LLMDatabase

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
        await database.open_existing(from_db, source)
        with target.explained():
            await to_db.initialize()
        return await from_db.copy_to(to_db, on_page=_report_progress)


def _report_progress(report: CopyReport) -> None:
    done = report.calls + report.duplicates + report.expired
    if done and not done % _REPORT_EVERY:
        output.note(f"{output.calls(done)} done")
