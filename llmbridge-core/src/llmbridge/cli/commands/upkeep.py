"""`llmbridge purge`, `forget` and `doctor`: what the books need over the years."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Annotated, Any
from zoneinfo import ZoneInfo

import typer

from .. import database, filters, output
from ..exit_codes import FAILED, UserError
from ..options import Database, DryRun, Json, Plugin, Settings, settings
from ..output import Column
from ..parser import Command

if TYPE_CHECKING:
    from ..._maintenance.erase import Forgotten


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    app.command(cls=Command)(purge)
    app.command(cls=Command)(forget)
    app.command(cls=Command)(doctor)


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
    force: Annotated[
        bool,
        typer.Option("--force", metavar=" ", help="Keep less than 7 days; today's calls stay.", show_default=False),
    ] = False,
    db: Database = None,
    plugin: Plugin = None,
    json: Json = False,
) -> None:
    """Delete old calls, and keep the sums over them for ever.

    Totals stay per day for origin, user, vendor, model and status, and per quarter of an hour without the user; what
    needs finer detail of those days is refused from then on. One day is deleted at a time, oldest first, so it may be
    interrupted and run again.
    """
    if older_than is None:
        raise UserError("say what is old: --older-than 90d")
    now = datetime.now(UTC)
    before = filters.instant(filters.time("--older-than", older_than, now), ZoneInfo("UTC"))
    if before is None:
        raise UserError("--older-than needs a time; all calls would be --older-than 0d --force")
    asked = settings(context, db, json, plugin)
    count = asyncio.run(_purge(asked, before, dry_run=dry_run, force=force))
    if asked.json:
        output.json({"before": before.date(), "calls": count, "dry_run": dry_run})
        return
    done = "would be deleted" if dry_run else "deleted"
    output.line(f"{output.calls(count)} before {before.date()} {done}; the sums over them stay")


def forget(
    context: typer.Context,
    user: Annotated[str, typer.Argument(metavar="USER", help="Who (id_at_origin).", show_default=False)],
    origin: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Only at this application; not given, at all.", show_default=False),
    ] = None,
    dry_run: DryRun = False,
    db: Database = None,
    plugin: Plugin = None,
    json: Json = False,
) -> None:
    """Take a user's name off every call and total.

    What the user's calls cost stays in all sums, as of nobody in particular. Metadata stays as it is: do not put
    names there.
    """
    asked = settings(context, db, json, plugin)
    found = asyncio.run(_forget(asked, user, origin, dry_run=dry_run))
    if asked.json:
        output.json({"user": user, "dry_run": dry_run, "origins": [asdict(one) for one in found]})
        return
    if not found:
        where = "" if origin is None else f" of {origin!r}"
        output.line(output.clean(f"no call{where} has the user {user!r}"))
        return
    changed = Column("rows changed", "figure")
    columns = [Column("origin"), Column("calls", "figure"), *([] if dry_run else [changed])]
    output.table(columns, [[one.origin, f"{one.calls:,}", f"{one.rows:,}"][: len(columns)] for one in found])


def doctor(
    context: typer.Context,
    repair: Annotated[
        bool, typer.Option("--repair", metavar=" ", help="Put wrong totals right.", show_default=False)
    ] = False,
    db: Database = None,
    plugin: Plugin = None,
    json: Json = False,
) -> None:
    """Examine the books: whether the store answers, its schema, its totals counted anew, the calls that wait in the
    spool, the prices in force.

    The exit code is 1 if something is wrong and was not repaired. Migrates nothing.
    """
    asked = settings(context, db, json, plugin)
    found = asyncio.run(_examine(asked, repair=repair))
    if asked.json:
        output.json(found)
    else:
        for name, value in _findings(found):
            output.line(output.clean(f"{name + ':':<10}{value}"))
    if found["problems"]:
        raise typer.Exit(FAILED)


async def _purge(asked: Settings, before: datetime, *, dry_run: bool, force: bool) -> int:
    def told(day: date, count: int) -> None:
        output.note(f"{day}: {output.calls(count)} deleted")

    async with database.opened(asked) as db:
        with filters.answerable():
            return await db.purge(before, dry_run=dry_run, force=force, on_day=told)


async def _forget(asked: Settings, user: str, origin: str | None, *, dry_run: bool) -> list[Forgotten]:
    async with database.opened(asked) as db:
        return await db.forget(user, origin, dry_run=dry_run)


async def _examine(asked: Settings, *, repair: bool) -> dict[str, Any]:
    from ..._models import catalog
    from ...errors import StorageError

    db, choice = database.books_to_read(asked)
    try:
        try:
            schema = await db.schema_status()
        except StorageError:
            schema = None  # the health check says why
        pending = schema is not None and bool(schema.pending)
        not_asked: dict[str, Any] = {"status": "not asked: the schema is not up to date"}
        health = not_asked if pending else await db.health_check()
        well = health["status"] == "healthy"
        with choice.explained():
            totals = await db.check_totals(repair=repair) if well else None
    finally:
        await db.close()
    prices = _prices()
    wrong = {
        "health": not well and not pending,
        "schema": schema is not None and (pending or not schema.writable),
        "totals": totals is not None and totals.wrong > totals.repaired,
        "spool": bool((health.get("spool") or {}).get("error")),
        "prices": prices["error"] is not None,
    }
    return {
        "database": choice.masked(),
        "health": health,
        "schema": None if schema is None else asdict(schema),
        "totals": None if totals is None else asdict(totals),
        "prices": prices,
        "catalog": catalog.VERSION,
        "problems": [name for name, is_wrong in wrong.items() if is_wrong],
    }


def _prices() -> dict[str, Any]:
    """The edition of the price data in force, and what is wrong with one that was fetched."""
    from ..._pricing.genai_prices import editions
    from ...errors import PriceDataError

    found: dict[str, Any] = {"version": editions.current().version, "fetched_at": None, "error": None}
    try:
        edition = editions.read()
    except PriceDataError as error:
        return {**found, "error": str(error)}
    return {**found, "fetched_at": edition.fetched_at if edition is not None else None}


def _findings(found: dict[str, Any]) -> list[tuple[str, str]]:
    health, schema, totals, prices = found["health"], found["schema"], found["totals"], found["prices"]
    said = [("health", f"{health['status']}{': ' + health['error'] if 'error' in health else ''}")]
    if schema is not None:
        state = f"{schema['current'] or 'empty'} of {schema['head']}"
        if schema["pending"]:
            state += f", pending {', '.join(schema['pending'])}: run llmbridge storage migrate"
        if not schema["writable"]:
            state += ", migrated by a newer release: upgrade llmbridge"
        said.append(("schema", state))
    if totals is not None:
        state = f"{totals['checked']:,} checked, {totals['wrong']:,} wrong, {totals['repaired']:,} repaired"
        if totals["wrong"] > totals["repaired"]:
            state += ": run llmbridge doctor --repair"
        said.append(("totals", state))
    if (spool := health.get("spool")) is not None:
        said.append(("spool", spool["error"] or _waiting(spool)))
    fetched = "" if prices["fetched_at"] is None else f", fetched {output.moment(prices['fetched_at'])}"
    said.append(("prices", prices["error"] or f"{prices['version']}{fetched}"))
    said.append(("catalog", found["catalog"]))
    said.append(("problems", ", ".join(found["problems"]) or "none"))
    return said


def _waiting(spool: dict[str, Any]) -> str:
    aside = f", {spool['set_aside']:,} set aside" if spool["set_aside"] else ""
    return f"{output.calls(spool['waiting'])} waiting{aside}, in {spool['path']}"
