"""Options that several commands share, and that may stand before or after the command."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

import typer

Database = Annotated[
    str | None,
    typer.Option("--db", metavar="URL", help="Database, such as sqlite:///calls.db or a file.", show_default=False),
]
Json = Annotated[
    bool, typer.Option("--json", metavar=" ", help="Print one JSON document instead of text.", show_default=False)
]
Plugin = Annotated[
    str | None,
    typer.Option(
        "--plugin",
        metavar="NAME",
        help="Distribution that serves the database, if several can.",
        show_default=False,
    ),
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", metavar=" ", help="Change nothing; show what would be done.", show_default=False)
]
Yes = Annotated[
    bool, typer.Option("--yes", "-y", metavar=" ", help="Do not ask before it is done.", show_default=False)
]
Zone = Annotated[str, typer.Option("--tz", metavar="ZONE", help="IANA time zone, such as Europe/Madrid.")]
Since = Annotated[
    str | None,
    typer.Option(
        metavar="TIME",
        help="From then on: 12h, 30d, 4w (back from now), today, yesterday, 2026-01, 2026-01-31, an ISO 8601 time, "
        "or all.",
    ),
]
Until = Annotated[str | None, typer.Option(metavar="TIME", help="Until then, itself not included.", show_default=False)]
Users = Annotated[
    list[str] | None,
    typer.Option("--user", metavar="ID", help="Only this user (id_at_origin); '' for calls without one. Repeatable."),
]
Origins = Annotated[
    list[str] | None, typer.Option("--origin", metavar="NAME", help="Only this application. Repeatable.")
]
Providers = Annotated[
    list[str] | None, typer.Option("--provider", metavar="NAME", help="Only this provider. Repeatable.")
]
Models = Annotated[
    list[str] | None,
    typer.Option(
        "--model", metavar="NAME", help="Only this model: NAME or PROVIDER:NAME. Repeatable for one provider."
    ),
]
ResponseModels = Annotated[
    list[str] | None,
    typer.Option("--response-model", metavar="NAME", help="Only calls that this model answered. Repeatable."),
]
Statuses = Annotated[
    list[str] | None,
    typer.Option(
        "--status", metavar="STATUS", help="Only success, error, timeout, rate_limited or cancelled. Repeatable."
    ),
]


Provider = Annotated[str | None, typer.Option(metavar="NAME", help="Only this provider.")]
Tags = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME=VALUE", help="Only calls with this metadata. Repeatable with other values."),
]


@dataclass(frozen=True, slots=True)
class Settings:
    """The database and the output format that were asked for."""

    db: str | None = None
    json: bool = False
    plugin: str | None = None


def settings(context: typer.Context, db: str | None = None, json: bool = False, plugin: str | None = None) -> Settings:
    """Return the options before and after the command; those after it come first."""
    found = context.find_object(Settings) or Settings()
    return replace(
        found,
        db=found.db if db is None else db,
        json=found.json or json,
        plugin=found.plugin if plugin is None else plugin,
    )
