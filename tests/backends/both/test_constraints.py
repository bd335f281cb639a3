"""A constraint or trigger that somebody added to the database concerns the calls that it refuses, and no others."""

from __future__ import annotations

import asyncio
from pathlib import Path

from llmbridge import LLMDatabase
from llmbridge.testing import make_call

from .conftest import Store


async def test_calls_that_a_trigger_refuses_wait_set_aside_and_the_others_are_stored(
    store: Store, tmp_path: Path
) -> None:
    calls = [make_call(number) for number in range(200)]
    refused = calls[70]
    async with LLMDatabase(store.url, spool_dir=tmp_path / "spool") as db:
        await db.usage()
        store.refuse("INSERT", refused.id)
        records = await asyncio.gather(*(db.record_api_call(**call.model_dump()) for call in calls))
        assert [call.id for call in calls if call.id not in set(records)] == []
        while (await db.spool_status()).set_aside != 1:
            await asyncio.sleep(0.05)
        (total,) = await db.usage()
        assert total.calls == 199
        assert db.metrics()["calls_lost"] == db.metrics()["calls_rejected"] == db.metrics()["outages"] == 0
    store.allow()
    async with LLMDatabase(store.url, spool_dir=tmp_path / "spool") as db:
        while (await db.usage())[0].calls != 200:
            await asyncio.sleep(0.05)
        while (await db.spool_status()).set_aside:
            await asyncio.sleep(0.05)
