"""Tests of `reprice_calls` [reprice] and `erase_user` [erase]."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from itertools import product
from typing import Any
from uuid import UUID

from ..schemas import CallRecord
from ..storage.base import StorageBackend
from ..storage.types import CallQuery, CostChange, UsageQuery
from .comparison import assert_same
from .harness import Harness, Store, needs
from .listing import newest_first
from .purging import DAY, MIDNIGHT, assert_exact_or_refused
from .records import EPOCH, MAX_COST, make_call, make_calls, make_totals
from .usage import HOURS, assert_sums

AT = EPOCH + timedelta(days=40, microseconds=5)


def make_change(call: CallRecord, cost: Decimal | None, **changes: Any) -> CostChange:
    """Return a change to `cost` by own prices; None: the cost is unknown because a rate is missing."""
    usual: dict[str, Any] = {
        "cost_source": None if cost is None else "own_prices",
        "cost_reason": "missing_rate" if cost is None else None,
        "price_version": "2024-05",
        "at": AT,
        "price_factor": None if cost is None else Decimal("0.780000000001"),
    }
    return CostChange(call.id, cost, **{**usual, **changes})


def repriced(call: CallRecord, change: CostChange) -> CallRecord:
    """Return the call as it is stored after the change."""
    return call.model_copy(
        update={
            "estimated_cost": change.cost,
            "cost_source": change.cost_source,
            "cost_reason": change.cost_reason,
            "price_version": change.price_version,
            "price_factor": change.price_factor,
            "previous_cost": call.estimated_cost,
            "previous_cost_reason": call.cost_reason,
            "repriced_at": change.at,
        }
    )


def without_user(calls: Sequence[CallRecord], origin: str, id_at_origin: str) -> list[CallRecord]:
    """Return the calls as they are stored after that user was erased."""
    return [
        call.model_copy(update={"id_at_origin": None})
        if (call.origin, call.id_at_origin) == (origin, id_at_origin)
        else call
        for call in calls
    ]


def _dollars(cost: int | None) -> Decimal | None:
    return None if cost is None else Decimal(cost)


class RepriceAndEraseContract(Harness):
    """`reprice_calls` and `erase_user`."""

    @needs("reprice", "reprice_calls")
    async def test_repricing_keeps_the_previous_cost(self, store: Store, backend: StorageBackend) -> None:
        calls = [
            make_call(0),
            make_call(1, estimated_cost=None, cost_source=None, cost_reason="unknown_model"),
            make_call(2),
            make_call(3, estimated_cost=Decimal(0)),
        ]
        changes = [
            make_change(calls[0], MAX_COST),
            make_change(calls[1], Decimal("0.000000000001")),
            make_change(calls[2], None),
        ]
        await backend.record_calls(calls)
        assert await backend.reprice_calls(changes) == 3
        expected = [*map(repriced, calls, changes), calls[3]]
        assert_same((await backend.list_calls(CallQuery())).calls, newest_first(expected))

    @needs("reprice", "reprice_calls")
    async def test_sums_follow_a_new_cost(self, store: Store, backend: StorageBackend) -> None:
        calls = make_calls(120, seed=20)
        await backend.record_calls(calls)
        costs = (None, Decimal(0), Decimal("1.000000000001"), -MAX_COST, MAX_COST)
        changes = {call.id: make_change(call, costs[n % 5]) for n, call in enumerate(calls[::2])}
        assert await backend.reprice_calls(list(changes.values())) == 60
        expected = [repriced(call, changes[call.id]) if call.id in changes else call for call in calls]
        for group_by in ((), ("id_at_origin",), ("period", "status"), ("tag:team",)):
            await assert_sums(backend, expected, UsageQuery(group_by=group_by, edges=HOURS))

    @needs("reprice", "reprice_calls")
    async def test_unknown_ids_are_ignored_and_the_last_change_of_an_id_wins(
        self, store: Store, backend: StorageBackend
    ) -> None:
        call = make_call()
        await backend.record_calls([call])
        last = make_change(call, Decimal(2))
        changes = [make_change(call, Decimal(1)), make_change(make_call(id=UUID(int=9)), Decimal(5)), last]
        assert await backend.reprice_calls(changes) == 1
        assert await backend.reprice_calls(changes[1:2]) == 0
        assert await backend.reprice_calls([]) == 0
        assert_same((await backend.list_calls(CallQuery())).calls, [repriced(call, last)])

    @needs("reprice", "reprice_calls")
    async def test_repricing_again_keeps_the_latest_before(self, store: Store, backend: StorageBackend) -> None:
        call = make_call()
        changes = [make_change(call, None), make_change(call, Decimal(3), at=AT + timedelta(days=1))]
        await backend.record_calls([call])
        for change in changes:
            await backend.reprice_calls([change])
        expected = repriced(repriced(call, changes[0]), changes[1])
        assert (expected.previous_cost, expected.previous_cost_reason) == (None, "missing_rate")
        assert_same((await backend.list_calls(CallQuery())).calls, [expected])
        await assert_sums(backend, [expected], UsageQuery())

    @needs("reprice", "reprice_calls")
    async def test_a_change_to_the_stored_values_is_ignored(self, store: Store, backend: StorageBackend) -> None:
        calls = [
            make_call(0),
            make_call(1),
            make_call(2, estimated_cost=None, cost_reason="unknown_model"),
            make_call(3),
        ]
        changes = [make_change(call, cost) for call, cost in zip(calls, map(_dollars, (3, None, 5, 7)), strict=True)]
        await backend.record_calls(calls)
        assert await backend.reprice_calls(changes) == 4
        later = [replace(change, at=AT + timedelta(days=1)) for change in changes]
        assert await backend.reprice_calls(later) == 0
        expected = [*map(repriced, calls, changes)]
        assert_same((await backend.list_calls(CallQuery())).calls, newest_first(expected))
        others = [
            replace(later[0], price_version="2024-06"),
            replace(later[1], cost_reason="unknown_model"),
            replace(later[2], cost_source="prices"),
            replace(later[3], price_factor=None),
        ]
        assert await backend.reprice_calls(others) == 4
        expected = [*map(repriced, expected, others)]
        assert_same((await backend.list_calls(CallQuery())).calls, newest_first(expected))
        await assert_sums(backend, expected, UsageQuery())

    @needs("reprice", "reprice_calls")
    async def test_a_record_that_comes_again_does_not_undo_a_new_cost(
        self, store: Store, backend: StorageBackend
    ) -> None:
        call = make_call()
        change = make_change(call, Decimal(3))
        await backend.record_calls([call])
        await backend.reprice_calls([change])
        assert (await backend.record_calls([call])).duplicates == 1
        await assert_sums(backend, [repriced(call, change)], UsageQuery())

    @needs("erase", "erase_user")
    async def test_an_erased_user_is_none_and_the_sums_stay(self, store: Store, backend: StorageBackend) -> None:
        calls = make_calls(200, seed=21)
        await backend.record_calls(calls)
        erased = without_user(calls, "app", "user-1")
        assert erased != calls
        assert await backend.erase_user("app", "user-1") == sum(a is not b for a, b in zip(calls, erased, strict=True))
        assert_same((await backend.list_calls(CallQuery(limit=1000))).calls, newest_first(erased))
        for group_by in ((), ("id_at_origin",), ("origin", "id_at_origin", "period")):
            await assert_sums(backend, erased, UsageQuery(group_by=group_by, edges=HOURS))

    @needs("erase", "erase_user")
    async def test_erasing_again_or_someone_unknown_changes_nothing(
        self, store: Store, backend: StorageBackend
    ) -> None:
        calls = [make_call(0), make_call(1, id_at_origin="User-1"), make_call(2, origin="Kit")]
        await backend.record_calls(calls)
        assert await backend.erase_user("kit", "user-2") == 0
        assert await backend.erase_user("kit", "user-1") == 1
        assert await backend.erase_user("kit", "user-1") == 0
        assert_same((await backend.list_calls(CallQuery())).calls, without_user(calls, "kit", "user-1")[::-1])

    @needs("erase", "erase_user")
    async def test_a_user_is_erased_from_purged_totals_too(self, store: Store, backend: StorageBackend) -> None:
        mine = [
            make_call(number, called_at=at, origin="app", id_at_origin=user)
            for number, (at, user) in enumerate(product((MIDNIGHT - DAY, MIDNIGHT), ("user-1", None, "user-2")))
        ]
        calls = [*make_calls(100, seed=22), *mine]
        await backend.record_calls(calls)
        watermark = MIDNIGHT - 40 * DAY
        if "purge" in store.capabilities:
            watermark = MIDNIGHT
            await backend.purge_calls(watermark)
        erased = without_user(calls, "app", "user-1")
        theirs = [call for call in calls if (call.origin, call.id_at_origin) == ("app", "user-1")]
        totals = make_totals([call for call in theirs if call.called_at < watermark])
        changed = sum(call.called_at >= watermark for call in theirs) + sum(row.grain == "day" for row in totals)
        assert await backend.erase_user("app", "user-1") == changed
        for group_by in ((), ("id_at_origin",), ("origin", "id_at_origin", "status")):
            assert await assert_exact_or_refused(backend, erased, UsageQuery(group_by=group_by), watermark)
        both = UsageQuery({"origin": ("app",), "id_at_origin": (None, "user-1")})
        assert await assert_exact_or_refused(backend, erased, both, watermark)
        assert await backend.erase_user("app", "user-1") == 0
