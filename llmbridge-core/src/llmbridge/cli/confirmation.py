"""Asks at a terminal before something is destroyed."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Iterator

import typer

from . import output
from .exit_codes import UserError


def confirm(question: str, *, yes: bool, unattended: bool = False) -> None:
    """Ask a question at the terminal, and return if the answer is yes.

    :param yes: do not ask
    :param unattended: whether no answer is needed where there is no terminal, as in a script
    :raises UserError: there is no terminal, and an answer is needed
    :raises typer.Exit: the answer is no; nothing was changed
    """
    if yes or (unattended and not _is_a_terminal()):
        return
    if not _is_a_terminal():
        raise UserError(f"{output.clean(question)} There is no terminal to ask at: add --yes")
    output.note(output.clean(f"{question} [y/N] "), end="")
    with _interruptible():
        answer = sys.stdin.readline()
    if answer.strip().lower() not in ("y", "yes"):
        output.note("nothing was changed")
        raise typer.Exit(1)


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Let Ctrl-C end the question: asyncio's own handler would wait for the answer first."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _is_a_terminal() -> bool:
    return sys.stdin is not None and sys.stdin.isatty()
