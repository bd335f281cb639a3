"""The files that this process has open, each known by its device and inode.

SQLite keeps its locks per process in memory that a fork copies. A child that opens such a file again takes its
parent's locks for its own; once the parent closes, it writes into a log that is deleted. That loses commits
without an error, so the child is refused. The same goes for a file that was deleted or replaced while it is open.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from pathlib import Path

from llmbridge.storage import StorageRefusedError

Identity = tuple[int, int]

_open: Counter[Identity] = Counter()
_inherited: set[Identity] = set()


def opening(path: Path) -> Identity:
    """Note that the file is being opened; give what `closed` takes.

    :raises StorageRefusedError: the parent of this process had it open when it forked
    """
    found = path.stat()
    identity = found.st_dev, found.st_ino
    if identity in _inherited:
        raise StorageRefusedError(
            f"the SQLite database {path} was open when this process was forked, and SQLite cannot open it again in the "
            "child; disconnect before forking, or start the process by spawn"
        )
    _open[identity] += 1
    return identity


def is_in_place(identity: Identity, path: Path) -> bool:
    """Whether the file that is open is still the one that the path names."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return False
    return (found.st_dev, found.st_ino) == identity


def closed(identity: Identity) -> None:
    """Note that the file was closed."""
    _open[identity] -= 1


def _inherit() -> None:
    _inherited.update(+_open)
    _open.clear()


if sys.platform != "win32":
    os.register_at_fork(after_in_child=_inherit)
