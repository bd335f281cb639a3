"""Where a store lies: a file, or memory."""

from __future__ import annotations

import errno
import os
import threading
from dataclasses import dataclass
from pathlib import Path

from llmbridge.storage import InvalidStorageURLError, StorageRefusedError
from llmbridge.storage.toolkit import make_private_file

MEMORY = ":memory:"

#: The size of the smallest page: https://www.sqlite.org/fileformat.html
_SMALLEST = 512

#: A file that one thread has just made must be closed before another one opens it.
_creating = threading.Lock()


@dataclass(frozen=True, slots=True)
class Location:
    """The absolute path of a store's file; None is a store in memory."""

    path: Path | None

    @classmethod
    def of(cls, path: str | os.PathLike[str]) -> Location:
        """The location that a caller means: `~` is home, a relative path starts here and now, links are followed."""
        text = os.fspath(path)
        if text == MEMORY:
            return cls(None)
        if not text or "\0" in text:
            raise InvalidStorageURLError(f"{text!r} is no path of a SQLite file")
        if "://" in text:
            raise InvalidStorageURLError(
                "SQLiteBackend takes the path of a file; llmbridge.db_backends.create_backend takes a URL"
            )
        return cls(Path(os.path.realpath(os.path.expanduser(text))))

    def __str__(self) -> str:
        return MEMORY if self.path is None else str(self.path)

    def uri(self, mode: str) -> str:
        """What SQLite opens, in its mode `rw` or `ro`."""
        return MEMORY if self.path is None else f"{self.path.as_uri()}?mode={mode}"

    def create(self) -> None:
        """Make the file, empty and for its owner alone, and the folders above it. What exists stays as it is, and is
        not opened.

        :raises OSError: it cannot be made, or what exists cannot be read
        :raises StorageRefusedError: what exists is something else than a SQLite database
        """
        if self.path is None:
            return
        with _creating:
            if self.path.exists():
                self._check_file(self.path)
                return
            make_private_file(self.path)

    @staticmethod
    def _check_file(path: Path) -> None:
        """What SQLite would not tell apart: it has one code for all that keeps it from opening a file, and takes a
        file of a few bytes for an empty database, whatever they are."""
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not os.access(path, os.R_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        if 0 < path.stat().st_size < _SMALLEST:
            raise StorageRefusedError(f"{path} is not a SQLite database; nothing was written. Give another path")
