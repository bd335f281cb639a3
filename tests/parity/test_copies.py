"""A copy from one kind of database to another has the same sums and lacks no record."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import permutations
from typing import Any

import pytest

from llmbridge import LLMDatabase
from llmbridge.errors import StorageError
from llmbridge.storage import StorageBackend, UsageRow
from llmbridge_postgres import PostgreSQLBackend
from llmbridge_sqlite import SQLiteBackend

from .stores import Arena

TODAY = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
DAY = timedelta(days=1)
KINDS = ("MemoryBackend", SQLiteBackend.__name__, PostgreSQLBackend.__name__)


async def _record(db: LLMDatabase, at: datetime, number: int, **changes: Any) -> None:
    known = {"origin": "o", "id_at_origin": f"u{number % 3}", "provider": "p", "model_name": f"m{number % 2}"}
    counts = {"prompt_tokens": number, "completion_tokens": 1, "response_time_ms": 100 * number + 1}
    await db.record_api_call(
        **{**known, **counts, "estimated_cost": f"0.{number:012}", "called_at": at, "status": "success", **changes}
    )


async def _answers(db: LLMDatabase) -> list[list[UsageRow]]:
    by_hour = await db.usage(TODAY - 40 * DAY, group_by="hour")
    return [by_hour, *[await db.usage(group_by=fields) for fields in ((), ("id_at_origin", "model_name"), ("status",))]]


async def _carry(backends: tuple[StorageBackend, StorageBackend]) -> None:
    async with LLMDatabase(backend=backends[0]) as source, LLMDatabase(backend=backends[1]) as target:
        for number in range(120):
            await _record(source, TODAY - number % 30 * DAY + timedelta(minutes=11 * number), number)
        for purged in (25, 20, 20):
            await source.purge(TODAY - purged * DAY)
            await source.copy_to(target)
            assert await _answers(target) == await _answers(source)

        await _record(target, TODAY - 10 * DAY, 7, id_at_origin="own")
        await source.copy_to(target)
        assert [row.calls for row in await target.usage()] == [121]

        await source.purge(TODAY - 9 * DAY)
        before = await _answers(target)
        with pytest.raises(StorageError, match=f"purged {(TODAY - 10 * DAY).date()}, and the target has calls"):
            await source.copy_to(target)
        assert await _answers(target) == before

        await target.purge(TODAY - 9 * DAY)
        with pytest.raises(StorageError, match=f"purged {(TODAY - 10 * DAY).date()}, and the target has totals"):
            await source.copy_to(target)
        assert await _answers(target) == before


@pytest.mark.parametrize(("source", "target"), list(permutations(KINDS, 2)))
def test_copies_add_up_and_take_nothing(arena: Arena, source: str, target: str) -> None:
    backends = arena.empty()
    arena.of_all({"copy": (backends[source], backends[target])}, _carry)
