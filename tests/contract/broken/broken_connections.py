"""Backends with defects in event loops, cancellation, migrations and outages."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from uuid import UUID

from defects import SECRET_URL, caught_by, contracts, sound

from llmbridge.schemas import CallRecord, LLMModel
from llmbridge.storage import (
    MigrationReport,
    RecordResult,
    SchemaStatus,
    StorageUnavailableError,
    UsageQuery,
    UsageRow,
    new_identity,
)
from llmbridge.storage.memory import MemoryBackend, Store
from llmbridge.testing.concurrency import ConcurrencyContract
from llmbridge.testing.lifecycle import LifecycleContract
from llmbridge.testing.outage import OutageContract


@caught_by(ConcurrencyContract, "a_cancelled_batch_is_stored_wholly_or_not_at_all")
class TornByCancellation(MemoryBackend):
    """A cancel in the middle leaves half of a batch."""

    async def record_calls(self, calls: Sequence[CallRecord]) -> RecordResult:
        if len(calls) != 40:
            return await super().record_calls(calls)
        first = await super().record_calls(calls[:20])
        await asyncio.sleep(0)
        second = await super().record_calls(calls[20:])
        return RecordResult(first.inserted + second.inserted, first.duplicates + second.duplicates)


@caught_by(ConcurrencyContract, "cancelled_reads_leave_the_backend_usable")
class LockLostByCancellation(MemoryBackend):
    """A cancelled reader never gives its lock back."""

    def __init__(self) -> None:
        super().__init__()
        self._locked = False

    async def summarize_usage(self, query: UsageQuery) -> list[UsageRow]:
        if self._locked:
            raise StorageUnavailableError("the store is locked")
        rows = await super().summarize_usage(query)
        if any(row.calls == 40 for row in rows):
            self._locked = True
            await asyncio.sleep(0)
            self._locked = False
        return rows


@caught_by(LifecycleContract, "another_event_loop_is_refused")
class AnyLoop(MemoryBackend):
    """Any event loop may use it."""

    @property
    def _open(self) -> Store:
        if self._store is not None and self._owner is not None:
            self._owner = (self._owner[0], asyncio.get_running_loop())
        return super()._open


@caught_by(
    LifecycleContract,
    "async_with_connects_and_disconnects",
    "before_connect_it_is_closed",
    "after_disconnect_it_is_closed",
    "another_event_loop_is_refused",
)
class OpenForEver(MemoryBackend):
    """It works before `connect` and after `disconnect`."""

    async def ping(self) -> None:
        pass


@caught_by(
    LifecycleContract,
    "migrating_again_skips_everything_and_keeps_what_is_stored",
    "many_migrators_at_once_migrate_once",
)
class MigratesAnew(MemoryBackend):
    """Every migration reports that it did the work."""

    async def apply_migrations(self) -> MigrationReport:
        store = self._open
        identity, store.identity = store.identity, None
        report = await super().apply_migrations()
        store.identity = identity or store.identity
        return report


@caught_by(LifecycleContract, "the_first_migration_makes_the_identity_and_nothing_changes_it")
class NewIdentityAtEachMigration(MemoryBackend):
    """Every migration makes the store another one."""

    async def apply_migrations(self) -> MigrationReport:
        report = await super().apply_migrations()
        self._open.identity = new_identity()
        return report


@caught_by(LifecycleContract, "another_store_has_another_identity")
class OneIdentityForAll(MemoryBackend):
    """The identity is a constant of the backend."""

    async def apply_migrations(self) -> MigrationReport:
        report = await super().apply_migrations()
        self._open.identity = "mystore"
        return report


@sound
class WithoutIdentity(MemoryBackend):
    """It keeps none, which is allowed."""

    async def schema_status(self) -> SchemaStatus:
        return replace(await super().schema_status(), identity=None)


@caught_by(LifecycleContract, "its_texts_and_logs_show_no_password")
class TalkativeRepr(MemoryBackend):
    """Its repr is for those who know the password anyway."""

    def __repr__(self) -> str:
        return f"TalkativeRepr({SECRET_URL!r})"


@sound
class Fragile(MemoryBackend):
    """Sound, on a store that can go away."""

    away = False

    @classmethod
    @contextmanager
    def outage(cls) -> Iterator[None]:
        cls.away = True
        try:
            yield
        finally:
            cls.away = False

    @property
    def _open(self) -> Store:
        store = super()._open
        if self.away:
            self.lost()
        return store

    def lost(self) -> None:
        raise StorageUnavailableError("the memory store is away")

    async def connect(self) -> None:
        if self.away:
            self.lost()
        await super().connect()


@caught_by(
    OutageContract,
    "during_an_outage_it_is_unavailable_and_afterwards_it_works",
    "connecting_during_an_outage_fails_and_can_be_tried_again",
    "ids_that_are_tried_again_count_once",
)
class LeakingOutage(Fragile):
    """The driver says itself that the connection is lost."""

    def lost(self) -> None:
        raise ConnectionResetError("connection lost")


@caught_by(OutageContract, "during_an_outage_it_is_unavailable_and_afterwards_it_works")
class OutageAsRefusal(Fragile):
    """Being away is mistaken for an empty answer."""

    async def list_models(self, *args: Any, **options: Any) -> list[LLMModel]:
        return [] if self.away else await super().list_models(*args, **options)


@caught_by(
    OutageContract,
    "during_an_outage_it_is_unavailable_and_afterwards_it_works",
    "connecting_during_an_outage_fails_and_can_be_tried_again",
    "ids_that_are_tried_again_count_once",
)
class NeverRecovers(Fragile):
    """After one outage, every operation fails until the backend is connected again."""

    _dead = False

    def lost(self) -> None:
        self._dead = True
        super().lost()

    @property
    def _open(self) -> Store:
        store = super()._open
        if self._dead:
            super().lost()
        return store

    async def disconnect(self) -> None:
        self._dead = False
        await super().disconnect()


@caught_by(OutageContract, "ids_that_are_tried_again_count_once")
class RenamedRetries(Fragile):
    """What is tried again after an outage gets an id of its own."""

    _tried: frozenset[UUID] = frozenset()

    async def record_calls(self, calls: Sequence[CallRecord]) -> RecordResult:
        try:
            result = await super().record_calls(calls)
        except StorageUnavailableError:
            self._tried |= {call.id for call in calls}
            raise
        if self._tried.isdisjoint(call.id for call in calls):
            return result
        renamed = [call.model_copy(update={"id": UUID(int=call.id.int ^ 1 << 127)}) for call in calls]
        await super().record_calls(renamed)
        return result


globals().update(contracts(__name__))
