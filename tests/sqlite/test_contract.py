"""SQLite keeps the whole storage contract, in a file and in memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmbridge.testing import StorageContract


class TestFile(StorageContract):
    @pytest.fixture
    def storage_url(self, tmp_path: Path) -> str:
        return f"sqlite:///{tmp_path}/calls.db"


class TestMemory(StorageContract):
    @pytest.fixture
    def storage_url(self) -> str:
        return "sqlite:///:memory:"

    def capabilities(self, url: str) -> frozenset[str]:
        """What remains of the plugin's when each connection has a store of its own."""
        return super().capabilities(url) - {"persistent", "multiprocess"}
