"""Files that belong to one user alone, created so that they survive a loss of power."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import sys
import tempfile
from contextlib import suppress
from pathlib import Path


def check_private(path: Path) -> None:
    """Check that nobody but this user can have put a file there: file and directory are the user's, others may neither
    read nor write the file, nor write to the directory, and the file is no link. What does not exist yet is fine.

    The file is not opened: closing a file releases all locks that this process has on it, also those of SQLite. As only
    this user may write to the directory, it is still the same file when it is opened. Windows has no such modes.

    :raises PermissionError: it is not so; the text says what to do
    :raises OSError: it cannot be checked
    """
    if sys.platform == "win32":
        return
    with suppress(FileNotFoundError, NotADirectoryError):
        _check_directory(path.parent)
        found = os.lstat(path)
        if stat.S_ISLNK(found.st_mode):
            raise _not_private(path, "it is a symbolic link; remove it")
        _check_file(path, found)


def read_private(path: Path) -> bytes:
    """Return the content of a file that belongs to this user alone, as `check_private` defines it.

    :raises OSError: it does not, or it cannot be read
    """
    check_private(path)
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | getattr(os, "O_NOFOLLOW", 0))) as file:
        if sys.platform != "win32":
            _check_file(path, os.fstat(file.fileno()))
        return file.read()


def _check_directory(folder: Path) -> None:
    found = os.stat(folder)
    if found.st_uid != os.geteuid():
        raise _not_private(folder, f"the directory belongs to user {found.st_uid}; use one of your own")
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise _not_private(folder, "others may write to the directory; run chmod go-w, or use another one")


def _check_file(path: Path, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise _not_private(path, "it is not a file; remove it")
    if found.st_uid != os.geteuid():
        raise _not_private(path, f"the file belongs to user {found.st_uid}; remove it, or use another directory")
    if found.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise _not_private(path, "others may read or write the file; look whether it is still yours, and run chmod 600")


def _not_private(path: Path, why: str) -> PermissionError:
    return PermissionError(errno.EPERM, why, str(path))


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

    :raises OSError: it cannot be written, or others may write to the directory; the old content stays
    """
    make(path.parent)
    if sys.platform != "win32":
        _check_directory(path.parent)
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
