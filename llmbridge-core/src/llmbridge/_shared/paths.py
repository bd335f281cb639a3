"""User's state directory: where llmbridge keeps files on this machine besides the user's databases."""

from __future__ import annotations

from pathlib import Path


def state_directory() -> Path:
    """Return the state directory, which need not exist: `llmbridge` in `$XDG_STATE_HOME` or `~/.local/state` on Linux,
    in `~/Library/Application Support` on macOS, in `%LOCALAPPDATA%` on Windows.

    A relative XDG_STATE_HOME is ignored, as the XDG Base Directory Specification requires.

    :raises RuntimeError: the user's home directory cannot be determined
    """
    import platformdirs

    found = platformdirs.PlatformDirs("llmbridge", appauthor=False).user_state_path
    return found if found.is_absolute() else Path.home() / ".local" / "state" / "llmbridge"
