"""The user's state directory: what llmbridge keeps on a machine besides the user's databases."""

from __future__ import annotations

import os
from pathlib import Path


def directory() -> Path:
    """`$XDG_STATE_HOME/llmbridge`, else `~/.local/state/llmbridge`; it need not exist.

    A relative XDG_STATE_HOME is passed over, as the XDG Base Directory Specification asks.

    :raises RuntimeError: there is no home directory to find it in
    """
    base = os.environ.get("XDG_STATE_HOME", "")
    home = Path(base) if os.path.isabs(base) else Path.home() / ".local" / "state"
    return home / "llmbridge"
