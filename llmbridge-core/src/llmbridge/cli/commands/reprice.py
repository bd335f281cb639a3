"""`llmbridge models reprice`: new costs for calls on the books."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any
from zoneinfo import ZoneInfo

import typer

from .. import database, filters, output
from ..exit_codes import UserError
from ..options import Database, DryRun, Json, Models, Origins, Plugin, Settings, Users, Vendors, settings
from ..output import Column
from ..parser import Command

if TYPE_CHECKING:
    from ..._maintenance.reprice import RepriceReport

#: How many calls are examined between two words about it.
_REPORT_EVERY = 50_000


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command(cls=Command)(reprice)


def reprice(
    context: typer.Context,
    start: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="TIME",
            help="Calls from then on: 2026-01-31 (UTC), 30d, an ISO 8601 time, or all.",
            show_default=False,
        ),
    ] = None,
    end: Annotated[
        str | None, typer.Option("--to", metavar="TIME", help="Until then, itself not included.", show_default=False)
    ] = None,
    user: Users = None,
    origin: Origins = None,
    provider: Vendors = None,
    model: Models = None,
    priced_as: Annotated[
        list[str] | None,
        typer.Option(
            metavar="VENDOR=LIST",
            help="Whose price list applies to the calls of a vendor that no list has priced so far. Repeatable.",
        ),
    ] = None,
    dry_run: DryRun = False,
    db: Database = None,
    plugin: Plugin = None,
    json: Json = False,
) -> None:
    """Give calls on the books the cost that the prices of today say they had when they were made.

    The cost that stood before stays beside the new one, and sums follow. Left alone are calls whose cost came from the
    caller or the vendor, and those of models that have no price now. It may be interrupted and run again. Purged calls
    keep their cost.
    """
    if start is None:
        raise UserError("say from when: --from 2026-01-31, or --from all")
    now, utc = datetime.now(UTC), ZoneInfo("UTC")
    question = {
        "since": filters.instant(filters.time("--from", start, now), utc),
        "until": filters.instant(filters.time("--to", end, now), utc),
        "id_at_origin": filters.accepted(user),
        "origin": filters.accepted(origin),
        "provider": filters.accepted(provider),
        "model_name": filters.accepted(model),
    }
    lists = dict(_pair(text) for text in priced_as or ())
    asked = settings(context, db, json, plugin)
    report = asyncio.run(_reprice(asked, question, priced_as=lists, dry_run=dry_run))
    if asked.json:
        output.json(asdict(report))
        return
    figures = ("calls", "changed", "cost $| before", "cost $| after", "un|priced| before", "un|priced| after")
    output.table(
        [Column("model"), *(Column(name, "figure") for name in figures)],
        [
            [f"{one.provider}:{one.model_name}", *_sums(one), f"{one.unpriced_before:,}", f"{one.unpriced_after:,}"]
            for one in report.models
        ],
        [
            "total",
            *_sums(report),
            f"{sum(one.unpriced_before for one in report.models):,}",
            f"{sum(one.unpriced_after for one in report.models):,}",
        ],
    )
    if dry_run:
        output.note("dry run: nothing was changed")


async def _reprice(asked: Settings, question: dict[str, Any], **options: Any) -> RepriceReport:
    def told(report: RepriceReport) -> None:
        if report.examined and not report.examined % _REPORT_EVERY:
            output.note(f"{output.calls(report.examined)} examined, {report.changed:,} changed")

    async with database.opened(asked) as db:
        with filters.answerable():
            return await db.reprice(**{**question, **await filters.split(db, question)}, **options, on_page=told)


def _sums(of: Any) -> list[str]:
    from ..._shared.money import text

    return [f"{of.examined:,}", f"{of.changed:,}", text(of.cost_before), text(of.cost_after)]


def _pair(text: str) -> tuple[str, str]:
    vendor, equals, listed = text.partition("=")
    if not vendor or not equals or not listed:
        raise UserError(f"--priced-as {text!r} names no list; write VENDOR=LIST, such as acme=openai")
    return vendor, listed
