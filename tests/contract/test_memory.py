"""The reference backend fulfils the whole storage contract."""

from __future__ import annotations

import pytest

from llmbridge.storage import memory
from llmbridge.testing import StorageContract


class TestMemoryStorage(StorageContract):
    @pytest.fixture
    def storage_url(self) -> str:
        return "memory://"

    @pytest.fixture
    def other_storage_url(self) -> str:
        return "memory://"


class TestNamedMemoryStorage(StorageContract):
    """`memory://NAME` outlives its connections and is shared by all backends of the process."""

    @pytest.fixture
    def storage_url(self, monkeypatch: pytest.MonkeyPatch) -> str:
        monkeypatch.setattr(memory, "_named", {})
        return "memory://contract"

    @pytest.fixture
    def other_storage_url(self) -> str:
        return "memory://other"

    def capabilities(self, url: str) -> frozenset[str]:
        return super().capabilities(url) | {"persistent"}
