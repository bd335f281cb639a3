"""Files that only their owner may read, created so that they survive a loss of power."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from contextlib import suppress
from pathlib import Path


def make_private_file(path: Path) -> None:
    """Create an empty file that only its owner may read, and its parent directories; sync their directory entries.

    Without that sync a loss of power deletes the file, with everything that was synced in it. An existing file stays as
    it is and is not opened: closing a file releases all locks that this process has on it, also those of SQLite.

    :raises OSError: the file cannot be created, or its existence cannot be checked
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
    """Return whether a file or directory of that name exists.

    :raises OSError: it cannot be checked
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
    """Create the directory `folder` and its parents if they do not exist, with mode 0700, and return it.

    :raises OSError: it cannot be created
    """
    missing = [folder] if not folder.exists() else []
    while missing and not missing[-1].parent.exists():
        missing.append(missing[-1].parent)
    for one in reversed(missing):
        one.mkdir(mode=0o700, exist_ok=True)
    return folder


def replace(path: Path, content: bytes) -> None:
    """Replace the content of the file `path` (mode 0600) atomically, and create its directory if needed.

    A reader sees the old content or the new one, also after a crash, and never a part of one.

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
