"""`llmbridge usage`: who spent what, on which model, when."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import fields
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import database, output, questions, vendors
from .output import Column
from .parser import Command
from .settings import (
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

if TYPE_CHECKING:
    from ..storage.types import UsageRow

_FIGURES = ("calls", "re|quests", "tokens", "cost $", "un|priced", "un|measured", "success", "mean| ms")


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command(cls=Command)(usage)


def usage(
    context: typer.Context,
    since: Since = "30d",
    until: Until = None,
    by: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FIELD,...",
            help="Group by origin, user, provider, model, status, error_type, tag:NAME, and one of hour, day, week, "
            "month; none for the total alone. Repeatable. Not given, it is provider,model.",
            show_default=False,
        ),
    ] = None,
    tz: Zone = "UTC",
    user: Users = None,
    origin: Origins = None,
    provider: Vendors = None,
    model: Models = None,
    status: Statuses = None,
    tag: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="Only calls with this metadata. Repeatable with other values."),
    ] = None,
    db: Database = None,
    plugin: Plugin = None,
    json: Json = False,
) -> None:
    """Show calls, tokens and exact cost, summed by what you ask.

    "unpriced" calls have a cost that nobody knows: the sum is then marked ≥, or "unknown" where it holds nothing
    else. "unmeasured" calls have unknown tokens. Times are those of successful calls.
    """
    zone = questions.zone(tz)
    now = datetime.now(UTC)
    start = questions.instant(questions.time("--since", since, now), zone)
    end = questions.instant(questions.time("--until", until, now), zone)
    groups = questions.fields(by or ("provider,model",))
    questions.periods_within(groups, start)
    filters = {
        "origin": questions.accepted(origin),
        "id_at_origin": questions.accepted(user),
        "provider": questions.accepted(provider),
        "model_name": questions.accepted(model),
        "status": questions.statuses(status),
        "tags": questions.tags(tag),
    }
    asked = settings(context, db, json, plugin)
    question = {"since": start, "until": end, "group_by": groups, "tz": tz, **filters}
    rows = asyncio.run(_ask(asked, question))
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
    columns = [
        *(Column(questions.title(name)) for name in groups or ("",)),
        *(Column(name, "figure") for name in _FIGURES),
    ]
    total = ["total", *[""] * (len(groups) - 1), *_figures(_total(rows))]
    table = [[*(_shown(row.key[name]) for name in groups), *_figures(row)] for row in rows] if groups else []
    output.table(columns, table, total)


async def _ask(asked: Settings, question: dict[str, Any]) -> list[UsageRow]:
    from ..db import LLMDatabase

    with questions.answerable():
        # Without a database: a wrong question is refused before anything is opened.
        await LLMDatabase().usage(**question)
    async with database.opened(asked) as db:
        return await db.usage(**{**question, **await vendors.split(db, question)})


def _total(rows: Sequence[UsageRow]) -> UsageRow:
    from ..money import CONTEXT
    from ..storage.types import UsageRow

    sums: dict[str, Any] = {f.name: getattr(UsageRow(), f.name) for f in fields(UsageRow) if f.name != "period"}
    for row in rows:
        for name, value in sums.items():
            more = getattr(row, name)
            if name == "cost":
                sums[name] = CONTEXT.add(value, more)
            elif isinstance(value, int):
                sums[name] = value + more
            elif name != "key":
                sums[name] = {key: value.get(key, 0) + more.get(key, 0) for key in {**value, **more}}
    return UsageRow(**sums)


def _figures(row: UsageRow) -> list[str]:
    succeeded = row.by_status.get("success", 0)
    mean = _mean(row)
    return [
        output.count(row.calls),
        output.count(row.requests),
        output.count(row.total_tokens),
        _cost(row),
        output.count(row.unpriced_calls),
        output.count(row.unmeasured_calls),
        f"{100 * succeeded / row.calls:.1f}%" if row.calls else "-",
        "-" if mean is None else f"{round(mean):,}",
    ]


def _cost(row: UsageRow) -> str:
    from ..money import text

    if not row.unpriced_calls:
        return text(row.cost)
    return output.at_least(text(row.cost)) if row.cost else "unknown"


def _mean(row: UsageRow) -> float | None:
    return row.response_time_ms_sum / row.response_time_ms_count if row.response_time_ms_count else None


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, datetime):
        return value.isoformat(" ", "minutes")
    return value.isoformat() if isinstance(value, date) else str(value)


def _document(row: UsageRow) -> dict[str, Any]:
    """A row for programs: sums as in the books, and what is usually made of them."""
    from ..storage.histogram import percentile

    summed = {
        f.name: getattr(row, f.name)
        for f in fields(row)
        if f.name not in ("key", "period") and not f.name.endswith("_histogram")
    }
    succeeded = row.by_status.get("success", 0)
    times = {
        f"{name}_p{percent}_ms": percentile(histogram, percent / 100)
        for name, histogram in (
            ("response_time", row.response_time_histogram),
            ("first_token", row.first_token_histogram),
        )
        for percent in (50, 95, 99)
    }
    return {
        # The start of an hour keeps its offset, as a day keeps its date: both are of the zone asked for.
        "key": {name: value.isoformat() if isinstance(value, datetime) else value for name, value in row.key.items()},
        **summed,
        "success_rate": round(succeeded / row.calls, 6) if row.calls else None,
        "response_time_mean_ms": _mean(row),
        **times,
    }
