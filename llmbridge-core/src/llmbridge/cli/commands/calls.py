"""`llmbridge calls`: the latest entries of the books."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from .. import database, filters, output
from ..options import (
    Database,
    Json,
    Models,
    Origins,
    Plugin,
    Settings,
    Since,
    Statuses,
    Until,
    Users,
    Vendors,
    Zone,
    settings,
)
from ..output import Column
from ..parser import Command

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo

    from ...schemas import CallRecord
    from ...storage.types import CallPage, CallQuery


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command(cls=Command)(calls)


def calls(
    context: typer.Context,
    user: Users = None,
    origin: Origins = None,
    provider: Vendors = None,
    model: Models = None,
    status: Statuses = None,
    tag: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="Only calls with this metadata. Repeatable with other values."),
    ] = None,
    since: Since = None,
    until: Until = None,
    limit: Annotated[int, typer.Option("--limit", "-n", metavar="N", min=1, max=1000, help="Most calls to show.")] = 20,
    cursor: Annotated[
        str | None, typer.Option(metavar="CURSOR", help="Go on where the page before ended.", show_default=False)
    ] = None,
    tz: Zone = "UTC",
    db: Database = None,
    plugin: Plugin = None,
    json: Json = False,
) -> None:
    """List calls, newest first.

    With --json whole records, and in "next" the cursor of the next page (null: there is none).
    """
    from ..._usage import cursor as cursors
    from ..._usage import periods
    from ..._usage import query as usage_query
    from ...storage.types import CallQuery

    zone = filters.zone(tz)
    now = datetime.now(UTC)
    start = filters.instant(filters.time("--since", since, now), zone)
    end = filters.instant(filters.time("--until", until, now), zone)
    with filters.answerable():
        periods.check_range(start, end)
        query = CallQuery(
            usage_query.filters(
                {
                    "origin": filters.accepted(origin),
                    "id_at_origin": filters.accepted(user),
                    "provider": filters.accepted(provider),
                    "model_name": filters.accepted(model),
                    "status": filters.accepted(status),
                },
                filters.tags(tag),
            ),
            since=start,
            until=end,
            limit=limit,
            after=None if cursor is None else cursors.decode(cursor),
        )
    asked = settings(context, db, json, plugin)
    page = asyncio.run(_ask(asked, query))
    following = cursors.encode(page.next) if page.next is not None else None
    if asked.json:
        output.json({"calls": [call.model_dump() for call in page.calls], "next": following})
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
    if following is not None:
        output.note(f"there are more: add --cursor {following}")


async def _ask(asked: Settings, query: CallQuery) -> CallPage:
    async with database.opened(asked) as db:
        asked_for = {**query.filters, **await filters.split(db, query.filters)}
        return await db.list_calls(replace(query, filters=asked_for))


def _cells(call: CallRecord, zone: ZoneInfo) -> list[str]:
    from ..._shared.money import text

    cost = text(call.estimated_cost) if call.estimated_cost is not None else call.cost_reason or "unknown"
    return [
        call.called_at.astimezone(zone).strftime("%Y-%m-%d %H:%M:%S"),
        f"{call.origin}/{'-' if call.id_at_origin is None else call.id_at_origin}",
        f"{call.provider}:{call.model_name}",
        output.count(call.total_tokens),
        cost,
        output.count(call.response_time_ms),
        call.status,
    ]
