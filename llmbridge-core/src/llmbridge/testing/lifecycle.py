"""Tests of connecting, migrating and disconnecting, and of use at the wrong time or on the wrong event loop."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from ..errors import StorageClosedError, WrongLoopError
from ..storage.base import StorageBackend
from ..storage.types import CallQuery, ModelPrice, UsageQuery
from .comparison import assert_same
from .harness import Harness, Store, bare
from .not_proven import not_proven
from .records import EPOCH, make_call, make_model

#: One call of each required method that needs an open store.
METHODS: dict[str, Callable[[StorageBackend], Awaitable[Any]]] = {
    "apply_migrations": lambda b: b.apply_migrations(),
    "schema_status": lambda b: b.schema_status(),
    "upsert_models": lambda b: b.upsert_models([make_model()]),
    "list_models": lambda b: b.list_models(),
    "retire_models": lambda b: b.retire_models([("openai", "gpt-4o-mini")], EPOCH),
    "set_prices": lambda b: b.set_prices([ModelPrice("openai", "gpt-4o-mini", EPOCH)]),
    "list_prices": lambda b: b.list_prices(),
    "record_calls": lambda b: b.record_calls([make_call()]),
    "list_calls": lambda b: b.list_calls(CallQuery()),
    "summarize_usage": lambda b: b.summarize_usage(UsageQuery()),
    "ping": lambda b: b.ping(),
}

each_method = pytest.mark.parametrize("method", METHODS)


class LifecycleContract(Harness):
    """`connect`, `disconnect`, `apply_migrations`, `schema_status`, `ping`."""

    async def test_making_a_backend_opens_nothing_and_needs_no_disconnect(self, store: Store) -> None:
        await store.backend().disconnect()

    async def test_connect_is_idempotent_and_keeps_what_is_stored(self, backend: StorageBackend) -> None:
        await backend.record_calls([make_call()])
        await asyncio.gather(*(backend.connect() for _ in range(5)))
        assert (await backend.record_calls([make_call()])).duplicates == 1

    async def test_many_connects_at_once_open_the_store_once(self, store: Store) -> None:
        backend = store.backend()
        await asyncio.gather(*(backend.connect() for _ in range(5)))
        await backend.ping()
        await backend.disconnect()

    async def test_disconnect_is_idempotent(self, backend: StorageBackend) -> None:
        await asyncio.gather(backend.disconnect(), backend.disconnect())
        await backend.disconnect()

    async def test_a_backend_can_be_connected_again(self, backend: StorageBackend) -> None:
        for number in range(3):
            await backend.disconnect()
            await backend.connect()
            await backend.apply_migrations()
            assert (await backend.record_calls([make_call(number)])).inserted == 1

    async def test_async_with_connects_and_disconnects(self, store: Store) -> None:
        async with store.backend() as backend:
            await backend.ping()
        with pytest.raises(StorageClosedError):
            await backend.ping()

    async def test_disconnect_waits_for_running_calls(self, store: Store, backend: StorageBackend) -> None:
        batches = [[make_call(batch * 100 + number) for number in range(100)] for batch in range(4)]
        running = [asyncio.create_task(backend.record_calls(batch)) for batch in batches]
        await asyncio.sleep(0)
        await backend.disconnect()
        assert [(await task).inserted for task in running] == [100] * 4

    @each_method
    async def test_before_connect_it_is_closed(self, store: Store, method: str) -> None:
        with pytest.raises(StorageClosedError):
            await METHODS[method](store.backend())

    @each_method
    async def test_after_disconnect_it_is_closed(self, backend: StorageBackend, method: str) -> None:
        await backend.disconnect()
        with pytest.raises(StorageClosedError):
            await METHODS[method](backend)

    @each_method
    async def test_another_event_loop_is_refused(self, backend: StorageBackend, method: str) -> None:
        async def elsewhere() -> None:
            with pytest.raises(WrongLoopError):
                await METHODS[method](backend)

        await asyncio.to_thread(asyncio.run, elsewhere())
        await backend.ping()

    async def test_an_empty_store_has_no_schema_and_says_what_is_pending(self, store: Store) -> None:
        async with store.backend() as backend:
            status = await backend.schema_status()
            assert status.current is None
            assert status.head
            assert status.pending
            assert status.writable is True
            assert status.identity is None
            assert await backend.schema_status() == status

    async def test_migrating_applies_what_is_pending_and_reports_it(self, store: Store) -> None:
        async with store.backend() as backend:
            pending = (await backend.schema_status()).pending
            report = await backend.apply_migrations()
            assert report.applied == pending
            assert report.skipped == []
            assert report.total == len(pending)
            assert dict(report) == {"applied": pending, "skipped": [], "total": len(pending)}

    async def test_a_migrated_store_is_at_head(self, backend: StorageBackend) -> None:
        status = await backend.schema_status()
        assert status.current == status.head
        assert status.pending == []
        assert status.writable is True

    async def test_migrating_again_skips_everything_and_keeps_what_is_stored(self, backend: StorageBackend) -> None:
        await backend.record_calls([make_call()])
        report = await backend.apply_migrations()
        assert report.applied == []
        assert len(report.skipped) == report.total > 0
        assert_same((await backend.list_calls(CallQuery())).calls, [make_call()])

    async def test_many_migrators_at_once_migrate_once(self, store: Store) -> None:
        async with store.backend() as backend:
            reports = await asyncio.gather(*(backend.apply_migrations() for _ in range(5)))
            assert sum(bool(report.applied) for report in reports) == 1
            assert len({report.total for report in reports}) == 1

    async def test_the_first_migration_makes_the_identity_and_nothing_changes_it(
        self, store: Store, backend: StorageBackend
    ) -> None:
        identity = (await backend.schema_status()).identity
        await backend.apply_migrations()
        assert (await backend.schema_status()).identity == identity
        if "persistent" in store.capabilities:
            await backend.disconnect()
            await backend.connect()
            assert (await backend.schema_status()).identity == identity
        if store.is_shared:
            async with store.backend() as other:
                assert (await other.schema_status()).identity == identity

    async def test_another_store_has_another_identity(
        self, store: Store, backend: StorageBackend, other_storage_url: str | None, request: pytest.FixtureRequest
    ) -> None:
        identity = (await backend.schema_status()).identity
        if identity is None:
            return
        if other_storage_url is None:
            not_proven(request, "there is no fixture other_storage_url")
            return
        async with store.at(other_storage_url).backend() as other:
            await other.apply_migrations()
            assert (await other.schema_status()).identity not in (None, identity)

    async def test_a_persistent_store_outlives_its_connection(self, store: Store, backend: StorageBackend) -> None:
        await backend.record_calls([make_call()])
        await backend.upsert_models([make_model()])
        await backend.disconnect()
        await backend.connect()
        if "persistent" not in store.capabilities:
            await backend.apply_migrations()
            assert (await backend.record_calls([make_call(1)])).inserted == 1
            return
        assert not (await backend.schema_status()).pending
        assert_same((await backend.list_calls(CallQuery())).calls, [make_call()])
        assert_same(await backend.list_models(), [make_model()])

    async def test_its_texts_and_logs_show_no_password(self, store: Store, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.DEBUG)
        async with store.backend() as backend:
            await backend.apply_migrations()
            await backend.record_calls([make_call()])
            texts = f"{bare(backend)!r} {bare(backend)} {backend.target}"
        assert not [secret for secret in store.secrets if secret in texts + caplog.text]
