"""The user's state directory: what llmbridge keeps on a machine besides a user's databases."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path


def directory() -> Path:
    """`$XDG_STATE_HOME/llmbridge`, else `~/.local/state/llmbridge`; it need not exist.

    A relative XDG_STATE_HOME is passed over, as the XDG Base Directory Specification asks.

    :raises RuntimeError: there is no home directory to find it in
    """
    base = os.environ.get("XDG_STATE_HOME", "")
    home = Path(base) if os.path.isabs(base) else Path.home() / ".local" / "state"
    return home / "llmbridge"


def make(folder: Path) -> Path:
    """`folder`, made where it is missing, parents too; those made are the user's alone (0700).

    :raises OSError: it cannot be made
    """
    missing = [folder] if not folder.exists() else []
    while missing and not missing[-1].parent.exists():
        missing.append(missing[-1].parent)
    for one in reversed(missing):
        one.mkdir(mode=0o700, exist_ok=True)
    return folder


def replace(path: Path, content: bytes) -> None:
    """Put `content` in the file `path` (0600) in one step: whoever reads it, also after a crash, sees the old content
    or the new, never part of one. Its directory is made where it is missing.

    :raises OSError: it cannot be written; the old content stays
    """
    make(path.parent)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with open(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise
