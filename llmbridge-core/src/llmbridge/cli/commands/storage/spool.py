"""`llmbridge storage spool`: shows the calls that wait on this machine; retries, adopts or discards them."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ... import database, filters, output
from ...confirmation import confirm
from ...exit_codes import UserError
from ...options import Database, Json, Plugin, Settings, Yes, settings
from ...output import Column

if TYPE_CHECKING:
    from ....db import LLMDatabase
    from ....reports import SpoolFileStatus

#: How many reasons why calls were set aside are shown.
_REASONS = 10

#: Timeout of moving the spooled calls to the database, in seconds.
_TIMEOUT = 600.0


def spool(
    context: typer.Context,
    retry: Annotated[
        bool,
        typer.Option(
            "--retry",
            metavar=" ",
            help="Retry the calls that were set aside, and move those that wait.",
            show_default=False,
        ),
    ] = False,
    adopt: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Record the calls in FILE in this database.", show_default=False),
    ] = None,
    discard: Annotated[
        str | None, typer.Option(metavar="FILE", help="Delete the calls in FILE for good.", show_default=False)
    ] = None,
    yes: Yes = False,
    db: Database = None,
    plugin: Plugin = None,
    json: Json = False,
) -> None:
    """Show how many calls wait for the database on this machine, why others were set aside, and all files of the spool.

    Each file belongs to one database, which `storage status` shows the identity of. Calls "to adopt" were spooled at
    the address of this database and may belong to another one that was there before: --adopt or --discard them. The
    spool is that of this user's programs; LLMBRIDGE_SPOOL_DIR names another directory.
    """
    if adopt is not None and discard is not None:
        raise UserError("give --adopt or --discard, not both")
    asked = settings(context, db, json, plugin)
    found = asyncio.run(_spool(asked, retry=retry, adopt=adopt, discard=discard, yes=yes))
    if asked.json:
        output.json(found)
        return
    for name in ("path", "waiting", "set_aside", "to_adopt"):
        shown = found[name] if name == "path" else f"{found[name]:,}"
        output.line(output.clean(f"{name.replace('_', ' ') + ':':<11}{shown}"))
    if found["reasons"]:
        columns = [Column("calls", "figure"), Column("set aside because")]
        output.table(columns, [[f"{calls:,}", reason] for reason, calls in found["reasons"].items()])
    if found["files"]:
        columns = [Column("file"), Column("database"), Column("identity")]
        figures = [Column("waiting", "figure"), Column("set aside", "figure")]
        output.table([*columns, *figures], [_row(file) for file in found["files"]])


def _row(file: dict[str, Any]) -> list[str]:
    place = file["problem"] or file["target"] or "unknown"
    return [file["name"], place, file["identity"] or "unknown", f"{file['waiting']:,}", f"{file['set_aside']:,}"]


async def _spool(asked: Settings, *, retry: bool, adopt: str | None, discard: str | None, yes: bool) -> dict[str, Any]:
    db, choice = database.connect(asked)
    if (retry or adopt is not None) and (text := choice.missing()) is not None:
        raise UserError(output.clean(text))
    status = await db.spool_status(_REASONS)
    if status is None:
        raise UserError("a database in memory has no spool")
    changed: dict[str, int] = {}
    if discard is not None:
        _confirm_discard(await _file(db, discard), yes=yes)
        changed["discarded"] = await db.discard_spool(discard)
    if retry:
        changed["retried"] = await db.retry_spool()
    if adopt is not None:
        _confirm_adopt(await _file(db, adopt), choice, yes=yes)
    if adopt is not None or changed.get("retried") or (retry and status.waiting):
        try:
            with choice.explained(), filters.invalid_arguments():
                await database.open_existing(db, choice)
                if adopt is not None:
                    changed["adopted"] = await db.adopt_spool(adopt)
        finally:
            await db.close(timeout=_TIMEOUT)
    status = await db.spool_status(_REASONS) or status
    return {**asdict(status), "files": [asdict(file) for file in await db.spool_files()], **changed}


async def _file(db: LLMDatabase, name: str) -> SpoolFileStatus:
    found = next((file for file in await db.spool_files() if file.name == name), None)
    if found is None:
        raise UserError(output.clean(f"the spool has no file {name!r}; llmbridge storage spool lists its files"))
    if found.problem is not None:
        raise UserError(output.clean(found.problem))
    return found


def _confirm_adopt(file: SpoolFileStatus, choice: database.Choice, *, yes: bool) -> None:
    confirm(
        f"{_described(file)} will be recorded in {choice.shown()}, whether or not they belong to it. Go on?", yes=yes
    )


def _confirm_discard(file: SpoolFileStatus, *, yes: bool) -> None:
    confirm(f"{_described(file)} will be deleted for good. Go on?", yes=yes)


def _described(file: SpoolFileStatus) -> str:
    return f"{output.calls(file.waiting + file.set_aside)} of {file.target or 'an unknown database'} in {file.name}"
