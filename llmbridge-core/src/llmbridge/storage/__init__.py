"""Public names of the storage contract, for authors of backends."""

from typing import TYPE_CHECKING, Any

from .._shared.ids import new_identity
from .._shared.json_text import encode_json
from .._shared.money import from_units, to_units
from .._shared.options import check_options
from ..errors import (
    ConstraintError,
    InvalidStorageURLError,
    LLMBridgeError,
    MigrationError,
    PurgedDetailError,
    RecordRejectedError,
    SchemaOutdatedError,
    SchemaTooNewError,
    StorageClosedError,
    StorageError,
    StorageRefusedError,
    StorageUnavailableError,
    UnsupportedOperationError,
    WrongLoopError,
)
from ..schemas import CallRecord, LLMModel
from .base import SQLAccess, StorageBackend
from .types import (
    EARLIEST,
    FILTER_FIELDS,
    GROUP_FIELDS,
    LATEST,
    MAX_BATCH,
    MAX_CLOCK_SKEW,
    MAX_PAGE,
    TAG_PREFIX,
    CallPage,
    CallQuery,
    CostChange,
    Cursor,
    Filters,
    MigrationReport,
    ModelPrice,
    RecordResult,
    SchemaStatus,
    TotalsPage,
    TotalsReport,
    TotalsRow,
    UpsertResult,
    UsageQuery,
    UsageRow,
)
from .url import StorageURL

if TYPE_CHECKING:
    from .hookspecs import StoragePlugin, hookimpl

__all__ = [
    "EARLIEST",
    "FILTER_FIELDS",
    "GROUP_FIELDS",
    "LATEST",
    "MAX_BATCH",
    "MAX_CLOCK_SKEW",
    "MAX_PAGE",
    "TAG_PREFIX",
    "CallPage",
    "CallQuery",
    "CallRecord",
    "ConstraintError",
    "CostChange",
    "Cursor",
    "Filters",
    "InvalidStorageURLError",
    "LLMBridgeError",
    "LLMModel",
    "MigrationError",
    "MigrationReport",
    "ModelPrice",
    "PurgedDetailError",
    "RecordRejectedError",
    "RecordResult",
    "SQLAccess",
    "SchemaOutdatedError",
    "SchemaStatus",
    "SchemaTooNewError",
    "StorageBackend",
    "StorageClosedError",
    "StorageError",
    "StoragePlugin",
    "StorageRefusedError",
    "StorageURL",
    "StorageUnavailableError",
    "TotalsPage",
    "TotalsReport",
    "TotalsRow",
    "UnsupportedOperationError",
    "UpsertResult",
    "UsageQuery",
    "UsageRow",
    "WrongLoopError",
    "check_options",
    "encode_json",
    "from_units",
    "hookimpl",
    "new_identity",
    "to_units",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import hookspecs  # imports pluggy, which users of a store do not need

    return getattr(hookspecs, name)
