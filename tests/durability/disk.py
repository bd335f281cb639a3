"""A disk that fails and a disk that loses its power, simulated by `shims/disk.c`."""

from __future__ import annotations

import random
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

SOURCE = Path(__file__).with_name("shims") / "disk.c"


def built(folder: Path) -> Path:
    """The shim, compiled."""
    if shutil.which("gcc") is None:
        pytest.fail("the tests of a failing disk need gcc")
    library = folder / "disk.so"
    subprocess.run(
        ["gcc", "-O1", "-Wall", "-Werror", "-shared", "-fPIC", "-o", str(library), str(SOURCE), "-ldl"], check=True
    )
    return library


@dataclass(frozen=True, eq=False)
class _Change:
    """What a change of `length` bytes replaced; beyond the end of the file there was nothing. None: there is a file or
    folder where there was none."""

    path: Path
    offset: int
    length: int
    replaced: bytes | None

    def is_kept_by(self, synced: Path) -> bool:
        """Whether a sync of that file or folder brought the change to the disk."""
        return synced == (self.path.parent if self.replaced is None else self.path)

    def undo(self) -> None:
        if self.replaced is None:
            _remove(self.path)
        elif self.path.exists():
            with self.path.open("r+b") as file:
                file.seek(self.offset)
                file.write(self.replaced.ljust(self.length, b"\0"))


def lose_power(log: Path, dice: random.Random) -> int:
    """Undo changes that were not synced, as a disk without power would: of each place any number of the last ones.
    How many were undone."""
    by_place: dict[tuple[Path, int | None], list[_Change]] = {}
    chosen: set[_Change] = set()
    changes = _unsynced(log)
    for change in changes:
        place = None if change.replaced is None else change.offset
        by_place.setdefault((change.path, place), []).append(change)
    for made in by_place.values():
        kept = dice.choice((0, 0, dice.randrange(len(made) + 1)))
        chosen.update(made[kept:])
    undone = [change for change in reversed(changes) if change in chosen]
    for change in undone:
        change.undo()
    return len(undone)


def _unsynced(log: Path) -> list[_Change]:
    """The changes that no sync brought to the disk, in their order."""
    changes: list[_Change] = []
    with log.open("rb") as lines:
        while head := lines.readline():
            kind, name, offset, kept, length = head.split()
            path = Path(lines.read(int(name)).decode())
            replaced = lines.read(int(kept))
            if kind == b"S":
                changes = [change for change in changes if not change.is_kept_by(path)]
            else:
                changes.append(_Change(path, int(offset), int(length), None if kind == b"N" else replaced))
    return changes


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
