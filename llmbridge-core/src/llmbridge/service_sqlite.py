"""Import path of llmbridge-py: `LLMBridgeSQLite`. Deprecated: `LLMBridge` takes the URL of any database."""

from __future__ import annotations

import os
import warnings

from .service import LLMBridge


class LLMBridgeSQLite(LLMBridge):
    """`LLMBridge` with the SQLite file `db_path`. Deprecated: write `LLMBridge("sqlite:///llmbridge.db")`."""

    def __init__(
        self,
        db_path: str | os.PathLike[str] = "llmbridge.db",
        origin: str = "llmbridge",
        enable_db_logging: bool = True,
    ) -> None:
        warnings.warn('LLMBridgeSQLite is deprecated: use LLMBridge("sqlite:///FILE")', DeprecationWarning, 2)
        super().__init__(os.fspath(db_path), origin=origin, enable_db_logging=enable_db_logging)
