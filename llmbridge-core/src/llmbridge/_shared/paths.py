"""User's state directory: where llmbridge keeps files on this machine besides the user's databases."""

from __future__ import annotations

import os
from pathlib import Path


def directory() -> Path:
    """Return `$XDG_STATE_HOME/llmbridge`, else `~/.local/state/llmbridge`; it need not exist.

    A relative XDG_STATE_HOME is ignored, as the XDG Base Directory Specification requires.

    :raises RuntimeError: the user's home directory cannot be determined
    """
    base = os.environ.get("XDG_STATE_HOME", "")
    home = Path(base) if os.path.isabs(base) else Path.home() / ".local" / "state"
    return home / "llmbridge"
