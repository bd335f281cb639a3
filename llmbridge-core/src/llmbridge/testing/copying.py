"""Tests of `read_totals` and `write_totals` [copy]."""

from __future__ import annotations

from collections.abc import Sequence

from ..storage.base import StorageBackend
from ..storage.types import TotalsPage, TotalsRow, UsageQuery, UsageRow
from .comparison import assert_same
from .harness import Harness, Store, needs
from .listing import FILTERS
from .purging import DAY, EDGES, MIDNIGHT, assert_exact_or_refused
from .records import make_call, make_calls, make_totals
from .usage import GROUPINGS


async def read_all(backend: StorageBackend) -> list[TotalsPage]:
    """Return all pages of totals."""
    pages = [await backend.read_totals()]
    while (cursor := pages[-1].next) is not None:
        pages.append(await backend.read_totals(cursor))
        assert len(pages) < 100_000, "read_totals() returns a next page without end"
    return pages


async def assert_totals(backend: StorageBackend, expected: Sequence[TotalsRow]) -> None:
    """Fail unless the store has exactly these totals, in this order."""
    assert_same([row for page in await read_all(backend) for row in page.rows], expected)


class CopyContract(Harness):
    """`read_totals` and `write_totals`. The kit computes totals from calls, so one store is enough."""

    @needs("copy", "read_totals")
    async def test_a_store_that_never_purged_has_no_totals_and_no_watermark(
        self, store: Store, backend: StorageBackend
    ) -> None:
        await backend.record_calls([make_call()])
        page = await backend.read_totals()
        assert (page.rows, page.next, page.watermark) == ([], None, None)

    @needs("copy", "write_totals")
    async def test_totals_come_back_as_they_went_in_page_by_page(self, store: Store, backend: StorageBackend) -> None:
        totals = make_totals(make_calls(600, seed=30, start=MIDNIGHT - 9 * DAY, days=9))
        for start in range(0, len(totals), 500):
            await backend.write_totals(totals[start : start + 500][::-1], None)
        await backend.write_totals([], MIDNIGHT)
        await assert_totals(backend, totals)
        assert {page.watermark for page in await read_all(backend)} == {MIDNIGHT}

    @needs("copy", "write_totals")
    async def test_written_totals_answer_like_the_calls_that_they_sum(
        self, store: Store, backend: StorageBackend
    ) -> None:
        calls = make_calls(100, seed=31)
        purged = [call for call in calls if call.called_at < MIDNIGHT]
        await backend.write_totals(make_totals(purged), MIDNIGHT)
        await backend.record_calls([call for call in calls if call.called_at >= MIDNIGHT])
        for edges in EDGES[:4]:
            for filters, group_by in (*(({}, group_by) for group_by in GROUPINGS), *((f, ()) for f in FILTERS)):
                await assert_exact_or_refused(backend, calls, UsageQuery(filters, group_by, edges))

    @needs("copy", "write_totals")
    async def test_writing_replaces_and_never_adds(self, store: Store, backend: StorageBackend) -> None:
        first, second = make_call(0, called_at=MIDNIGHT - DAY), make_call(1, called_at=MIDNIGHT - DAY, prompt_tokens=1)
        for _ in range(2):
            await backend.write_totals(make_totals([first, second]), MIDNIGHT)
        await assert_totals(backend, make_totals([first, second]))
        await backend.write_totals(make_totals([second]), MIDNIGHT)
        await assert_totals(backend, make_totals([second]))
        assert await assert_exact_or_refused(backend, [second], UsageQuery(group_by=("id_at_origin",)))

    @needs("copy", "write_totals")
    async def test_the_watermark_moves_forward_only(self, store: Store, backend: StorageBackend) -> None:
        for watermark in (MIDNIGHT, MIDNIGHT - DAY, None):
            await backend.write_totals([], watermark)
            assert (await backend.read_totals()).watermark == MIDNIGHT
        late, in_time = make_call(0, called_at=MIDNIGHT - DAY), make_call(1, called_at=MIDNIGHT)
        result = await backend.record_calls([late, in_time])
        assert (result.inserted, result.expired) == (1, (late.id,))
        await backend.write_totals([], MIDNIGHT + DAY)
        assert (await backend.read_totals()).watermark == MIDNIGHT + DAY

    @needs("copy", "read_totals")
    async def test_purging_leaves_the_totals_of_both_grains(self, store: Store, backend: StorageBackend) -> None:
        if "purge" not in store.capabilities:
            await assert_totals(backend, [])
            return
        calls = make_calls(300, seed=32)
        await backend.record_calls(calls)
        for day in (MIDNIGHT - DAY, MIDNIGHT):
            await backend.purge_calls(day)
            purged = [call for call in calls if call.called_at < day]
            await assert_totals(backend, make_totals(purged))
            assert (await backend.read_totals()).watermark == day

    @needs("copy", "write_totals")
    async def test_written_totals_pass_64_bits(self, store: Store, backend: StorageBackend) -> None:
        [*cells] = make_totals([make_call(called_at=MIDNIGHT - DAY)])
        large = UsageRow(calls=2**63 - 1, by_status={"success": 2**63 - 1}, prompt_tokens=2**80, total_tokens=2**80)
        totals = [TotalsRow(cell.grain, cell.start, cell.key, large) for cell in cells]
        await backend.write_totals(totals, MIDNIGHT)
        await assert_totals(backend, totals)
        assert_same(await backend.summarize_usage(UsageQuery()), [large])
