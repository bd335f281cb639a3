"""`llmbridge forget`: erases the name of a user from calls and totals."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from .. import database, output
from ..confirmation import confirm
from ..options import Database, DryRun, Json, Plugin, Settings, Yes, settings
from ..output import Column

if TYPE_CHECKING:
    from ...reports import Forgotten


def forget(
    context: typer.Context,
    user: Annotated[str, typer.Argument(metavar="USER", help="The user (id_at_origin).", show_default=False)],
    origin: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Only in calls of this application; default: all.", show_default=False),
    ] = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    db: Database = None,
    plugin: Plugin = None,
    json: Json = False,
) -> None:
    """Erase the name of a user from every call and total.

    The calls and their cost stay in all sums, without a user. Metadata is not changed: do not put names there.
    """
    asked = settings(context, db, json, plugin)
    found = asyncio.run(_forget(asked, user, origin, dry_run=dry_run, yes=yes))
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


async def _forget(asked: Settings, user: str, origin: str | None, *, dry_run: bool, yes: bool) -> list[Forgotten]:
    async with database.opened(asked) as db:
        found = await db.forget(user, origin, dry_run=True)
        if dry_run or not found:
            return found
        told = output.calls(sum(one.calls for one in found))
        confirm(
            f"erase the user {user!r} from {told} of {', '.join(one.origin for one in found)}?",
            yes=yes,
            unattended=True,
        )
        return await db.forget(user, origin)
