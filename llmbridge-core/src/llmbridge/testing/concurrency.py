"""Tests with concurrent callers, cancelled callers and several backends on one store."""

from __future__ import annotations

import asyncio

from ..schemas import CallRecord
from ..storage.base import StorageBackend
from ..storage.reference import summarize
from ..storage.types import MAX_PAGE, CallQuery, UsageQuery
from .comparison import assert_same
from .harness import Harness, Store, spin
from .listing import newest_first
from .records import EPOCH, make_call, make_calls, make_model

BATCH = 40


class ConcurrencyContract(Harness):
    """Concurrent methods on one event loop, and several backends on one store."""

    async def test_concurrent_batches_count_every_id_once(self, backend: StorageBackend) -> None:
        calls = [make_call(number) for number in range(200)]
        batches = [calls[start : start + BATCH] for start in range(0, 200, BATCH // 2)]
        results = await asyncio.gather(*(backend.record_calls(batch) for batch in batches))
        assert sum(result.inserted for result in results) == 200
        assert sum(result.duplicates for result in results) == sum(map(len, batches)) - 200
        assert_same(await backend.summarize_usage(UsageQuery()), summarize(calls, UsageQuery()))

    async def test_readers_see_whole_batches_while_writers_write(self, backend: StorageBackend) -> None:
        batches = [[make_call(batch * BATCH + number) for number in range(BATCH)] for batch in range(8)]
        writers = [asyncio.create_task(backend.record_calls(batch)) for batch in batches]
        while not all(writer.done() for writer in writers):
            [row], page = await asyncio.gather(
                backend.summarize_usage(UsageQuery()), backend.list_calls(CallQuery(limit=MAX_PAGE))
            )
            assert row.calls % BATCH == len(page.calls) % BATCH == 0
            assert row.total_tokens == row.calls * 17
            await asyncio.sleep(0)
        await asyncio.gather(*writers)

    async def test_all_methods_run_at_the_same_time(self, backend: StorageBackend) -> None:
        calls = make_calls(60, seed=8)
        await asyncio.gather(
            *(backend.record_calls([call]) for call in calls),
            *(backend.upsert_models([make_model(f"provider {number}")]) for number in range(10)),
            *(backend.list_models() for _ in range(10)),
            *(backend.list_calls(CallQuery()) for _ in range(10)),
            *(backend.summarize_usage(UsageQuery(group_by=("status",))) for _ in range(10)),
            *(backend.ping() for _ in range(10)),
            backend.apply_migrations(),
            backend.schema_status(),
        )
        assert_same((await backend.list_calls(CallQuery())).calls, newest_first(calls))
        assert len(await backend.list_models()) == 10

    async def test_concurrent_retirements_count_a_model_once(self, backend: StorageBackend) -> None:
        await backend.upsert_models([make_model()])
        key = ("openai", "gpt-4o-mini")
        assert sum(await asyncio.gather(*(backend.retire_models([key], EPOCH) for _ in range(5)))) == 1

    async def test_a_cancelled_batch_is_stored_wholly_or_not_at_all(self, backend: StorageBackend) -> None:
        recorded: list[CallRecord] = []
        steps = finished = 0
        while finished < 2 and steps < 50_000:
            batch = [make_call(len(recorded) + number) for number in range(BATCH)]
            task = asyncio.create_task(backend.record_calls(batch))
            await spin(steps)
            finished += task.done()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert task.cancelled() or task.exception() is None
            stored = (await backend.list_calls(CallQuery(ids=tuple(call.id for call in batch)))).calls
            assert len(stored) in (0, BATCH), f"{len(stored)} of {BATCH} calls stored after a cancel at step {steps}"
            again = await backend.record_calls(batch)
            assert (again.inserted, again.duplicates) == (BATCH - len(stored), len(stored))
            recorded += batch
            steps = max(steps + 1, steps * 3 // 2)
        assert_same(await backend.summarize_usage(UsageQuery()), summarize(recorded, UsageQuery()))

    async def test_cancelled_reads_leave_the_backend_usable(self, backend: StorageBackend) -> None:
        await backend.record_calls([make_call(number) for number in range(BATCH)])
        for steps in range(12):
            tasks = [
                asyncio.create_task(backend.list_calls(CallQuery())),
                asyncio.create_task(backend.summarize_usage(UsageQuery())),
                asyncio.create_task(backend.ping()),
            ]
            await spin(steps)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            assert all(task.cancelled() or task.exception() is None for task in tasks)
        assert (await backend.summarize_usage(UsageQuery()))[0].calls == BATCH

    async def test_several_backends_on_a_shared_store_lose_nothing(self, store: Store, backend: StorageBackend) -> None:
        calls = [make_call(number) for number in range(160)]
        others = [store.backend() for _ in range(3)] if store.is_shared else []
        await asyncio.gather(*(other.connect() for other in others))
        await asyncio.gather(*(other.apply_migrations() for other in others))
        writers = [backend, *others]
        results = await asyncio.gather(
            *(writers[n % len(writers)].record_calls(calls[n * 10 : n * 10 + 20]) for n in range(16))
        )
        assert sum(result.inserted for result in results) == 160
        for reader in writers:
            assert_same(await reader.summarize_usage(UsageQuery()), summarize(calls, UsageQuery()))
        await asyncio.gather(*(other.disconnect() for other in others))

    async def test_several_backends_opening_a_new_shared_store_migrate_it_once(self, store: Store) -> None:
        backends = [store.backend() for _ in range(4 if store.is_shared else 1)]
        await asyncio.gather(*(backend.connect() for backend in backends))
        reports = await asyncio.gather(*(backend.apply_migrations() for backend in backends))
        assert sum(bool(report.applied) for report in reports) == 1
        await asyncio.gather(*(backend.disconnect() for backend in backends))
