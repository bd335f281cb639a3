"""Tests with a store that becomes unreachable and reachable again."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest

from ..errors import StorageUnavailableError
from ..storage.base import StorageBackend
from ..storage.reference import summarize
from ..storage.types import UsageQuery
from .comparison import assert_same
from .harness import Harness, Store
from .lifecycle import METHODS
from .not_proven import not_proven
from .records import make_call

#: Seconds after which a call that neither returns nor raises is regarded as hanging.
_TIMEOUT = 120

_LIVE = [name for name in METHODS if name not in ("apply_migrations", "schema_status")]


def needs_outage(test: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    """Mark a test that makes the store unreachable; without the fixture `storage_outage` it is not proven."""

    @functools.wraps(test)
    async def run(self: Any, storage_outage: Any, request: pytest.FixtureRequest, **fixtures: Any) -> None:
        if storage_outage is None:
            not_proven(request, "there is no fixture storage_outage")
            return
        async with asyncio.timeout(_TIMEOUT):
            await test(self, storage_outage, request, **fixtures)

    return run


class OutageContract(Harness):
    """StorageUnavailableError while the store is unreachable; afterwards the same backend object works again."""

    #: Seconds that a backend may take to work again after an outage.
    recovery_time = 5.0

    async def recovered(self, backend: StorageBackend) -> None:
        """Call the backend until it works again."""
        clock = asyncio.get_running_loop().time
        deadline = clock() + self.recovery_time
        while True:
            try:
                return await backend.ping()
            except StorageUnavailableError:
                if clock() >= deadline:
                    raise
                await asyncio.sleep(0.05)

    @pytest.mark.parametrize("method", _LIVE)
    @needs_outage
    async def test_during_an_outage_it_is_unavailable_and_afterwards_it_works(
        self,
        storage_outage: AbstractContextManager[Any],
        request: pytest.FixtureRequest,
        backend: StorageBackend,
        method: str,
    ) -> None:
        with storage_outage:
            for _ in range(2):
                with pytest.raises(StorageUnavailableError):
                    await METHODS[method](backend)
        await self.recovered(backend)
        await METHODS[method](backend)

    @needs_outage
    async def test_connecting_during_an_outage_fails_and_can_be_tried_again(
        self, storage_outage: AbstractContextManager[Any], request: pytest.FixtureRequest, store: Store
    ) -> None:
        backend = store.backend()
        with storage_outage, pytest.raises(StorageUnavailableError):
            await backend.connect()
        await backend.connect()
        await backend.apply_migrations()
        assert (await backend.record_calls([make_call()])).inserted == 1
        await backend.disconnect()

    @needs_outage
    async def test_disconnecting_during_an_outage_works(
        self, storage_outage: AbstractContextManager[Any], request: pytest.FixtureRequest, backend: StorageBackend
    ) -> None:
        with storage_outage:
            await backend.disconnect()
        await backend.connect()
        await self.recovered(backend)

    @needs_outage
    async def test_ids_that_are_tried_again_count_once(
        self, storage_outage: AbstractContextManager[Any], request: pytest.FixtureRequest, backend: StorageBackend
    ) -> None:
        batches = [[make_call(batch * 50 + number) for number in range(50)] for batch in range(8)]
        await backend.record_calls(batches[0])
        running = [asyncio.create_task(backend.record_calls(batch)) for batch in batches[:6]]
        await asyncio.sleep(0)
        with storage_outage:
            for outcome in await asyncio.gather(*running, return_exceptions=True):
                assert not isinstance(outcome, BaseException) or isinstance(outcome, StorageUnavailableError)
            for batch in batches:
                with pytest.raises(StorageUnavailableError):
                    await backend.record_calls(batch)
        await self.recovered(backend)
        for batch in batches:
            result = await backend.record_calls(batch)
            assert result.inserted in (0, 50)
            assert result.inserted + result.duplicates == 50
        calls = [call for batch in batches for call in batch]
        assert_same(await backend.summarize_usage(UsageQuery()), summarize(calls, UsageQuery()))
