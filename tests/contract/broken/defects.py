"""The list of backends with one defect each, and the way to run the kit on them.

`test_kit_bites.py` runs the other files of this folder; pytest does not collect them by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from llmbridge.schemas import CallRecord
from llmbridge.storage import RecordResult, StorageBackend
from llmbridge.storage.memory import MemoryBackend
from llmbridge.testing import StorageContract
from llmbridge.testing.harness import Harness

Backend = type[MemoryBackend]

#: Each backend with the part of the kit that is run on it, and the tests of that part that must fail.
EXPECTED: dict[Backend, tuple[type[Harness], frozenset[str]]] = {}

CAPABILITIES = frozenset({"purge", "reprice", "copy", "erase"})
SECRET_URL = "memory://operator:sesame@shop"
LAST = datetime.max.replace(tzinfo=UTC)


def caught_by(part: type[Harness], *tests: str) -> Callable[[Backend], Backend]:
    """Name the tests of a part of the kit that find the defect: these fail, all others of that part pass."""

    def register(backend: Backend) -> Backend:
        EXPECTED[backend] = part, frozenset(f"test_{test}" for test in tests)
        return backend

    return register


def sound(backend: Backend) -> Backend:
    """Run the whole kit on a backend that has no defect."""
    return caught_by(StorageContract)(backend)


def contracts(module: str) -> dict[str, type[Harness]]:
    """The test classes of the backends of a module."""
    return {f"Test{b.__name__}": _contract(b, part) for b, (part, _) in EXPECTED.items() if b.__module__ == module}


def _contract(backend: Any, part: Any) -> type[Harness]:
    class Contract(part):
        recovery_time = 0.0

        @pytest.fixture
        def storage_url(self) -> str:
            return SECRET_URL

        @pytest.fixture
        def other_storage_url(self) -> str:
            return SECRET_URL

        def make_backend(self, url: str) -> StorageBackend:
            return backend()

        def capabilities(self, url: str) -> frozenset[str]:
            return getattr(backend, "declared", CAPABILITIES)

    if hasattr(backend, "outage"):

        @pytest.fixture
        def storage_outage(self: object) -> Any:
            return backend.outage()

        Contract.storage_outage = storage_outage

    Contract.__name__ = Contract.__qualname__ = f"Test{backend.__name__}"
    return Contract


class Altering(MemoryBackend):
    """Stores each call a little different from what it got."""

    def alter(self, call: CallRecord) -> CallRecord:
        raise NotImplementedError

    async def record_calls(self, calls: Sequence[CallRecord]) -> RecordResult:
        return await super().record_calls([self.alter(call) for call in calls])
