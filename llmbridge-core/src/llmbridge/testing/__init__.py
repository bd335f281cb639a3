"""The conformance kit of storage backends. It needs pytest and pytest-asyncio, in any of its modes.

A backend is proven by a subclass with one fixture, the URL of a new and empty store for every test:

    class TestMyStorage(StorageContract):
        @pytest.fixture
        def storage_url(self, tmp_path):
            return f"mystore:///{tmp_path}/calls.db"

Backends are made by `llmbridge.plugins.create_backend`; override the method `make_backend(url)` to pass options.
What the plugin declares among the capabilities is tested in full, and of the rest it is tested that it is refused.

Whether the backend lives through an outage is tested with a second fixture, `storage_outage`: a synchronous context
manager that makes the store of this test unreachable while it is entered, which happens at most once per test and on
the test's event loop. Without it the tests of outages prove nothing; they are counted and listed as "not proven" at
the end of the run, and carry the property `not_proven` in a JUnit report (under pytest-xdist the property alone).

    class TestMyStorage(StorageContract):
        ...
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
            "rewriting",
            "sql",
            "usage",
        )
    )
)

from .contract import StorageContract  # noqa: E402  after the registration, which must precede the import
from .records import make_call, make_calls, make_model, make_totals  # noqa: E402

__all__ = ["StorageContract", "make_call", "make_calls", "make_model", "make_totals"]
