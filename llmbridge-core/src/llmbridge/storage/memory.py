"""Reference backend: keeps everything in this process. The tests compare other backends with it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from .._shared.ids import new_identity
from ..errors import StorageClosedError, WrongLoopError
from ..schemas import CallRecord, LLMModel
from .base import StorageBackend
from .hookspecs import StoragePlugin, hookimpl
from .reference import CELL_KEYS, GRAINS, Sums, field_value, none_first, summarize
from .types import (
    EARLIEST,
    MAX_BATCH,
    MAX_CLOCK_SKEW,
    CallPage,
    CallQuery,
    CostChange,
    Grain,
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

_HEAD = "001_baseline"
_TOTALS_PAGE = 1000

CellKey = tuple[Grain, datetime, tuple[str | None, ...]]


class Store:
    """Content of one store, which outlives connections."""

    def __init__(self) -> None:
        #: None until the store is migrated.
        self.identity: str | None = None
        self.models: dict[tuple[str, str], LLMModel] = {}
        self.prices: dict[tuple[str, str, str, datetime], ModelPrice] = {}
        self.calls: dict[UUID, CallRecord] = {}
        self.totals: dict[CellKey, TotalsRow] = {}
        self.watermark: datetime | None = None


#: The stores of `memory://NAME`, one per name and process.
_named: dict[str, Store] = {}


class MemoryBackend(StorageBackend):
    """Backend in memory.

    `memory://` is a new store that ends at `disconnect`; `memory://NAME` is one store per name and process.
    """

    def __init__(self, name: str | None = None) -> None:
        self._name = name
        self._store: Store | None = None
        self._owner: tuple[int, asyncio.AbstractEventLoop] | None = None

    async def connect(self) -> None:
        if self._store is None:
            self._owner = (os.getpid(), asyncio.get_running_loop())
            self._store = Store() if self._name is None else _named.setdefault(self._name, Store())

    async def disconnect(self) -> None:
        self._store = None

    @property
    def _open(self) -> Store:
        if self._store is None:
            raise StorageClosedError("the memory store is not connected: call connect() first")
        if self._owner is None or self._owner[0] != os.getpid() or self._owner[1] is not asyncio.get_running_loop():
            raise WrongLoopError(
                "this memory store was opened by another event loop or process: create a backend in each of them"
            )
        return self._store

    async def apply_migrations(self) -> MigrationReport:
        store = self._open
        if store.identity is not None:
            return MigrationReport([], [_HEAD], 1)
        store.identity = new_identity()
        return MigrationReport([_HEAD], [], 1)

    async def schema_status(self) -> SchemaStatus:
        identity = self._open.identity
        if identity is None:
            return SchemaStatus(None, _HEAD, [_HEAD], writable=True)
        return SchemaStatus(_HEAD, _HEAD, [], writable=True, identity=identity)

    async def upsert_models(self, models: Sequence[LLMModel]) -> UpsertResult:
        stored = self._open.models
        latest = {(model.provider, model.model_name): model for model in models}
        before = {key: stored[key] for key in latest if key in stored}
        for key, model in latest.items():
            created = before[key].created_at if key in before else model.created_at
            stored[key] = model.model_copy(update={"created_at": created})
        return UpsertResult(len(latest) - len(before), len(before))

    async def list_models(
        self, provider: str | None = None, model_name: str | None = None, active_only: bool = True
    ) -> list[LLMModel]:
        return [
            model.model_copy()
            for key, model in sorted(self._open.models.items())
            if provider in (None, key[0]) and model_name in (None, key[1]) and (model.is_active or not active_only)
        ]

    async def retire_models(self, keys: Sequence[tuple[str, str]], at: datetime) -> int:
        stored = self._open.models
        active = [key for key in set(keys) if key in stored and stored[key].is_active]
        for key in active:
            stored[key] = stored[key].model_copy(update={"inactive_from": at, "updated_at": at})
        return len(active)

    async def set_prices(self, prices: Sequence[ModelPrice]) -> None:
        self._open.prices.update({price.key: price for price in prices})

    async def list_prices(self, provider: str | None = None, model_name: str | None = None) -> list[ModelPrice]:
        return [
            price
            for key, price in sorted(self._open.prices.items())
            if provider in (None, key[0]) and model_name in (None, key[1])
        ]

    async def record_calls(self, calls: Sequence[CallRecord]) -> RecordResult:
        store = self._open
        if len(calls) > MAX_BATCH:
            raise ValueError(f"{len(calls)} calls in one batch: pass at most {MAX_BATCH}")
        inserted, expired = 0, []
        for call in calls:
            if store.watermark is not None and call.called_at < store.watermark:
                expired.append(call.id)
            elif call.id not in store.calls:
                store.calls[call.id] = _copied(call)
                inserted += 1
        return RecordResult(inserted, len(calls) - inserted - len(expired), tuple(expired))

    async def list_calls(self, query: CallQuery) -> CallPage:
        ids = None if query.ids is None else frozenset(query.ids)

        def wanted(call: CallRecord) -> bool:
            return (
                (ids is None or call.id in ids)
                and (query.since is None or call.called_at >= query.since)
                and (query.until is None or call.called_at < query.until)
                and (query.after is None or (call.called_at, call.id) < query.after)
                and all(field_value(call, name) in accepted for name, accepted in query.filters.items())
            )

        found = sorted(
            filter(wanted, self._open.calls.values()), key=lambda call: (call.called_at, call.id), reverse=True
        )
        page = found[: query.limit]
        more = len(found) > len(page)
        return CallPage(list(map(_copied, page)), (page[-1].called_at, page[-1].id) if more else None)

    async def summarize_usage(self, query: UsageQuery) -> list[UsageRow]:
        store = self._open
        return summarize(store.calls.values(), query, list(store.totals.values()), store.watermark or EARLIEST)

    async def ping(self) -> None:
        self._open  # noqa: B018  raises unless connected

    async def purge_calls(self, before: datetime) -> int:
        store = self._open
        day = before.replace(hour=0, minute=0, second=0, microsecond=0)
        if store.watermark is not None and day <= store.watermark:
            return 0
        purged = [call for call in store.calls.values() if call.called_at < day]
        for grain in GRAINS:
            cells: dict[CellKey, list[CallRecord]] = {}
            for call in purged:
                cells.setdefault(_cell(call, grain), []).append(call)
            for key, calls in cells.items():
                _merge(store.totals, key, calls)
        for call in purged:
            del store.calls[call.id]
        store.watermark = day
        return len(purged)

    async def check_totals(self, repair: bool = False) -> TotalsReport:
        store = self._open
        ahead = store.watermark
        if ahead is None or ahead - datetime.now(UTC) <= MAX_CLOCK_SKEW:
            return TotalsReport()
        if repair:
            days = [start for grain, start, _ in store.totals if grain == "day"]
            store.watermark = max(days) + timedelta(days=1) if days else None
        return TotalsReport(future_watermark=ahead)

    async def reprice_calls(self, changes: Sequence[CostChange]) -> int:
        calls = self._open.calls
        latest = {change.id: change for change in changes if change.id in calls}
        repriced = 0
        for call_id, change in latest.items():
            old = calls[call_id]
            if _is_stored(change, old):
                continue
            repriced += 1
            calls[call_id] = old.model_copy(
                update={
                    "estimated_cost": change.cost,
                    "cost_source": change.cost_source,
                    "cost_reason": change.cost_reason,
                    "price_version": change.price_version,
                    "price_factor": change.price_factor,
                    "previous_cost": old.estimated_cost,
                    "previous_cost_reason": old.cost_reason,
                    "repriced_at": change.at,
                }
            )
        return repriced

    async def read_totals(self, cursor: str | None = None) -> TotalsPage:
        store = self._open
        start = int(cursor or 0)
        rows = [store.totals[key] for key in sorted(store.totals, key=_order)]
        end = start + _TOTALS_PAGE
        return TotalsPage(rows[start:end], str(end) if end < len(rows) else None, store.watermark)

    async def write_totals(self, rows: Sequence[TotalsRow], watermark: datetime | None) -> None:
        store = self._open
        for row in rows:
            store.totals[row.grain, row.start, tuple(row.key[name] for name in CELL_KEYS[row.grain])] = row
        if watermark is not None and (store.watermark is None or watermark > store.watermark):
            store.watermark = watermark

    async def erase_user(self, origin: str, id_at_origin: str) -> int:
        store = self._open
        named = [c for c in store.calls.values() if (c.origin, c.id_at_origin) == (origin, id_at_origin)]
        for call in named:
            store.calls[call.id] = call.model_copy(update={"id_at_origin": None})
        cells = [key for key in store.totals if key[0] == "day" and key[2][:2] == (origin, id_at_origin)]
        for key in cells:
            sums = store.totals.pop(key).sums
            _merge(store.totals, (key[0], key[1], (origin, None, *key[2][2:])), (), sums)
        return len(named) + len(cells)


def _is_stored(change: CostChange, call: CallRecord) -> bool:
    return (change.cost, change.cost_source, change.cost_reason, change.price_version, change.price_factor) == (
        call.estimated_cost,
        call.cost_source,
        call.cost_reason,
        call.price_version,
        call.price_factor,
    )


def _cell(call: CallRecord, grain: Grain) -> CellKey:
    midnight = call.called_at.replace(hour=0, minute=0, second=0, microsecond=0)
    start = midnight + (call.called_at - midnight) // GRAINS[grain] * GRAINS[grain]
    return grain, start, tuple(field_value(call, name) for name in CELL_KEYS[grain])


def _order(key: CellKey) -> tuple[Any, ...]:
    return key[0], key[1], none_first(key[2])


def _merge(
    totals: dict[CellKey, TotalsRow], key: CellKey, calls: Iterable[CallRecord], sums: UsageRow | None = None
) -> None:
    merged = Sums()
    for part in (totals[key].sums if key in totals else None, sums):
        if part is not None:
            merged.add_row(part)
    for call in calls:
        merged.add_call(call)
    grain, start, values = key
    totals[key] = TotalsRow(grain, start, dict(zip(CELL_KEYS[grain], values, strict=True)), merged.row())


def _create(url: StorageURL, options: Mapping[str, Any]) -> MemoryBackend:
    return MemoryBackend(url.path)


def _copied(call: CallRecord) -> CallRecord:
    """Return a record that shares nothing with `call` that could be changed."""
    values = {name: getattr(call, name) for name in ("tools_used", "metadata", "usage_details", "price_context")}
    return call.model_copy(update={name: deepcopy(value) for name, value in values.items() if value is not None})


@hookimpl
def llmbridge_storage() -> StoragePlugin:
    """Return the descriptor of `memory://`."""
    return StoragePlugin(
        name="memory",
        schemes=("memory",),
        api_version=1,
        create=_create,
        capabilities=frozenset({"purge", "reprice", "copy", "erase"}),
    )
