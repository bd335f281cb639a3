"""`llmbridge calls`: lists the latest calls."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .. import database, filters, output
from ..options import (
    Database,
    Json,
    Models,
    Origins,
    Plugin,
    Providers,
    ResponseModels,
    Settings,
    Since,
    Statuses,
    Tags,
    Until,
    Users,
    Zone,
    settings,
)
from ..output import Column

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo

    from ...reports import CallList
    from ...schemas import CallRecord


def calls(
    context: typer.Context,
    user: Users = None,
    origin: Origins = None,
    provider: Providers = None,
    model: Models = None,
    status: Statuses = None,
    response_model: ResponseModels = None,
    tag: Tags = None,
    since: Since = None,
    until: Until = None,
    limit: Annotated[int, typer.Option("--limit", "-n", metavar="N", min=1, max=1000, help="Most calls to show.")] = 20,
    cursor: Annotated[
        str | None,
        typer.Option(metavar="CURSOR", help="Continue where the page before ended.", show_default=False),
    ] = None,
    tz: Zone = "UTC",
    db: Database = None,
    plugin: Plugin = None,
    json: Json = False,
) -> None:
    """List calls, newest first.

    With --json whole records, and in "next" the cursor of the next page (null: there is none).
    """
    zone = filters.zone(tz)
    now = datetime.now(UTC)
    arguments = {
        "since": filters.instant("--since", since, zone, now),
        "until": filters.instant("--until", until, zone, now),
        "origin": filters.accepted(origin),
        "id_at_origin": filters.accepted(user),
        "provider": filters.accepted(provider),
        "model_name": filters.accepted(model),
        "status": filters.accepted(status),
        "response_model": filters.accepted(response_model),
        "tags": filters.tags(tag),
        "limit": limit,
        "cursor": cursor,
    }
    asked = settings(context, db, json, plugin)
    page = asyncio.run(_find(asked, arguments))
    if asked.json:
        output.json({"calls": [call.model_dump() for call in page.calls], "next": page.next})
        return
    columns = [
        Column(f"time ({tz})", "mark"),
        Column("origin/user"),
        Column("model"),
        Column("tokens", "figure"),
        Column("cost $", "figure"),
        Column("ms", "figure"),
        Column("status", "mark"),
    ]
    output.table(columns, [_cells(call, zone) for call in page.calls])
    if page.next is not None:
        output.note(f"there are more: add --cursor {page.next}")


async def _find(asked: Settings, arguments: dict[str, Any]) -> CallList:
    from ...db import LLMDatabase

    with filters.invalid_arguments():
        # Without a database: a wrong query is refused before anything is opened.
        await LLMDatabase().find_calls(**arguments)
    async with database.opened(asked) as db:
        return await db.find_calls(**{**arguments, **await filters.split_models(db, arguments)})


def _cells(call: CallRecord, zone: ZoneInfo) -> list[str]:
    cost = output.money(call.estimated_cost) if call.estimated_cost is not None else call.cost_reason or "unknown"
    return [
        call.called_at.astimezone(zone).strftime("%Y-%m-%d %H:%M:%S"),
        f"{call.origin}/{'-' if call.id_at_origin is None else call.id_at_origin}",
        f"{call.provider}:{call.model_name}",
        output.count(call.total_tokens),
        cost,
        output.count(call.response_time_ms),
        call.status,
    ]
