"""Hints for misspelt names."""

from __future__ import annotations

from collections.abc import Collection
from difflib import get_close_matches


def hint(name: str, known: Collection[str]) -> str:
    """Return `; did you mean X?` with the name in `known` that is most like `name`; empty if none is like it."""
    close = get_close_matches(name, known, n=1) or get_close_matches(name.lower(), known, n=1)
    return f"; did you mean {close[0]}?" if close else ""
