"""Files that this process has open, each known by its device and inode.

SQLite keeps its locks per process in memory that a fork copies. A child that opens such a file again takes its
parent's locks for its own; once the parent closes, it writes into a log that is deleted. That loses commits
without an error, so the child is refused. The same goes for a file that was deleted or replaced while it is open.

SQLite finds the write-ahead log of a file by the file's name. Processes that know one file by two names have two logs,
and each overwrites what the other committed. So a file with two names is refused.
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

#: The kernel's list of what is mounted where. https://man7.org/linux/man-pages/man5/proc_pid_mountinfo.5.html
_MOUNTS = Path("/proc/self/mountinfo")

_open: Counter[Identity] = Counter()
_inherited: set[Identity] = set()


def opening(path: Path) -> Identity:
    """Note that the file is being opened; return what `closed` takes.

    :raises StorageRefusedError: the parent of this process had it open when it forked, or the file may have two names
    """
    found = path.stat()
    if found.st_nlink > 1:
        raise StorageRefusedError(
            f"the SQLite database {path} has {found.st_nlink} names (hard links), and calls recorded under one would "
            "be lost to the other; remove the other names, or copy the file"
        )
    if _is_mount_point(path):
        raise StorageRefusedError(
            f"the SQLite database {path} is mounted as a single file, and calls recorded here and where it comes from "
            "would be lost to each other; mount its folder instead"
        )
    identity = found.st_dev, found.st_ino
    if identity in _inherited:
        raise StorageRefusedError(
            f"the SQLite database {path} was open when this process was forked, and SQLite cannot open it again in the "
            "child; disconnect before forking, or start the process by spawn"
        )
    _open[identity] += 1
    return identity


def identity_of(path: str | Path) -> Identity | None:
    """Return the identity of the file that the path names now; None: there is none."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def closed(identity: Identity) -> None:
    """Note that the file was closed."""
    _open[identity] -= 1


def _is_mount_point(path: Path) -> bool:
    try:
        mounts = os.fsencode(path) in {
            re.sub(rb"\\([0-7]{3})", lambda octal: bytes([int(octal[1], 8)]), line.split()[4])
            for line in _MOUNTS.read_bytes().splitlines()
        }
    except (OSError, IndexError, ValueError):  # no such list on this system, or another format
        return os.path.ismount(path)
    return mounts


def _inherit() -> None:
    _inherited.update(+_open)
    _open.clear()


if sys.platform != "win32":
    os.register_at_fork(after_in_child=_inherit)
