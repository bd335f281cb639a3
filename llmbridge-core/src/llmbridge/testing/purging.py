"""Tests of `purge_calls` [purge]: deleted calls, kept sums, watermark."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest

from ..errors import PurgedDetailError
from ..schemas import CallRecord
from ..storage.base import StorageBackend
from ..storage.reference import CELL_KEYS, field_value, summarize, too_fine
from ..storage.types import EARLIEST, LATEST, MAX_PAGE, CallQuery, Filters, Grain, UsageQuery, UsageRow
from .comparison import assert_same
from .harness import Harness, Store, needs, spin
from .listing import FILTERS, TICK, newest_first, record
from .records import EPOCH, MAX_COST, MAX_INT, cell_of, make_call, make_calls
from .usage import GROUPINGS

DAY = timedelta(days=1)
QUARTER = timedelta(minutes=15)
MIDNIGHT = EPOCH.replace(hour=0) + 2 * DAY

_SPAN = MIDNIGHT - 3 * DAY
#: Edges that purged totals can answer, that only quarters of an hour can, and that only calls can.
EDGES: tuple[tuple[datetime, ...], ...] = (
    (EARLIEST, LATEST),
    tuple(_SPAN + DAY * n for n in range(7)),
    tuple(_SPAN + QUARTER * n for n in range(0, 500, 7)),
    (MIDNIGHT - QUARTER, MIDNIGHT, MIDNIGHT + QUARTER + TICK),
    (MIDNIGHT - TICK, LATEST),
    (MIDNIGHT, MIDNIGHT + TICK, LATEST),
    (EARLIEST, MIDNIGHT - QUARTER + TICK),
    (EARLIEST, _SPAN),
    (EARLIEST, MIDNIGHT - 30 * DAY, MIDNIGHT - 29 * DAY + TICK),
)


def inexact_cells(purged: Sequence[CallRecord], query: UsageQuery) -> list[datetime]:
    """Return the ends of the cells of purged calls from which the exact answer cannot be computed."""
    fields = {*query.filters, *query.group_by} - {"period"}
    grain: Grain = "day" if "id_at_origin" in fields else "quarter"
    found: list[datetime] = []
    for call in purged:
        if not all(field_value(call, f) in v for f, v in query.filters.items() if f in CELL_KEYS[grain]):
            continue
        start, end = cell_of(call, grain)
        cut = any(start < edge < end for edge in query.edges)
        inside = query.edges[0] <= start and end <= query.edges[-1]
        if cut or (inside and too_fine(fields)):
            found.append(end)
    return found


async def assert_exact_or_refused(
    backend: StorageBackend, calls: Sequence[CallRecord], query: UsageQuery, watermark: datetime = MIDNIGHT
) -> bool:
    """Fail unless the backend returns the exact sums, or raises PurgedDetailError with the right `earliest` if it must.

    Return whether it returned sums.

    :param calls: all calls, including those purged before `watermark`
    """
    ends = inexact_cells([call for call in calls if call.called_at < watermark], query)
    if not ends:
        assert_same(await backend.summarize_usage(query), summarize(calls, query))
        return True
    with pytest.raises(PurgedDetailError) as caught:
        await backend.summarize_usage(query)
    assert caught.value.earliest == (watermark if too_fine({*query.filters, *query.group_by}) else max(ends))
    return False


class PurgeContract(Harness):
    """`purge_calls`, and its effects on other methods."""

    @needs("purge", "purge_calls")
    async def test_purging_deletes_the_calls_before_a_day(self, store: Store, backend: StorageBackend) -> None:
        calls = make_calls(120, seed=10)
        kept = [call for call in calls if call.called_at >= MIDNIGHT]
        await backend.record_calls(calls)
        assert await backend.purge_calls(MIDNIGHT) == len(calls) - len(kept) > 0
        assert_same((await backend.list_calls(CallQuery(limit=MAX_PAGE))).calls, newest_first(kept))

    @needs("purge", "purge_calls")
    async def test_the_time_is_rounded_down_to_a_utc_day(self, store: Store, backend: StorageBackend) -> None:
        times = (MIDNIGHT - DAY, MIDNIGHT - TICK, MIDNIGHT, MIDNIGHT + TICK)
        calls = [make_call(number, called_at=at) for number, at in enumerate(times)]
        await backend.record_calls(calls)
        assert await backend.purge_calls(MIDNIGHT + DAY - TICK) == 2
        assert_same((await backend.list_calls(CallQuery())).calls, [calls[3], calls[2]])

    @needs("purge", "purge_calls")
    async def test_sums_outlive_their_calls(self, store: Store, backend: StorageBackend) -> None:
        calls = make_calls(300, seed=11)
        await record(backend, calls)
        await backend.purge_calls(MIDNIGHT)
        for group_by in ((), ("status",), ("id_at_origin", "origin"), ("period", "model_name")):
            for edges in EDGES[:2]:
                assert await assert_exact_or_refused(backend, calls, UsageQuery(group_by=group_by, edges=edges))

    @needs("purge", "purge_calls")
    async def test_a_query_is_answered_exactly_or_refused(self, store: Store, backend: StorageBackend) -> None:
        calls = make_calls(100, seed=12)
        await backend.record_calls(calls)
        await backend.purge_calls(MIDNIGHT)
        answered = [
            await assert_exact_or_refused(backend, calls, UsageQuery(filters, group_by, edges))
            for edges in EDGES
            for filters, group_by in (*(({}, group_by) for group_by in GROUPINGS), *((f, ()) for f in FILTERS))
        ]
        assert any(answered)
        assert not all(answered)

    @needs("purge", "purge_calls")
    async def test_only_matching_purged_totals_prevent_an_answer(self, store: Store, backend: StorageBackend) -> None:
        purged = make_call(0, called_at=MIDNIGHT - timedelta(minutes=5), origin="gone")
        kept = make_call(1, called_at=MIDNIGHT + timedelta(minutes=5))
        await backend.record_calls([purged, kept])
        await backend.purge_calls(MIDNIGHT)
        edges = (MIDNIGHT - TICK, LATEST)
        mine: Filters = {"origin": ("kit",)}
        for query in (
            UsageQuery(mine, (), edges),
            UsageQuery(mine, ("error_type", "tag:team")),
            UsageQuery({**mine, "response_model": (None,)}, ("response_model",)),
            UsageQuery(mine, ("id_at_origin",), edges),
            UsageQuery({}, ("error_type",), (MIDNIGHT, LATEST)),
        ):
            assert await assert_exact_or_refused(backend, [purged, kept], query)
        for query in (
            UsageQuery({}, (), edges),
            UsageQuery({"id_at_origin": ("user-1",)}, (), (MIDNIGHT - QUARTER, LATEST)),
            UsageQuery({}, ("error_type",)),
            UsageQuery({}, ("response_model",)),
            UsageQuery({"response_model": (None,)}),
            UsageQuery({"tag:team": ("search",)}),
            UsageQuery({"tag:team": (None,), "origin": ("gone",)}),
        ):
            assert not await assert_exact_or_refused(backend, [purged, kept], query)

    @needs("purge", "purge_calls")
    async def test_calls_that_come_too_late_are_returned_as_expired(
        self, store: Store, backend: StorageBackend
    ) -> None:
        calls = [make_call(0, called_at=MIDNIGHT - DAY), make_call(1, called_at=MIDNIGHT)]
        await backend.record_calls(calls)
        await backend.purge_calls(MIDNIGHT)
        late = make_call(2, called_at=MIDNIGHT - TICK)
        in_time = make_call(3, called_at=MIDNIGHT)
        result = await backend.record_calls([late, calls[0], in_time, calls[1]])
        assert (result.inserted, result.duplicates) == (1, 1)
        assert set(result.expired) == {late.id, calls[0].id}
        assert await assert_exact_or_refused(backend, [*calls, in_time], UsageQuery())

    @needs("purge", "purge_calls")
    async def test_the_watermark_never_moves_back(self, store: Store, backend: StorageBackend) -> None:
        await backend.purge_calls(MIDNIGHT)
        assert await backend.purge_calls(MIDNIGHT - 2 * DAY) == 0
        late = make_call(called_at=MIDNIGHT - DAY)
        assert (await backend.record_calls([late])).expired == (late.id,)
        assert_same(await backend.summarize_usage(UsageQuery()), [UsageRow()])

    @needs("purge", "purge_calls")
    async def test_a_watermark_ahead_of_the_clock_is_reported_and_a_repair_lowers_it(
        self, store: Store, backend: StorageBackend
    ) -> None:
        now = datetime.now(UTC)
        calls = [make_call(number, called_at=now - DAY * (9 - number)) for number in range(5)]
        await backend.record_calls(calls)
        await backend.purge_calls(MIDNIGHT)
        assert (await backend.check_totals()).future_watermark is None
        ahead = (now + 3_000 * DAY).replace(hour=0, minute=0, second=0, microsecond=0)
        assert await backend.purge_calls(ahead) == 5
        new = make_call(10, called_at=now)
        assert (await backend.record_calls([new])).expired == (new.id,)
        assert (await backend.check_totals()).future_watermark == ahead
        assert (await backend.check_totals(repair=True)).future_watermark == ahead
        assert (await backend.check_totals()).future_watermark is None
        late = make_call(11, called_at=calls[-1].called_at)
        result = await backend.record_calls([new, late])
        assert (result.inserted, result.expired) == (1, (late.id,))
        assert await assert_exact_or_refused(backend, [*calls, new], UsageQuery(group_by=("id_at_origin",)), ahead)

    @needs("purge", "purge_calls")
    async def test_a_repair_forgets_a_watermark_before_which_there_was_nothing(
        self, store: Store, backend: StorageBackend
    ) -> None:
        await backend.purge_calls(datetime.now(UTC) + 3_000 * DAY)
        await backend.check_totals(repair=True)
        assert (await backend.record_calls([make_call(0)])).inserted == 1

    async def test_a_clock_of_the_store_tells_the_time(self, store: Store, backend: StorageBackend) -> None:
        clock = await backend.clock()
        assert clock is None or clock.utcoffset() == timedelta(0)

    @needs("purge", "purge_calls")
    async def test_purging_day_after_day_adds_up(self, store: Store, backend: StorageBackend) -> None:
        calls = make_calls(200, seed=13)
        await backend.record_calls(calls)
        deleted = [await backend.purge_calls(MIDNIGHT + DAY * day) for day in (-1, 0, 0, 1, 30)]
        assert deleted[2] == 0
        assert sum(deleted) == len(calls)
        for group_by in GROUPINGS[:6]:
            await assert_exact_or_refused(backend, calls, UsageQuery(group_by=group_by), MIDNIGHT + 30 * DAY)

    @needs("purge", "purge_calls")
    async def test_purged_sums_pass_64_bits(self, store: Store, backend: StorageBackend) -> None:
        large = {"prompt_tokens": MAX_INT, "response_time_ms": MAX_INT, "estimated_cost": MAX_COST}
        calls = [make_call(number, **large) for number in range(30)]
        await backend.record_calls(calls)
        await backend.purge_calls(MIDNIGHT)
        await backend.record_calls([kept := make_call(40, called_at=MIDNIGHT, **large)])
        assert await assert_exact_or_refused(backend, [*calls, kept], UsageQuery())
        assert await assert_exact_or_refused(backend, [*calls, kept], UsageQuery(group_by=("id_at_origin",)))

    @needs("purge", "purge_calls")
    async def test_a_cancelled_purge_happens_wholly_or_not_at_all(self, store: Store, backend: StorageBackend) -> None:
        calls = make_calls(100, seed=15)
        whole = UsageQuery(group_by=("id_at_origin",))
        await backend.record_calls(calls)
        steps, is_done = 0, False
        while not is_done:
            task = asyncio.create_task(backend.purge_calls(MIDNIGHT))
            await spin(steps)
            is_done = task.done()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert task.cancelled() or task.exception() is None
            kept = (await backend.list_calls(CallQuery(limit=MAX_PAGE))).calls
            assert len(kept) in (len(calls), sum(call.called_at >= MIDNIGHT for call in calls))
            assert_same(await backend.summarize_usage(whole), summarize(calls, whole))
            steps = max(steps + 1, steps * 3 // 2)

    @needs("purge", "purge_calls")
    async def test_purging_while_others_record_loses_nothing(self, store: Store, backend: StorageBackend) -> None:
        calls = make_calls(200, seed=14)
        await backend.record_calls(calls)
        new = [make_call(number, called_at=MIDNIGHT + timedelta(seconds=number)) for number in range(60)]
        deleted, results = await asyncio.gather(
            backend.purge_calls(MIDNIGHT),
            asyncio.gather(*(backend.record_calls(new[n : n + 10]) for n in range(0, 60, 10))),
        )
        assert deleted == sum(call.called_at < MIDNIGHT for call in calls)
        assert sum(result.inserted for result in results) == 60
        assert await assert_exact_or_refused(backend, [*calls, *new], UsageQuery(group_by=("id_at_origin",)))

    @needs("compact", "compact")
    async def test_compacting_changes_nothing_but_the_space(self, store: Store, backend: StorageBackend) -> None:
        calls = make_calls(200, seed=18)
        kept = [call for call in calls if call.called_at >= MIDNIGHT]
        await record(backend, calls)
        await backend.purge_calls(MIDNIGHT)
        assert isinstance(await backend.compact(), int)
        assert_same((await backend.list_calls(CallQuery(limit=MAX_PAGE))).calls, newest_first(kept))
        assert await assert_exact_or_refused(backend, calls, UsageQuery(group_by=("model_name",)))
        more = make_call(1_000, called_at=MIDNIGHT + DAY)
        await backend.record_calls([more])
        assert_same((await backend.list_calls(CallQuery(ids=(more.id,)))).calls, [more])
