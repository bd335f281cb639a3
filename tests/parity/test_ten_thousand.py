"""With the same 10,000 calls, each field, each total and each day is the same in every backend, to the last digit."""

from __future__ import annotations

from datetime import timedelta

import pytest

from llmbridge import LLMDatabase
from llmbridge._usage.periods import UNITS
from llmbridge.schemas import CallRecord
from llmbridge.storage import GROUP_FIELDS, MAX_BATCH, MAX_PAGE, CallQuery, StorageBackend, UsageQuery, UsageRow
from llmbridge.storage.reference import summarize
from llmbridge.testing import make_calls
from llmbridge.testing.records import EPOCH

from .sameness import difference
from .stores import Arena
from .values import ZONES

CALLS = make_calls(10_000, days=40)


async def _recorded(backend: StorageBackend) -> list[CallRecord]:
    """What is read back, page by page, after all was recorded."""
    await backend.connect()
    await backend.apply_migrations()
    for start in range(0, len(CALLS), MAX_BATCH):
        await backend.record_calls(CALLS[start : start + MAX_BATCH])
    page = await backend.list_calls(CallQuery(limit=MAX_PAGE))
    found = page.calls
    while page.next is not None:
        page = await backend.list_calls(CallQuery(limit=MAX_PAGE, after=page.next))
        found += page.calls
    return found


async def _totals(backend: StorageBackend) -> list[list[UsageRow]]:
    groupings = [(), *((field,) for field in GROUP_FIELDS), GROUP_FIELDS, ("tag:team",), ("status", "tag:cost.center")]
    return [await backend.summarize_usage(UsageQuery(group_by=group_by)) for group_by in groupings]


async def _periods(backend: StorageBackend) -> list[list[UsageRow]]:
    since, until = EPOCH.date(), EPOCH.date() + timedelta(days=45)
    asked = [*((zone, "day") for zone in ZONES[:6]), *(("Europe/Madrid", unit) for unit in UNITS)]
    async with LLMDatabase(backend=backend) as db:
        return [await db.usage(since, until, group_by=(unit, "provider"), tz=zone) for zone, unit in asked]


@pytest.fixture
def backends(arena: Arena) -> dict[str, StorageBackend]:
    return arena.empty()


def test_ten_thousand_calls_are_the_same_in_every_backend(arena: Arena, backends: dict[str, StorageBackend]) -> None:
    newest_first = sorted(CALLS, key=lambda call: (call.called_at, call.id), reverse=True)
    for name, found in arena.of_all(backends, _recorded).items():
        assert difference(found, newest_first, name) is None
    everything = summarize(CALLS, UsageQuery())
    for ask in (_totals, _periods):
        (_, expected), *others = arena.of_all(backends, ask).items()
        for name, answers in others:
            assert difference(answers, expected, name) is None
        if ask is _totals:
            assert difference(expected[0], everything) is None
