"""Register of the files that this process has open, identified by device and inode. It refuses files whose commits
could get lost.

SQLite keeps its locks in the memory of the process, and a fork copies it. If the child opens the same file again,
SQLite takes the parent's locks for the child's; when the parent closes the file, the child writes into a deleted log.
Its commits are lost without an error, so the file is refused in the child. A file that was deleted or replaced while it
is open is refused for the same reason.

SQLite finds the write-ahead log of a file by the name of the file. If two processes open a file under two names, there
are two logs, and each process overwrites what the other has committed. So a file with two names is refused.
https://sqlite.org/howtocorrupt.html#_multiple_links_to_the_same_file
"""

from __future__ import annotations

import os
import re
import sys
from collections import Counter
from pathlib import Path

from llmbridge.storage import StorageRefusedError

Identity = tuple[int, int]

#: The kernel's list of mount points. https://man7.org/linux/man-pages/man5/proc_pid_mountinfo.5.html
_MOUNTS = Path("/proc/self/mountinfo")

_open: Counter[Identity] = Counter()
_inherited: set[Identity] = set()


def register(path: Path) -> Identity:
    """Register a file that is about to be opened, and return its identity.

    :raises StorageRefusedError: the file was open when this process was forked, or it may have two names
    """
    found = path.stat()
    if found.st_nlink > 1:
        raise StorageRefusedError(
            f"the SQLite database {path} has {found.st_nlink} names (hard links), and processes that use different "
            "names would overwrite each other's calls; remove the other names, or copy the file"
        )
    if _is_mount_point(path):
        raise StorageRefusedError(
            f"the SQLite database {path} is mounted as a single file, and processes inside and outside of the mount "
            "would overwrite each other's calls; mount its folder instead"
        )
    identity = found.st_dev, found.st_ino
    if identity in _inherited:
        raise StorageRefusedError(
            f"the SQLite database {path} was open when this process was forked, and SQLite cannot use it in the child; "
            "close the database before the fork, or start the process with spawn"
        )
    _open[identity] += 1
    return identity


def identity_of(path: str | Path) -> Identity | None:
    """Return the identity of the file at the path, None if there is no file."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def unregister(identity: Identity) -> None:
    """Remove a file that was closed."""
    _open[identity] -= 1


def _is_mount_point(path: Path) -> bool:
    try:
        mounts = os.fsencode(path) in {
            re.sub(rb"\\([0-7]{3})", lambda octal: bytes([int(octal[1], 8)]), line.split()[4])
            for line in _MOUNTS.read_bytes().splitlines()
        }
    except (OSError, IndexError, ValueError):  # the system has no such list, or in another format
        return os.path.ismount(path)
    return mounts


def _inherit() -> None:
    _inherited.update(+_open)
    _open.clear()


if sys.platform != "win32":
    os.register_at_fork(after_in_child=_inherit)
