"""Question that a person answers at the terminal before something is done that cannot be undone."""

from __future__ import annotations

import sys

from . import output
from .exit_codes import UserError


def confirm(question: str, *, yes: bool) -> None:
    """Ask, and return if the answer is yes. `yes`: do not ask.

    :raises UserError: the answer is no, or there is no terminal to ask at
    """
    if yes:
        return
    if sys.stdin is None or not sys.stdin.isatty():
        raise UserError(f"{output.clean(question)} There is no terminal to ask at: add --yes to do it")
    output.note(f"{output.clean(question)} [y/N]")
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise UserError("nothing was changed")
