"""`llmbridge doctor`: checks the database, its totals, the spool and the price data."""

from __future__ import annotations

import asyncio
import os
from dataclasses import asdict
from typing import Annotated, Any

import typer

from .. import database, output
from ..exit_codes import FAILED
from ..options import Database, Json, Plugin, Settings, settings


def doctor(
    context: typer.Context,
    repair: Annotated[
        bool,
        typer.Option(
            "--repair",
            metavar=" ",
            help="Correct wrong totals, and a watermark that a wrong clock has moved.",
            show_default=False,
        ),
    ] = False,
    db: Database = None,
    plugin: Plugin = None,
    json: Json = False,
) -> None:
    """Check the database: whether it responds, its schema, its totals against the calls, the calls in the spool, and
    the price data in use.

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


async def _examine(asked: Settings, *, repair: bool) -> dict[str, Any]:
    from ...errors import StorageError
    from ...plugins import foreign_distribution_warning

    db, choice = database.connect_existing(asked)
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
    data = await db.price_data()
    prices = {"version": data.version, "fetched_at": data.fetched_at, "error": data.error}
    spool = health.get("spool") or {}
    installation = foreign_distribution_warning(thorough=True)
    wrong = {
        "installation": installation is not None,
        "health": not well and not pending,
        "schema": schema is not None and (pending or not schema.writable),
        "totals": totals is not None and totals.wrong > totals.repaired,
        "purged": totals is not None and totals.future_watermark is not None and not repair,
        "spool": bool(spool.get("error") or spool.get("set_aside") or spool.get("to_adopt")),
        "prices": prices["error"] is not None,
    }
    return {
        "database": choice.masked(),
        "health": health,
        "schema": None if schema is None else asdict(schema),
        "totals": None if totals is None else asdict(totals),
        "prices": prices,
        "catalog": db.models.catalog_version,
        "installation": installation,
        "problems": [name for name, is_wrong in wrong.items() if is_wrong],
    }


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
        if (ahead := totals["future_watermark"]) is not None:
            state = f"up to {ahead.date()}, by a clock that was wrong: calls until then are refused"
            did = "corrected" if "purged" not in found["problems"] else "run llmbridge doctor --repair"
            said.append(("purged", f"{state}: {did}"))
    if (spool := health.get("spool")) is not None:
        said.append(("spool", spool["error"] or _waiting(spool)))
    fetched = "" if prices["fetched_at"] is None else f", fetched {output.moment(prices['fetched_at'])}"
    said.append(("prices", prices["error"] or f"{prices['version']}{fetched}"))
    said.append(("catalog", found["catalog"]))
    said.append(("problems", ", ".join(found["problems"]) or "none"))
    return said


def _waiting(spool: dict[str, Any]) -> str:
    aside = f", {spool['set_aside']:,} set aside (llmbridge storage spool says why)" if spool["set_aside"] else ""
    others = f", {spool['to_adopt']:,} to adopt or discard (llmbridge storage spool)" if spool["to_adopt"] else ""
    return f"{output.calls(spool['waiting'])} waiting{aside}{others}, in {os.path.dirname(spool['path'])}"
