"""The command `llmbridge`. It uses only the public API of llmbridge-core."""

from __future__ import annotations

from collections.abc import Sequence


def main(args: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code. `args` None means the arguments of the process.

    0: done. 1: the operation failed. 2: invalid arguments. 130: interrupted.
    """
    from .app import app
    from .exit_codes import run

    return run(app, args)
