"""Purging, erasing and folding in slices: others can write in between, results are exact after each slice, and an
interrupted operation can be continued."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from decimal import Decimal

import pytest

import llmbridge_postgres.erase
import llmbridge_postgres.purge
import llmbridge_sqlite.erase
import llmbridge_sqlite.purge
from llmbridge.schemas import CallRecord
from llmbridge.storage import CallQuery, CostChange, StorageBackend, StorageError, UsageQuery
from llmbridge.storage.reference import summarize
from llmbridge.testing import make_call, make_calls
from llmbridge.testing.comparison import assert_same
from llmbridge.testing.records import EPOCH

from .conftest import Store

PURGING = (llmbridge_sqlite.purge, llmbridge_postgres.purge)
ERASING = (llmbridge_sqlite.erase, llmbridge_postgres.erase)
NEVER = 2**62
SLICE = 50
DAY = timedelta(days=1)
MIDNIGHT = EPOCH.replace(hour=0)
DAYS = tuple(MIDNIGHT + number * DAY for number in range(-1, 12))
QUESTIONS = (
    UsageQuery(),
    UsageQuery(group_by=("id_at_origin", "model_name", "status")),
    UsageQuery(group_by=("period", "provider"), edges=DAYS),
    UsageQuery(group_by=("period", "id_at_origin"), edges=DAYS),
)
IN_STORE = "SELECT COUNT(*) FROM {{tables.llmbridge_calls}}"


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Slices of few calls and days."""
    for module in PURGING:
        monkeypatch.setattr(module, "_CHUNK", SLICE)
    for module in ERASING:
        monkeypatch.setattr(module, "_CHUNK", SLICE)
        monkeypatch.setattr(module, "_DAYS", 2)


def of_one_day(count: int) -> list[CallRecord]:
    return [make_call(n, called_at=MIDNIGHT + timedelta(seconds=n)) for n in range(count)]


def nameless(calls: list[CallRecord], user: str) -> list[CallRecord]:
    return [call.model_copy(update={"id_at_origin": None}) if call.id_at_origin == user else call for call in calls]


def by_time(calls: list[CallRecord]) -> list[CallRecord]:
    return sorted(calls, key=lambda call: (call.called_at, call.id), reverse=True)


async def assert_exact(backend: StorageBackend, calls: list[CallRecord]) -> None:
    for question in QUESTIONS:
        assert_same(await backend.summarize_usage(question), summarize(calls, question))
    assert not (await backend.check_totals()).wrong


@pytest.mark.parametrize("what", ["purge", "erase"])
async def test_others_write_while_one_day_goes(store: Store, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (*PURGING, *ERASING):
        monkeypatch.setattr(module, "_CHUNK", 5)
    old = of_one_day(1000)
    async with store.backend() as one, store.backend() as other:
        await one.apply_migrations()
        await one.record_calls(old)
        await one.fold_totals()
        going = asyncio.create_task(
            one.purge_calls(MIDNIGHT + DAY) if what == "purge" else one.erase_user("kit", "user-1")
        )
        new = [make_call(2000 + n, called_at=MIDNIGHT + 9 * DAY, id_at_origin="new") for n in range(3)]
        for number, call in enumerate(new, 1):
            await other.record_calls([call])
            assert sum(row.calls for row in await other.summarize_usage(QUESTIONS[1])) == len(old) + number
        assert not going.done()
        assert await going == len(old)
        await assert_exact(other, [*(nameless(old, "user-1") if what == "erase" else old), *new])


@pytest.mark.parametrize("what", ["purge", "erase"])
async def test_disconnecting_waits_until_the_last_slice_is_done(store: Store, what: str) -> None:
    calls = of_one_day(6 * SLICE)
    async with store.backend() as backend:
        await backend.apply_migrations()
        await backend.record_calls(calls)
        going = asyncio.create_task(
            backend.purge_calls(MIDNIGHT + DAY) if what == "purge" else backend.erase_user("kit", "user-1")
        )
        await asyncio.sleep(0)
    assert going.done()
    assert going.result() == len(calls)


@pytest.mark.parametrize("at", [0, 70, 149])
async def test_a_purge_that_is_interrupted_is_exact_and_the_next_one_ends_it(store: Store, at: int) -> None:
    calls = by_time(make_calls(600, seed=70))[::-1]
    gone = [call for call in calls if call.called_at < MIDNIGHT + 2 * DAY]
    kept = [call for call in calls if call.called_at >= MIDNIGHT + 2 * DAY]
    new = [make_call(5000 + n, called_at=MIDNIGHT + 9 * DAY) for n in range(30)]
    async with store.backend() as one, store.backend(fold_after=NEVER) as other:
        await one.apply_migrations()
        await other.record_calls([*kept, *gone[50:]])
        await other.fold_totals()
        await other.record_calls(gone[:50])
        store.refuse("DELETE", gone[at].id)
        with pytest.raises(StorageError, match="it is refused"):
            await one.purge_calls(MIDNIGHT + 2 * DAY)
        store.allow()
        left = len(calls) - at // SLICE * SLICE
        assert await other.fetch_value(IN_STORE) == left
        assert_same((await other.list_calls(CallQuery(limit=1000))).calls, by_time(kept))
        assert not (await other.list_calls(CallQuery(ids=(gone[-1].id,)))).calls
        assert await other.fetch_value("SELECT COUNT(*) FROM {{tables.call_log}}") == len(kept)
        successes = sum(call.status == "success" for call in calls)
        assert await other.fetch_value("SELECT SUM(call_count) FROM {{tables.usage_summary}}") == successes
        await assert_exact(other, calls)
        assert await other.reprice_calls([CostChange(gone[-1].id, Decimal(1), "caller", None, None, EPOCH)]) == 0
        assert (await other.record_calls(gone[-1:])).expired == (gone[-1].id,)
        await other.record_calls(new)
        await assert_exact(other, [*calls, *new])
        assert await one.purge_calls(MIDNIGHT) == left - len(kept)
        assert await other.fetch_value(IN_STORE) == len(kept) + len(new)
        await assert_exact(other, [*calls, *new])
        await other.fold_totals()
        await assert_exact(other, [*calls, *new])


async def test_a_call_after_an_interrupted_purge_counts_whatever_number_it_gets(store: Store) -> None:
    kept = make_call(0, called_at=MIDNIGHT + 3 * DAY)
    old = of_one_day(2 * SLICE)
    async with store.backend(fold_after=NEVER) as backend:
        await backend.apply_migrations()
        await backend.record_calls([kept])
        await backend.record_calls(old[::-1])
        store.refuse("DELETE", old[-1].id)
        with pytest.raises(StorageError, match="it is refused"):
            await backend.purge_calls(MIDNIGHT + DAY)
        store.allow()
        assert await backend.purge_calls(MIDNIGHT + DAY) == SLICE
        new = [make_call(900 + n, called_at=MIDNIGHT + 4 * DAY) for n in range(3)]
        for call in new:
            await backend.record_calls([call])
            await backend.fold_totals()
        await assert_exact(backend, [kept, *old, *new])


@pytest.mark.parametrize("at", [0, 70, 149])
async def test_forgetting_that_is_interrupted_is_exact_and_the_next_time_ends_it(store: Store, at: int) -> None:
    mine = [make_call(n, called_at=MIDNIGHT + n * timedelta(hours=1)) for n in range(150)]
    others = [make_call(1000 + n, called_at=call.called_at, id_at_origin=None) for n, call in enumerate(mine)]
    async with store.backend(fold_after=NEVER) as backend:
        await backend.apply_migrations()
        await backend.record_calls([*mine[:120], *others])
        await backend.fold_totals()
        await backend.record_calls(mine[120:])
        store.refuse("UPDATE", mine[at].id)
        with pytest.raises(StorageError, match="it is refused"):
            await backend.erase_user("kit", "user-1")
        store.allow()
        done = at // SLICE * SLICE
        await assert_exact(backend, [*nameless(mine[:done], "user-1"), *mine[done:], *others])
        assert await backend.erase_user("kit", "user-1") == len(mine) - done
        await assert_exact(backend, [*nameless(mine, "user-1"), *others])
        named = "SELECT COUNT(*) FROM {{tables.llmbridge_usage_by_user}} WHERE id_at_origin = 'user-1'"
        assert await backend.fetch_value(named) == 0


async def test_forgetting_takes_the_name_from_calls_that_were_purged_and_not_deleted(store: Store) -> None:
    calls = of_one_day(SLICE)
    async with store.backend() as backend:
        await backend.apply_migrations()
        await backend.record_calls(calls)
        store.refuse("DELETE", calls[0].id)
        with pytest.raises(StorageError, match="it is refused"):
            await backend.purge_calls(MIDNIGHT + DAY)
        assert await backend.erase_user("kit", "user-1") == 1
        named = "SELECT COUNT(*) FROM {{tables.llmbridge_calls}} WHERE id_at_origin IS NOT NULL"
        assert await backend.fetch_value(named) == 0
        await assert_exact(backend, nameless(calls, "user-1"))
        store.allow()
        assert await backend.purge_calls(MIDNIGHT + DAY) == len(calls)


@pytest.mark.parametrize("is_folded", [False, True])
async def test_what_forgetting_changed_is_counted_the_same_however_much_is_folded(
    store: Store, is_folded: bool
) -> None:
    times = (MIDNIGHT - DAY, MIDNIGHT - DAY, MIDNIGHT, MIDNIGHT + DAY, MIDNIGHT + 2 * DAY)
    models = ("gpt-4o", "gpt-4o-mini", "gpt-4o", "gpt-4o", "gpt-4o")
    async with store.backend(fold_after=NEVER) as backend:
        await backend.apply_migrations()
        await backend.record_calls([make_call(n, called_at=times[n], model_name=models[n]) for n in range(5)])
        await backend.purge_calls(MIDNIGHT)
        await backend.record_calls([make_call(9, called_at=MIDNIGHT + 3 * DAY)])
        if is_folded:
            await backend.fold_totals()
        assert await backend.erase_user("kit", "user-1") == 4 + 2


async def test_processes_that_record_little_each_leave_a_short_tail(store: Store) -> None:
    calls = make_calls(6000, seed=72)
    for start in range(0, len(calls), 200):
        async with store.backend() as short_lived:
            await short_lived.apply_migrations()
            await short_lived.record_calls(calls[start : start + 200])
        store.age()
    async with store.backend() as reader:
        assert await reader.fetch_value(store.WAITING) < 1500
        await assert_exact(reader, calls)
