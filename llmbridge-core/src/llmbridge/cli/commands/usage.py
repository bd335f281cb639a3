"""`llmbridge usage`: calls, tokens and cost, grouped by user, model, time and other fields."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import fields
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
    from ...storage.types import UsageRow

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
            help="Group by origin, user, provider, model, status, error_type, tag:NAME, and one of hour, day, week, "
            "month; none for the total alone. Repeatable. Default: provider,model.",
            show_default=False,
        ),
    ] = None,
    tz: Zone = "UTC",
    user: Users = None,
    origin: Origins = None,
    provider: Providers = None,
    model: Models = None,
    status: Statuses = None,
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
    zone = filters.zone(tz)
    now = datetime.now(UTC)
    start = filters.instant(filters.time("--since", since, now), zone)
    end = filters.instant(filters.time("--until", until, now), zone)
    groups = filters.fields(by or ("provider,model",))
    filters.check_periods(groups, start)
    chosen = {
        "origin": filters.accepted(origin),
        "id_at_origin": filters.accepted(user),
        "provider": filters.accepted(provider),
        "model_name": filters.accepted(model),
        "status": filters.accepted(status),
        "tags": filters.tags(tag),
    }
    asked = settings(context, db, json, plugin)
    question = {"since": start, "until": end, "group_by": groups, "tz": tz, **chosen}
    start, rows = asyncio.run(_ask(asked, question, start if filters.is_back(since) else None))
    if asked.json:
        output.json(
            {
                "since": start,
                "until": end,
                "tz": tz,
                "group_by": groups,
                "rows": [_document(row) for row in rows],
                "total": _document(_total(rows)),
            }
        )
        return
    names, figures = (_TIMES, _durations) if times else (_FIGURES, _figures)
    columns = [
        *(Column(filters.title(name)) for name in groups or ("",)),
        *(Column(name, "figure") for name in names),
    ]
    total = ["total", *[""] * (len(groups) - 1), *figures(_total(rows))]
    table = [[*(_shown(row.key[name]) for name in groups), *figures(row)] for row in rows] if groups else []
    output.table(columns, table, total)


async def _ask(
    asked: Settings, question: dict[str, Any], movable: datetime | None
) -> tuple[datetime | None, list[UsageRow]]:
    """Return the start and the rows. A `movable` start inside a purged day moves back to its midnight."""
    from ...db import LLMDatabase

    with filters.invalid_arguments():
        # Without a database: a wrong query is refused before anything is opened.
        await LLMDatabase().usage(**question)
    async with database.opened(asked) as db:
        await database.tell_of_spool(db)
        question = {**question, **await filters.split_models(db, question)}
        try:
            return question["since"], await db.usage(**question)
        except PurgedDetailError:
            if movable is None:
                raise
        moved = movable.replace(hour=0, minute=0, second=0, microsecond=0)
        rows = await db.usage(**{**question, "since": moved})
    output.note(f"since {moved:%Y-%m-%d %H:%M} UTC: --since is inside a purged day, of which only totals are left")
    return moved, rows


def _total(rows: Sequence[UsageRow]) -> UsageRow:
    from ...storage.reference import Sums

    sums = Sums()
    for row in rows:
        sums.add_row(row)
    return sums.row()


def _figures(row: UsageRow) -> list[str]:
    return [
        output.count(row.calls),
        output.count(row.requests),
        output.count(row.total_tokens),
        _cost(row),
        output.count(row.unpriced_calls),
        output.count(row.unmeasured_calls),
        _success(row),
        _rounded(row.response_time_mean_ms),
    ]


def _durations(row: UsageRow) -> list[str]:
    return [
        output.count(row.calls),
        _success(row),
        _rounded(row.response_time_mean_ms),
        *(_rounded(row.response_time_ms(percent)) for percent in _PERCENTS),
        _rounded(row.first_token_mean_ms),
        *(_rounded(row.first_token_ms(percent)) for percent in _PERCENTS),
    ]


def _cost(row: UsageRow) -> str:
    if not row.unpriced_calls:
        return output.money(row.cost)
    return output.at_least(output.money(row.cost)) if row.cost else "unknown"


def _success(row: UsageRow) -> str:
    return "-" if row.success_rate is None else f"{100 * row.success_rate:.1f}%"


def _rounded(ms: float | None) -> str:
    return "-" if ms is None else f"{round(ms):,}"


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, datetime):
        return value.isoformat(" ", "minutes")
    return value.isoformat() if isinstance(value, date) else str(value)


def _document(row: UsageRow) -> dict[str, Any]:
    """Return a row for JSON: the sums as they are stored, and rates, means and percentiles."""
    summed = {
        f.name: getattr(row, f.name)
        for f in fields(row)
        if f.name not in ("key", "period") and not f.name.endswith("_histogram")
    }
    rate = row.success_rate
    return {
        # The start of an hour keeps its offset, as a day keeps its date: both are in the zone asked for.
        "key": {name: value.isoformat() if isinstance(value, datetime) else value for name, value in row.key.items()},
        **summed,
        "success_rate": None if rate is None else round(rate, 6),
        "response_time_mean_ms": row.response_time_mean_ms,
        **{f"response_time_p{percent}_ms": row.response_time_ms(percent) for percent in _PERCENTS},
        "first_token_mean_ms": row.first_token_mean_ms,
        **{f"first_token_p{percent}_ms": row.first_token_ms(percent) for percent in _PERCENTS},
    }
