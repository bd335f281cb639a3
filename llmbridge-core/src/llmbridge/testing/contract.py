"""The whole contract of `llmbridge.storage`, as one class to inherit from."""

from __future__ import annotations

from .calls import CallContract
from .concurrency import ConcurrencyContract
from .copying import CopyContract
from .lifecycle import LifecycleContract
from .listing import ListingContract
from .models import ModelContract
from .outage import OutageContract
from .purging import PurgeContract
from .reprice_and_erase import RewritingContract
from .sql import SQLContract
from .usage import UsageContract


class StorageContract(
    LifecycleContract,
    ModelContract,
    CallContract,
    ListingContract,
    UsageContract,
    ConcurrencyContract,
    PurgeContract,
    RewritingContract,
    CopyContract,
    SQLContract,
    OutageContract,
):
    """Every promise that a storage backend makes. Subclasses define the fixture `storage_url` and may define
    `storage_outage`; both are described in `llmbridge.testing`."""
