"""The command line `llmbridge`."""

from __future__ import annotations

from collections.abc import Sequence


def main(args: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; `args` None are those of the process.

    0: done. 1: the operation failed. 2: a mistake in what was asked. 130: interrupted.
    """
    from .app import app
    from .exit_codes import run

    return run(app, args)
