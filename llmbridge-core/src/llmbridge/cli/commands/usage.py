"""`llmbridge usage`: calls, tokens and cost, grouped by user, model, time and other fields."""

from __future__ import annotations

import asyncio
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ...errors import PurgedDetailError
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
    from ...reports import UsageResult, UsageResults

_FIGURES = ("calls", "re|quests", "tokens", "cost $", "un|priced", "un|measured", "success", "mean| ms")
_PERCENTS = (50, 95, 99)
_TIMES = ("calls", "success", "mean| ms", "p50", "p95", "p99", "first| mean", "first| p50", "first| p95", "first| p99")


def usage(
    context: typer.Context,
    since: Since = "30d",
    until: Until = None,
    by: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FIELD,...",
            help="Group by origin, user, provider, model, status, response_model, error_type, tag:NAME, and one of "
            "hour, day, week, month; none for the total alone. Repeatable. Default: provider,model.",
            show_default=False,
        ),
    ] = None,
    tz: Zone = "UTC",
    user: Users = None,
    origin: Origins = None,
    provider: Providers = None,
    model: Models = None,
    status: Statuses = None,
    response_model: ResponseModels = None,
    tag: Tags = None,
    times: Annotated[
        bool,
        typer.Option(
            "--times", metavar=" ", help="Show how long calls took instead of what they cost.", show_default=False
        ),
    ] = False,
    db: Database = None,
    plugin: Plugin = None,
    json: Json = False,
) -> None:
    """Show calls, tokens and exact cost, grouped by fields.

    The cost of "unpriced" calls is unknown: the sum is then marked ≥, or is "unknown" if there are no others.
    "unmeasured" calls have unknown tokens. Times are of successful calls, in milliseconds; with --times, those under
    "first" are to the first token, and percentiles are within 1.1 %. --json has all of it. If --since counts back from
    now into a purged day, it moves back to the midnight (UTC) of that day, and a note says so.
    """
    from ...reports import is_before_now

    zone = filters.zone(tz)
    now = datetime.now(UTC)
    start, end = filters.instant("--since", since, zone, now), filters.instant("--until", until, zone, now)
    groups = filters.fields(by or ("provider,model",))
    filters.check_periods(groups, start)
    chosen = {
        "origin": filters.accepted(origin),
        "id_at_origin": filters.accepted(user),
        "provider": filters.accepted(provider),
        "model_name": filters.accepted(model),
        "status": filters.accepted(status),
        "response_model": filters.accepted(response_model),
        "tags": filters.tags(tag),
    }
    asked = settings(context, db, json, plugin)
    arguments = {"since": start, "until": end, "group_by": groups, "tz": tz, **chosen}
    start, rows = asyncio.run(_ask(asked, arguments, start if is_before_now(since) else None))
    if asked.json:
        output.json(
            {
                "since": start,
                "until": end,
                "tz": tz,
                "group_by": groups,
                "rows": [_document(row) for row in rows],
                "total": _document(rows.total()),
            }
        )
        return
    names, figures = (_TIMES, _durations) if times else (_FIGURES, _figures)
    columns = [
        *(Column(filters.title(name)) for name in groups or ("",)),
        *(Column(name, "figure") for name in names),
    ]
    total = ["total", *[""] * (len(groups) - 1), *figures(rows.total())]
    table = [[*(_shown(row.key[name]) for name in groups), *figures(row)] for row in rows] if groups else []
    output.table(columns, table, total)


async def _ask(
    asked: Settings, arguments: dict[str, Any], movable: datetime | None
) -> tuple[datetime | None, UsageResults]:
    """Return the start and the rows. A `movable` start inside a purged day moves back to its midnight."""
    from ...db import LLMDatabase

    with filters.invalid_arguments():
        # Without a database: a wrong query is refused before anything is opened.
        await LLMDatabase().usage(**arguments)
    async with database.opened(asked) as db:
        await database.tell_of_spool(db)
        arguments = {**arguments, **await filters.split_models(db, arguments)}
        try:
            return arguments["since"], await db.usage(**arguments)
        except PurgedDetailError:
            if movable is None:
                raise
        moved = movable.replace(hour=0, minute=0, second=0, microsecond=0)
        rows = await db.usage(**{**arguments, "since": moved})
    output.note(f"since {moved:%Y-%m-%d %H:%M} UTC: --since is inside a purged day, of which only totals are left")
    return moved, rows


def _figures(row: UsageResult) -> list[str]:
    return [
        output.count(row.calls),
        output.count(row.requests),
        output.count(row.total_tokens),
        _cost(row),
        output.count(row.unpriced_calls),
        output.count(row.unmeasured_calls),
        _success(row),
        _ms(row.response_time_mean_ms),
    ]


def _durations(row: UsageResult) -> list[str]:
    return [
        output.count(row.calls),
        _success(row),
        _ms(row.response_time_mean_ms),
        *(_ms(row.response_time_ms(percent)) for percent in _PERCENTS),
        _ms(row.first_token_mean_ms),
        *(_ms(row.first_token_ms(percent)) for percent in _PERCENTS),
    ]


def _cost(row: UsageResult) -> str:
    if not row.unpriced_calls:
        return output.money(row.cost)
    return output.at_least(output.money(row.cost)) if row.cost else "unknown"


def _success(row: UsageResult) -> str:
    return "-" if row.success_rate is None else f"{100 * row.success_rate:.1f}%"


def _ms(ms: int | None) -> str:
    return "-" if ms is None else f"{ms:,}"


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, datetime):
        return value.isoformat(" ", "minutes")
    return value.isoformat() if isinstance(value, date) else str(value)


def _document(row: UsageResult) -> dict[str, Any]:
    """Return a row for JSON. The start of an hour keeps its offset, as a day keeps its date: both are in the zone that
    was asked for."""
    key = {name: value.isoformat() if isinstance(value, datetime) else value for name, value in row.key.items()}
    return {**row.model_dump(), "key": key}
