"""Tests of `list_calls`: order, pages and filters."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from ..schemas import CallRecord
from ..storage.base import StorageBackend
from ..storage.reference import field_value
from ..storage.types import LATEST, MAX_PAGE, CallQuery, Filters
from .comparison import assert_same
from .harness import Harness
from .records import EPOCH, TEXTS, make_call, make_calls

SECOND = timedelta(seconds=1)
TICK = timedelta(microseconds=1)

#: Filters: one field each, several values, None with values, values that no call has, and combinations.
FILTERS: tuple[Filters, ...] = (
    {},
    {"origin": ("app",)},
    {"origin": ("app", "\U0001f600 smile", "nobody")},
    {"id_at_origin": (None,)},
    {"id_at_origin": ("user-1",)},
    {"id_at_origin": (None, "user-1", "alpha ")},
    *({"id_at_origin": (text,)} for text in TEXTS),
    {"provider": ("openai",)},
    {"provider": ("openai", "anthropic", "openai")},
    {"model_name": ("claude-sonnet-4",)},
    {"response_model": ("gpt-4o",)},
    {"response_model": (None, "Claude-Sonnet-4", "nobody")},
    {"response_model": (None,), "model_name": ("gpt-4o", "gpt-4o-mini")},
    {"status": ("success",)},
    {"status": ("error", "cancelled")},
    {"status": ()},
    {"provider": ("nobody",)},
    {"provider": (None,)},
    {"tag:team": ("search",)},
    {"tag:team": (None,)},
    {"tag:team": (None, "", "7")},
    {"tag:team": ("7",)},
    {"tag:team": ("1.5", "true", "1e-07")},
    {"tag:team": ("True", "null", "None", "1")},
    {"tag:cost.center": ("a",)},
    {'tag:say "hi"': ("2",)},
    {"tag:absent": (None,)},
    {
        "origin": ("app",),
        "id_at_origin": (None, "user-1"),
        "status": ("success", "error"),
        "tag:team": ("search", None),
    },
)


def newest_first(calls: Sequence[CallRecord]) -> list[CallRecord]:
    """Return the calls in the order of `list_calls`."""
    return sorted(calls, key=lambda call: (call.called_at, call.id), reverse=True)


def matching(calls: Sequence[CallRecord], filters: Filters) -> list[CallRecord]:
    """Return the calls that match the filters."""
    return [call for call in calls if all(field_value(call, name) in values for name, values in filters.items())]


async def record(backend: StorageBackend, calls: Sequence[CallRecord], size: int = 200) -> None:
    """Record calls in batches of `size`."""
    for start in range(0, len(calls), size):
        await backend.record_calls(calls[start : start + size])


async def pages(backend: StorageBackend, **query: Any) -> list[list[CallRecord]]:
    """Return all pages of a query for calls."""
    found: list[list[CallRecord]] = []
    after = None
    while True:
        page = await backend.list_calls(CallQuery(after=after, **query))
        found.append(page.calls)
        if page.next is None:
            return found
        assert page.calls, "an empty page must not have a cursor to a next page"
        assert after is None or page.next < after, "the cursor must be below that of the previous page"
        after = page.next


class ListingContract(Harness):
    """`list_calls`."""

    async def test_an_empty_store_lists_one_empty_last_page(self, backend: StorageBackend) -> None:
        page = await backend.list_calls(CallQuery())
        assert (page.calls, page.next) == ([], None)

    async def test_calls_are_listed_newest_first(self, backend: StorageBackend) -> None:
        calls = make_calls(150, seed=1)
        await record(backend, calls)
        assert_same((await backend.list_calls(CallQuery(limit=MAX_PAGE))).calls, newest_first(calls))

    async def test_calls_of_one_instant_are_ordered_by_the_number_of_their_id(self, backend: StorageBackend) -> None:
        numbers = (0, 1, 255, 256, 2**31, 2**63, 2**64, 2**64 + 2**63, 2**127 - 1, 2**127, 2**128 - 1)
        ids = [UUID(int=number) for number in numbers]
        await backend.record_calls([make_call(id=id_) for id_ in (*ids[1::2], *ids[::2])])
        assert [call.id for call in (await backend.list_calls(CallQuery())).calls] == ids[::-1]

    async def test_pages_hold_every_call_once(self, backend: StorageBackend) -> None:
        calls = [make_call(number, called_at=EPOCH + SECOND * (number // 7)) for number in range(40)]
        await backend.record_calls(calls)
        for limit in (1, 3, 7, 39):
            found = await pages(backend, limit=limit)
            assert [len(page) for page in found[:-1]] == [limit] * (len(found) - 1)
            assert_same([call for page in found for call in page], newest_first(calls))

    async def test_the_last_page_says_so_even_when_it_is_full(self, backend: StorageBackend) -> None:
        calls = [make_call(number) for number in range(10)]
        await backend.record_calls(calls)
        assert [len(page) for page in await pages(backend, limit=5)] == [5, 5]
        assert [len(page) for page in await pages(backend, limit=10)] == [10]
        assert [len(page) for page in await pages(backend, limit=11)] == [10]

    async def test_the_cursor_of_a_page_is_its_last_call(self, backend: StorageBackend) -> None:
        await backend.record_calls([make_call(number) for number in range(3)])
        page = await backend.list_calls(CallQuery(limit=2))
        assert page.next == (page.calls[-1].called_at, page.calls[-1].id)

    async def test_calls_recorded_meanwhile_neither_repeat_nor_hide_one(self, backend: StorageBackend) -> None:
        calls = [make_call(number, called_at=EPOCH + SECOND * (number // 4)) for number in range(24)]
        await backend.record_calls(calls)
        found: list[CallRecord] = []
        after = None
        for turn in range(100):
            page = await backend.list_calls(CallQuery(limit=5, after=after))
            found += page.calls
            if page.next is None:
                break
            at, after = page.next[0], page.next
            await backend.record_calls(
                [
                    make_call(1000 + 10 * turn + nth, called_at=when, origin="meanwhile")
                    for nth, when in enumerate((at + SECOND, EPOCH + 60 * SECOND, at + TICK, at, EPOCH - SECOND))
                ]
            )
        assert_same([call for call in found if call.origin != "meanwhile"], newest_first(calls))
        assert len({call.id for call in found}) == len(found)

    async def test_filters_accept_their_values_and_none_means_calls_without_one(self, backend: StorageBackend) -> None:
        calls = make_calls(250, seed=2)
        await record(backend, calls)
        for filters in FILTERS:
            expected = newest_first(matching(calls, filters))
            found = (await backend.list_calls(CallQuery(filters, limit=MAX_PAGE))).calls
            assert [call.id for call in found] == [call.id for call in expected], filters

    async def test_filtered_calls_are_paged_too(self, backend: StorageBackend) -> None:
        calls = make_calls(200, seed=3)
        await record(backend, calls)
        filters: Filters = {"id_at_origin": (None, "user-1"), "status": ("success", "timeout")}
        found = await pages(backend, filters=filters, limit=4, since=EPOCH + timedelta(hours=5))
        expected = [call for call in matching(calls, filters) if call.called_at >= EPOCH + timedelta(hours=5)]
        assert [call.id for page in found for call in page] == [call.id for call in newest_first(expected)]

    async def test_since_is_inclusive(self, backend: StorageBackend) -> None:
        await _record_around_epoch(backend)
        assert await _listed(backend, since=EPOCH) == [EPOCH + TICK, EPOCH]
        assert await _listed(backend, since=EPOCH + TICK) == [EPOCH + TICK]
        assert await _listed(backend, since=EPOCH + 2 * TICK) == []

    async def test_until_is_exclusive(self, backend: StorageBackend) -> None:
        await _record_around_epoch(backend)
        assert await _listed(backend, until=EPOCH) == [EPOCH - TICK]
        assert await _listed(backend, until=EPOCH + TICK) == [EPOCH, EPOCH - TICK]
        assert await _listed(backend, until=LATEST) == [EPOCH + TICK, EPOCH, EPOCH - TICK]

    async def test_calls_are_found_by_their_ids(self, backend: StorageBackend) -> None:
        calls = [make_call(number) for number in range(6)]
        await backend.record_calls(calls)
        wanted = (calls[4].id, UUID(int=5), calls[1].id, calls[4].id)
        assert_same((await backend.list_calls(CallQuery(ids=wanted))).calls, [calls[4], calls[1]])
        assert (await backend.list_calls(CallQuery(ids=()))).calls == []
        both = CallQuery({"origin": ("other",)}, ids=wanted)
        assert (await backend.list_calls(both)).calls == []

    async def test_as_many_ids_as_a_page_holds_may_be_asked_for(self, backend: StorageBackend) -> None:
        calls = [make_call(number) for number in range(MAX_PAGE)]
        await backend.record_calls(calls)
        page = await backend.list_calls(CallQuery(ids=tuple(call.id for call in calls), limit=MAX_PAGE))
        assert (len(page.calls), page.next) == (MAX_PAGE, None)


async def _record_around_epoch(backend: StorageBackend) -> None:
    times = (EPOCH - TICK, EPOCH, EPOCH + TICK)
    await backend.record_calls([make_call(number, called_at=at) for number, at in enumerate(times)])


async def _listed(backend: StorageBackend, **query: Any) -> list[datetime]:
    return [call.called_at for call in (await backend.list_calls(CallQuery(**query))).calls]
