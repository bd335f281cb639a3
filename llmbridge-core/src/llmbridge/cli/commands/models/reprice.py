"""`llmbridge models reprice`: gives recorded calls their cost by the current prices."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any
from zoneinfo import ZoneInfo

import typer

from ... import database, filters, output
from ...exit_codes import UserError
from ...options import Database, DryRun, Json, Models, Origins, Plugin, Providers, Settings, Users, settings
from ...output import Column

if TYPE_CHECKING:
    from ....reports import RepriceReport

#: How many calls are examined between two notes of progress.
_REPORT_EVERY = 50_000


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
    provider: Providers = None,
    model: Models = None,
    priced_as: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PROVIDER=LIST",
            help="The price list for the calls of a provider that no list has priced so far. Repeatable.",
        ),
    ] = None,
    dry_run: DryRun = False,
    db: Database = None,
    plugin: Plugin = None,
    json: Json = False,
) -> None:
    """Give recorded calls the cost that the current prices have for the time of each call.

    The previous cost stays beside the new one, and sums follow. Calls do not change if their cost came from the caller
    or the provider, or if their model has no price now. The command may be interrupted and run again. Purged calls keep
    their cost.
    """
    if start is None:
        raise UserError("--from is missing: write --from 2026-01-31, or --from all")
    now, utc = datetime.now(UTC), ZoneInfo("UTC")
    arguments = {
        "since": filters.instant("--from", start, utc, now),
        "until": filters.instant("--to", end, utc, now),
        "id_at_origin": filters.accepted(user),
        "origin": filters.accepted(origin),
        "provider": filters.accepted(provider),
        "model_name": filters.accepted(model),
    }
    lists = dict(_pair(text) for text in priced_as or ())
    asked = settings(context, db, json, plugin)
    report = asyncio.run(_reprice(asked, arguments, priced_as=lists, dry_run=dry_run))
    if asked.json:
        output.json(report.model_dump())
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


async def _reprice(asked: Settings, arguments: dict[str, Any], **options: Any) -> RepriceReport:
    def report_progress(report: RepriceReport) -> None:
        if report.examined and not report.examined % _REPORT_EVERY:
            output.note(f"{output.calls(report.examined)} examined, {report.changed:,} changed")

    async with database.opened(asked) as db:
        with filters.invalid_arguments():
            return await db.reprice(
                **{**arguments, **await filters.split_models(db, arguments)}, **options, on_page=report_progress
            )


def _sums(of: Any) -> list[str]:
    return [f"{of.examined:,}", f"{of.changed:,}", output.money(of.cost_before), output.money(of.cost_after)]


def _pair(text: str) -> tuple[str, str]:
    provider, equals, listed = text.partition("=")
    if not provider or not equals or not listed:
        raise UserError(f"--priced-as {text!r} names no list; write PROVIDER=LIST, such as acme=openai")
    return provider, listed
