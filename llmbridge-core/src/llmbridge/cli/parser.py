"""The parser's commands and groups, as their help shows them."""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand, TyperGroup


class Command(TyperCommand):
    """A command whose usage has `TEXT` for an argument, and whose help has no type for `--help`."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """The words after the command's name."""
        return [piece.strip("{}") for piece in super().collect_usage_pieces(ctx)]

    def get_help_option(self, ctx: Any) -> Any:
        """`--help`; None where there is none."""
        return _without_type(super().get_help_option(ctx))


class Group(TyperGroup):
    """A group of commands whose help has no type for `--help`."""

    def get_help_option(self, ctx: Any) -> Any:
        """`--help`; None where there is none."""
        return _without_type(super().get_help_option(ctx))


def _without_type(option: Any) -> Any:
    if option is not None:
        option.metavar = " "
    return option
