"""Conformance kit: tests that every storage backend must pass. It needs pytest and pytest-asyncio, in any mode.

Write a subclass with one fixture, which returns the URL of a new, empty store for every test:

    class TestMyStorage(StorageContract):
        @pytest.fixture
        def storage_url(self, tmp_path):
            return f"mystore:///{tmp_path}/calls.db"

The kit creates backends with `llmbridge.plugins.create_backend`; override the method `make_backend(url)` to pass
options. Capabilities that the plugin declares are tested completely. For the others, the kit tests that their methods
raise UnsupportedOperationError.

Two more fixtures are optional. `other_storage_url` returns the URL of another new, empty store, whose identity must be
another one. `storage_outage` is a synchronous context manager that makes the store of this test unreachable while it is
entered. It is entered at most once per test, on the test's event loop. Without these fixtures their tests prove
nothing: they are counted and listed as "not proven" at the end of the run, and have the property `not_proven` in a
JUnit report (with pytest-xdist only the property).

    class TestMyStorage(StorageContract):
        ...
        @pytest.fixture
        def other_storage_url(self, tmp_path):
            return f"mystore:///{tmp_path}/others.db"

        @pytest.fixture
        def storage_outage(self, server):
            return server.stopped()
"""

import pytest

pytest.register_assert_rewrite(
    *(
        f"{__name__}.{module}"
        for module in (
            "calls",
            "comparison",
            "concurrency",
            "copying",
            "harness",
            "lifecycle",
            "listing",
            "models",
            "outage",
            "purging",
            "records",
            "reprice_and_erase",
            "sql",
            "usage",
        )
    )
)

from .contract import StorageContract  # noqa: E402  after the registration, which must precede the import
from .records import make_call, make_calls, make_model, make_totals  # noqa: E402

__all__ = ["StorageContract", "make_call", "make_calls", "make_model", "make_totals"]
