"""The location of a database: a file, or memory."""

from __future__ import annotations

import errno
import os
import threading
from dataclasses import dataclass
from pathlib import Path

from llmbridge.storage import InvalidStorageURLError, StorageRefusedError
from llmbridge.storage.toolkit import make_private_file

MEMORY = ":memory:"

#: The smallest size of a page, and so of a database: https://www.sqlite.org/fileformat.html
_SMALLEST = 512

#: A thread that creates a file must close it before another thread opens it.
_creating = threading.Lock()


@dataclass(frozen=True, slots=True)
class Location:
    """The absolute path of a database; None: the database is in memory."""

    path: Path | None

    @classmethod
    def of(cls, path: str | os.PathLike[str]) -> Location:
        """Return the location of a path: `~` is the home folder, a relative path starts at the current folder, and
        links are followed.

        :raises InvalidStorageURLError: the text is not a path
        """
        text = os.fspath(path)
        if text == MEMORY:
            return cls(None)
        if not text or "\0" in text:
            raise InvalidStorageURLError(f"invalid path of a SQLite database: {text!r}")
        if "://" in text:
            raise InvalidStorageURLError(
                "SQLiteBackend takes the path of a file, not a URL; pass URLs to llmbridge.db_backends.create_backend"
            )
        return cls(Path(os.path.realpath(os.path.expanduser(text))))

    def __str__(self) -> str:
        return MEMORY if self.path is None else str(self.path)

    def uri(self, mode: str) -> str:
        """Return what SQLite opens, in its mode `rw` or `ro`."""
        if self.path is None:
            return MEMORY
        # Without a log, and no right to create one, SQLite reads a file only if it is told that nothing changes it.
        is_unchanging = mode == "ro" and self.can_only_be_read() and not any(map(os.path.exists, self._log_files()))
        return f"{self.path.as_uri()}?mode={mode}{'&immutable=1' if is_unchanging else ''}"

    def can_only_be_read(self) -> bool:
        """Return whether the file exists, and this user may not write to it or to its write-ahead log."""
        if self.path is None or not self.path.exists():
            return False
        if not _may_write(self.path):
            return True
        return not _may_write(self.path.parent) and not all(map(_may_write, self._log_files()))

    def _log_files(self) -> tuple[str, str]:
        return f"{self.path}-wal", f"{self.path}-shm"

    def create(self) -> None:
        """Create the file, empty and accessible only for its owner, and its folders. An existing file is not changed
        and not opened.

        :raises OSError: the file cannot be created, or an existing file cannot be read
        :raises StorageRefusedError: the existing file is not a SQLite database
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
        """Check what SQLite does not report clearly: it has one code for all reasons why a file cannot be opened, and
        takes any file of a few bytes for an empty database."""
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not os.access(path, os.R_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        if 0 < path.stat().st_size < _SMALLEST:
            raise StorageRefusedError(f"{path} is not a SQLite database; nothing was written. Give another path")


def _may_write(path: str | Path) -> bool:
    return os.access(path, os.W_OK, effective_ids=os.access in os.supports_effective_ids)
