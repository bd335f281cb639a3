"""Options that choose models by provider, abilities and size."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ...exit_codes import UserError

_ABILITIES = {
    "vision": "vision",
    "tools": "function_calling",
    "parallel-tools": "parallel_tool_calls",
    "json": "json_mode",
}

Can = Annotated[
    list[str] | None,
    typer.Option(metavar="ABILITY,...", help="Only those that can do vision, tools, parallel-tools, json. Repeatable."),
]
Context = Annotated[
    int | None, typer.Option(metavar="TOKENS", min=1, help="With a context of at least that.", show_default=False)
]


def wanted(provider: str | None, can: list[str] | None, min_context: int | None) -> dict[str, Any]:
    """Return the arguments of `Models.search` and `Models.cheapest` for these options."""
    abilities = [name.strip() for word in can or () for name in word.split(",")]
    for name in abilities:
        if name not in _ABILITIES:
            raise UserError(f"--can {name!r} is not an ability; known: {', '.join(_ABILITIES)}")
    return {"provider": provider, "min_context": min_context, **{_ABILITIES[name]: True for name in abilities}}
