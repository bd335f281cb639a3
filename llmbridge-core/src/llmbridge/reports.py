"""Types that public methods take and return, and helpers for programs that read times and show money."""

from __future__ import annotations

from ._maintenance.copy import CopyReport
from ._maintenance.erase import Forgotten
from ._maintenance.reprice import ModelReprice, RepriceReport
from ._models.catalog import Origin
from ._models.queries import CostEstimate, ModelCost, Models, PricedModel
from ._models.registry import LoadReport
from ._pricing.genai_prices.editions import PriceData
from ._pricing.price_book import Price, PriceBook
from ._pricing.rate_cards import RateCard, Rates
from ._recording.bulk import RecordReport, Rejection
from ._recording.metrics import CloseReport, Counters
from ._recording.spool import SpoolFileStatus, SpoolStatus
from ._records.validation import check_rate
from ._shared.money import text as money_text
from ._shared.spelling import hint as spelling_hint
from ._store.session import Migrate
from ._usage.periods import UNITS as PERIODS
from ._usage.periods import zone as time_zone
from ._usage.query import ALIASES, Accepted, CallList
from ._usage.result import UsageResult, UsageResults
from ._usage.times import When, is_before_now, to_utc
from .db import OnStorageError
from .plugins import PluginInfo
from .schemas import DailyAnalytics, RecordStatus, UsageStats
from .storage.types import CallPage, CallQuery, MigrationReport, SchemaStatus, TotalsReport

__all__ = [
    "ALIASES",
    "PERIODS",
    "Accepted",
    "CallList",
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
    "Origin",
    "PluginInfo",
    "Price",
    "PriceBook",
    "PriceData",
    "PricedModel",
    "RateCard",
    "Rates",
    "RecordReport",
    "RecordStatus",
    "Rejection",
    "RepriceReport",
    "SchemaStatus",
    "SpoolFileStatus",
    "SpoolStatus",
    "TotalsReport",
    "UsageResult",
    "UsageResults",
    "UsageStats",
    "When",
    "check_rate",
    "is_before_now",
    "money_text",
    "spelling_hint",
    "time_zone",
    "to_utc",
]
