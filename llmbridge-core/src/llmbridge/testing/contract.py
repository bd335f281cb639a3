"""`StorageContract`: all tests of the kit in one class."""

from __future__ import annotations

from .calls import CallContract
from .concurrency import ConcurrencyContract
from .copying import CopyContract
from .lifecycle import LifecycleContract
from .listing import ListingContract
from .models import ModelContract
from .outage import OutageContract
from .purging import PurgeContract
from .reprice_and_erase import RepriceAndEraseContract
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
    RepriceAndEraseContract,
    CopyContract,
    SQLContract,
    OutageContract,
):
    """Tests of the whole storage contract.

    A subclass defines the fixture `storage_url` and may define `storage_outage`; see `llmbridge.testing`.
    """
