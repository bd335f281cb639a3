"""Spool of one database: the files in which its calls wait while it is away.

A call belongs to the database that it was recorded for, not to an address: another database may be at that address by
the time of the replay, and the database at another address. So calls wait in a file of their database's identity, and
only a database with this identity gets them.

While no database was reached yet, the identity is unknown. Such calls wait in a file of the address. They are bound to
the database that is reached there first, by moving them to its file, if it is older than the first of them, and if no
call was ever spooled for another database of this address. Otherwise they may have been meant for another database, and
wait until a person adopts or discards them.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .._shared.ids import made_at
from .._shared.paths import spool_directory
from ..errors import StorageError
from ..schemas import CallRecord
from .spool_file import NAMES, SpoolFile


@dataclass(frozen=True, slots=True)
class SpoolCounts:
    """Numbers of spooled calls: those that wait for the database, those set aside because the database rejected them,
    and those of its address that may belong to another database."""

    waiting: int = 0
    set_aside: int = 0
    to_adopt: int = 0


@dataclass(frozen=True, slots=True)
class SpoolStatus:
    """State of the spool of a database on this machine.

    `path` is the file in which the next call would wait; it need not exist. `waiting` is the number of calls that wait
    for the database, `set_aside` the number of those that the database refused, and `reasons` are the most frequent
    reasons, each with its number. `to_adopt` is the number of calls that were spooled at the address of the database
    and may belong to another one: they wait until you adopt or discard them.
    """

    path: str
    waiting: int
    set_aside: int
    to_adopt: int
    reasons: dict[str, int]


@dataclass(frozen=True, slots=True)
class SpoolFileStatus:
    """One file of spooled calls: its `name` in the folder of the spool, the address (`target`) and the identity of the
    database that its calls belong to (None: not known), how many of them wait and how many were set aside. `problem`
    says why the file cannot be read (None: it can)."""

    name: str
    target: str | None = None
    identity: str | None = None
    waiting: int = 0
    set_aside: int = 0
    problem: str | None = None


class Spool:
    """The calls of this machine and user that wait for one database.

    :param target: the address of the database, as its backend tells it
    """

    def __init__(self, target: str, spool_dir: str | os.PathLike[str] | None = None) -> None:
        self.target = target
        try:
            self._folder: Path | None = spool_directory(spool_dir)
        except RuntimeError:
            self._folder = None
        self._unbound = SpoolFile(self._folder, target)
        #: Whether the database was reached.
        self.is_recognized = False
        #: Where calls wait now.
        self.file = self._unbound

    @property
    def identity(self) -> str | None:
        """The identity of the database; None: it is not known yet, or the database has none."""
        return self.file.identity

    @property
    def path(self) -> Path:
        """The path of the file where calls wait now, which need not exist.

        :raises StorageUnavailableError: there is no directory for it
        """
        return self.file.path

    @property
    def has_place(self) -> bool:
        """Whether the directory of the files is known; it need not be writable."""
        return self._folder is not None

    def recognize(self, identity: str | None) -> None:
        """Spool calls for the database of this identity from now on: it was reached. None: it has no identity, and its
        address has to do. Nothing is read or written."""
        if identity != self.identity:
            self.file = SpoolFile(self._folder, self.target, identity)
        self.is_recognized = True

    def put(self, calls: Sequence[CallRecord]) -> None:
        """Add calls, all or none. They are on disk when this returns.

        :raises RecordRejectedError: some cannot be written as JSON; it names them
        :raises StorageUnavailableError: the file cannot be written, or is full
        """
        self.file.put(calls)

    def check(self) -> None:
        """Check that calls could be spooled. Create nothing.

        :raises StorageUnavailableError: the file or its directory is not writable
        """
        self.file.check()

    def is_there(self) -> bool:
        """Return whether a call was ever spooled for the database or its address."""
        return self.file.is_there() or self._unbound.is_there()

    def backlog(self) -> tuple[int, int]:
        """Return how many calls of the database and its address wait, and how many are set aside."""
        files = {self.file.name: self.file, self._unbound.name: self._unbound}
        waiting, set_aside = zip(*(file.counts() for file in files.values()), strict=True)
        return sum(waiting), sum(set_aside)

    def bind(self, limit: int) -> int:
        """Move at most `limit` calls of the address to the file of the database that was reached there, if they are
        bound to it, and return how many."""
        if self.identity is None or not self._unbound.is_there() or not self._is_bound():
            return 0
        return self._unbound.move(self.file, limit)

    def counts(self) -> SpoolCounts:
        """Return the numbers of spooled calls. As long as no database was reached, all calls that were spooled at its
        address count as its own."""
        own, others = self._files_of_address()
        counted = [file.counts() for file in own]
        return SpoolCounts(
            sum(waiting for waiting, _ in counted),
            sum(set_aside for _, set_aside in counted),
            sum(sum(file.counts()) for file in others),
        )

    def status(self, reasons: int) -> SpoolStatus:
        """Return the state of the spool, with at most `reasons` reasons."""
        counts = self.counts()
        return SpoolStatus(
            str(self.path), counts.waiting, counts.set_aside, counts.to_adopt, self.refusals(reasons) if reasons else {}
        )

    def refusals(self, limit: int) -> dict[str, int]:
        """Return at most `limit` reasons why calls were set aside, with their numbers, the most frequent first."""
        found: Counter[str] = Counter()
        for file in self._files_of_address()[0]:
            found.update(file.refusals(limit))
        return dict(found.most_common(limit))

    def retry(self) -> int:
        """Let all calls that were set aside wait again, and return their number."""
        return sum(file.retry() for file in self._files_of_address()[0])

    def files(self) -> list[SpoolFileStatus]:
        """Return the state of every file in the directory, also those of other databases, by name. A file that tells
        of no database any more and has no calls is none."""
        found = map(_status, self._every_file())
        return [file for file in found if file.target or file.waiting or file.set_aside or file.problem]

    def find(self, name: str) -> SpoolFile:
        """Return the file of that name.

        :raises ValueError: there is none
        """
        found = next((file for file in self._every_file() if file.name == name), None)
        if found is None:
            raise ValueError(f"there is no file {name!r} in {self._folder}; `llmbridge storage spool` lists the files")
        return found

    def _every_file(self) -> list[SpoolFile]:
        if self._folder is None:
            return []
        try:
            names = sorted(path.name for path in self._folder.glob(NAMES))
        except (OSError, ValueError):  # ValueError: not a possible name of a folder
            return []
        return [SpoolFile.named(self._folder, name) for name in names]

    def _files_of_address(self) -> tuple[list[SpoolFile], list[SpoolFile]]:
        """Return the files with the calls of the database, as far as is known, and those with calls that were spooled
        at its address and may belong to another one."""
        others = [
            file
            for file in self._every_file()
            if file.name not in (self.file.name, self._unbound.name) and self.target in (_databases(file) or ())
        ]
        if not self.is_recognized:
            return [self._unbound, *others], []
        if self.identity is None:
            return [self.file], others
        return ([self.file, self._unbound], others) if self._is_bound() else ([self.file], [self._unbound, *others])

    def _is_bound(self) -> bool:
        """Return whether the calls of the address are bound to the database that was reached there."""
        first = self._unbound.first_spooled_at()
        made = None if self.identity is None else made_at(self.identity)
        if first is None or made is None or made > first:
            return False
        known = [_databases(file) for file in self._every_file()]
        return all(databases is not None and databases.get(self.target) in (None, self.identity) for databases in known)


def _databases(file: SpoolFile) -> dict[str, str | None] | None:
    """Return the databases that a file tells of; None if it cannot be read."""
    try:
        return file.databases()
    except StorageError:
        return None


def _status(file: SpoolFile) -> SpoolFileStatus:
    try:
        waiting, set_aside = file.counts()
        databases = file.databases()
    except StorageError as error:
        return SpoolFileStatus(file.name, problem=str(error))
    target, identity = next(reversed(databases.items()), (None, None))
    return SpoolFileStatus(file.name, target, identity, waiting, set_aside)
