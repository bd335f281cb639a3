"""Types that public methods take and return, importable from one place."""

from __future__ import annotations

from ._maintenance.copy import CopyReport
from ._maintenance.erase import Forgotten
from ._maintenance.reprice import ModelReprice, RepriceReport
from ._models.queries import CostEstimate, ModelCost, Models, PricedModel
from ._models.registry import LoadReport
from ._pricing.price_book import Price, PriceBook
from ._pricing.rate_cards import RateCard, Rates
from ._recording.metrics import CloseReport, Counters
from ._store.session import Migrate
from ._usage.query import Accepted
from .db import OnStorageError
from .plugins import PluginInfo
from .schemas import DailyAnalytics, RecordStatus, UsageStats
from .storage.types import CallPage, CallQuery, MigrationReport, SchemaStatus, TotalsReport, UsageRow

__all__ = [
    "Accepted",
    "CallPage",
    "CallQuery",
    "CloseReport",
    "CopyReport",
    "CostEstimate",
    "Counters",
    "DailyAnalytics",
    "Forgotten",
    "LoadReport",
    "Migrate",
    "MigrationReport",
    "ModelCost",
    "ModelReprice",
    "Models",
    "OnStorageError",
    "PluginInfo",
    "Price",
    "PriceBook",
    "PricedModel",
    "RateCard",
    "Rates",
    "RecordStatus",
    "RepriceReport",
    "SchemaStatus",
    "TotalsReport",
    "UsageRow",
    "UsageStats",
]
