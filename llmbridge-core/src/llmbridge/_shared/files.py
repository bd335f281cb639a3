"""Files that only their owner may read, made so that a loss of power does not take them."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from contextlib import suppress
from pathlib import Path


def make_private_file(path: Path) -> None:
    """Make an empty file for its owner alone, and the folders above it, and bring their names to the disk, without
    which a loss of power takes the file and all that was synced in it. What exists stays as it is, and is not opened:
    closing a file takes away all locks that this process has on it, those of SQLite included.

    :raises OSError: it cannot be made, or it cannot be told whether it is there
    """
    if exists(path):
        return
    for folder in reversed([parent for parent in path.parents if not exists(parent)]):
        folder.mkdir(mode=0o700, exist_ok=True)
        _sync_folder(folder.parent)
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        _sync_folder(path.parent)


def exists(path: Path) -> bool:
    """Whether something is there.

    :raises OSError: that cannot be told
    """
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def _sync_folder(folder: Path) -> None:
    if sys.platform == "win32":
        return
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


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
