"""`llmbridge storage plugins`: lists the installed storage plugins."""

from __future__ import annotations

from dataclasses import asdict

import typer

from ... import output
from ...options import Json, settings
from ...output import Column


def plugins(context: typer.Context, json: Json = False) -> None:
    """List the installed storage plugins; a broken one with its error."""
    from ....plugins import storage_plugins

    found = storage_plugins()
    if settings(context, json=json).json:
        output.json({"plugins": [asdict(plugin) for plugin in found]})
        return
    columns = [Column("scheme"), Column("distribution"), Column("version"), Column("capabilities, or why not usable")]
    output.table(
        columns,
        [
            [plugin.name, plugin.distribution, plugin.version, plugin.error or ", ".join(plugin.capabilities) or "-"]
            for plugin in found
        ],
    )
