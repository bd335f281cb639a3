"""Commands and groups of the parser, with shorter help."""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand, TyperGroup


class Command(TyperCommand):
    """A command that shows an argument as `TEXT`, and no type for `--help`."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Return the words after the command's name."""
        return [piece.strip("{}") for piece in super().collect_usage_pieces(ctx)]

    def get_help_option(self, ctx: Any) -> Any:
        """Return the option `--help`; None if there is none."""
        return _without_type(super().get_help_option(ctx))


class Group(TyperGroup):
    """A group of commands that shows no type for `--help`."""

    def get_help_option(self, ctx: Any) -> Any:
        """Return the option `--help`; None if there is none."""
        return _without_type(super().get_help_option(ctx))


def _without_type(option: Any) -> Any:
    if option is not None:
        option.metavar = " "
    return option
