"""The SQLite backend fulfils the whole storage contract, in a file and in memory, whenever calls are folded."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmbridge.storage import StorageBackend
from llmbridge.storage.url import parse
from llmbridge.testing import StorageContract
from llmbridge_sqlite import SQLiteBackend


class TestFile(StorageContract):
    @pytest.fixture
    def storage_url(self, tmp_path: Path) -> str:
        return f"sqlite:///{tmp_path}/calls.db"

    @pytest.fixture
    def other_storage_url(self, tmp_path: Path) -> str:
        return f"sqlite:///{tmp_path}/other.db"


class TestFoldedAtOnce(TestFile):
    """Totals are folded after every batch, beside what the test goes on to do."""

    def make_backend(self, url: str) -> StorageBackend:
        return SQLiteBackend(parse(url)[0].path or "", fold_after=1)


class TestMemory(StorageContract):
    @pytest.fixture
    def storage_url(self) -> str:
        return "sqlite:///:memory:"

    @pytest.fixture
    def other_storage_url(self) -> str:
        return "sqlite:///:memory:"

    def capabilities(self, url: str) -> frozenset[str]:
        """What remains of the plugin's when each connection has a store of its own."""
        return super().capabilities(url) - {"persistent", "multiprocess"}
