"""Asks at a terminal before something is destroyed."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Iterator
from typing import Annotated

import typer

from . import output

Yes = Annotated[
    bool, typer.Option("--yes", "-y", metavar=" ", help="Do not ask; needed only at a terminal.", show_default=False)
]


def confirm(question: str, *, yes: bool) -> None:
    """Ask a question at a terminal. Elsewhere, as in a script, the answer is yes.

    :raises typer.Exit: the answer is no; nothing was changed
    """
    if yes or not _is_a_terminal():
        return
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
    return all(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stderr))
