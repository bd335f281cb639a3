"""Folders of llmbridge on this machine: the user's state directory, and the folder of the spools."""

from __future__ import annotations

import os
from pathlib import Path

#: Environment variable that names the folder of the spools.
SPOOL_VARIABLE = "LLMBRIDGE_SPOOL_DIR"


def state_directory() -> Path:
    """Return the state directory, which need not exist: `llmbridge` in `$XDG_STATE_HOME` or `~/.local/state` on Linux,
    in `~/Library/Application Support` on macOS, in `%LOCALAPPDATA%` on Windows.

    A relative XDG_STATE_HOME is ignored, as the XDG Base Directory Specification requires.

    :raises RuntimeError: the user's home directory cannot be determined
    """
    import platformdirs

    found = platformdirs.PlatformDirs("llmbridge", appauthor=False).user_state_path
    return found if found.is_absolute() else Path.home() / ".local" / "state" / "llmbridge"


def spool_directory(spool_dir: str | os.PathLike[str] | None = None) -> Path:
    """Return the folder of the spools: `spool_dir`, `$LLMBRIDGE_SPOOL_DIR`, or `spool` in the state directory.

    :raises RuntimeError: the user's home directory cannot be determined
    """
    given = spool_dir if spool_dir is not None else os.environ.get(SPOOL_VARIABLE)
    return Path(os.path.abspath(Path(given).expanduser())) if given else state_directory() / "spool"
