"""Finds other distributions that contain a package `llmbridge` and so overwrite files of llmbridge-core."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ._discovery import CORE, normalized

if TYPE_CHECKING:
    from importlib.metadata import Distribution

_PACKAGE = "llmbridge"
_LIKE_OURS = re.compile(rf"[\w.-]*{_PACKAGE}[\w.-]*\.(dist|egg)-info", re.IGNORECASE)


def foreign_distribution_warning(*, thorough: bool = False) -> str | None:
    """Return a warning if another installed distribution contains the package `llmbridge`; None if none does.

    :param thorough: look at every distribution, which takes some 0.2 ms for each, not only at those with `llmbridge` in
        their name
    """
    from importlib.metadata import distributions  # imported late, since `import llmbridge` does not need it

    installed = distributions() if thorough else _with_a_name_like_ours()
    named = {(str(found.metadata["Name"]), found.version) for found in installed if _contains_the_package(found)}
    others = sorted((name, version) for name, version in named if normalized(name) != CORE)
    if not others:
        return None
    beside = " and ".join(f"{name} {version}" for name, version in others)
    verb = "is" if len(others) == 1 else "are"
    return (
        f"{beside} {verb} installed beside {CORE}: each contains the package `{_PACKAGE}`, and overwrites the other's "
        f"files. Run `pip uninstall {' '.join(name for name, _ in others)}`, then "
        f"`pip install --force-reinstall {CORE}`."
    )


def _with_a_name_like_ours() -> Iterator[Distribution]:
    """Yield the distributions whose metadata have `llmbridge` in the name of their directory. Read no file."""
    from importlib.metadata import PathDistribution

    for folder in sys.path:
        try:
            names = os.listdir(folder or ".")
        except OSError:  # an archive, or a path that does not exist
            continue
        for name in filter(_LIKE_OURS.fullmatch, names):
            yield PathDistribution(Path(folder, name))


def _contains_the_package(distribution: Distribution) -> bool:
    try:
        if _PACKAGE in (distribution.read_text("top_level.txt") or "").split():
            return True
        return re.search(rf"^{_PACKAGE}/", distribution.read_text("RECORD") or "", re.MULTILINE) is not None
    except (OSError, UnicodeError):  # damaged metadata of another distribution
        return False
