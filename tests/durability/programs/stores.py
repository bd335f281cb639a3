"""The backends of the databases that faults are injected into."""

from __future__ import annotations

from llmbridge.plugins import create_backend
from llmbridge_postgres import PostgreSQLBackend
from llmbridge_sqlite import SQLiteBackend

#: So few calls wait to be folded that every fault meets folding.
FOLD_AFTER = 32


def backend(url: str) -> SQLiteBackend | PostgreSQLBackend:
    """The backend that a URL means, but that it folds early."""
    usual = create_backend(url)
    assert usual is not None
    made: SQLiteBackend | PostgreSQLBackend
    if isinstance(usual, SQLiteBackend):
        made = SQLiteBackend(url.removeprefix("sqlite:///"), fold_after=FOLD_AFTER)
    else:
        made = PostgreSQLBackend(url, fold_after=FOLD_AFTER)
    made.target = usual.target
    return made
