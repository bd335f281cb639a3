"""Files that only their owner may read, made so that a loss of power does not take them."""

from __future__ import annotations

import os
import sys
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
