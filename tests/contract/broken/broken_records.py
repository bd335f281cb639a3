"""Backends that store other calls and models than they got, or return others than they should."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from defects import LAST, Altering, caught_by, contracts

from llmbridge.schemas import CallRecord, LLMModel
from llmbridge.storage import (
    MAX_BATCH,
    CallPage,
    CallQuery,
    ModelPrice,
    RecordRejectedError,
    RecordResult,
    UpsertResult,
    UsageQuery,
    UsageRow,
)
from llmbridge.storage.memory import MemoryBackend
from llmbridge.testing.calls import CallContract
from llmbridge.testing.listing import ListingContract
from llmbridge.testing.models import ModelContract


@caught_by(CallContract, "every_field_comes_back_as_it_went_in", "extreme_values_come_back_as_they_went_in")
class FloatMoney(Altering):
    """A cost passes through a float on its way in."""

    def alter(self, call: CallRecord) -> CallRecord:
        cost = call.estimated_cost
        return call if cost is None else call.model_copy(update={"estimated_cost": Decimal(repr(float(cost)))})


@caught_by(
    CallContract,
    "every_field_comes_back_as_it_went_in",
    "every_optional_field_may_be_none",
    "extreme_values_come_back_as_they_went_in",
    "calls_of_every_status_are_recorded",
    "the_first_of_an_id_stays_within_a_batch",
    "the_first_of_an_id_stays_across_batches",
    "a_batch_with_a_value_that_cannot_be_stored_is_stored_wholly_or_not_at_all",
)
class NaiveTime(MemoryBackend):
    """Times come back without their zone."""

    async def list_calls(self, query: CallQuery) -> CallPage:
        page = await super().list_calls(query)
        naive = [call.model_copy(update={"called_at": call.called_at.replace(tzinfo=None)}) for call in page.calls]
        return CallPage(naive, page.next)


@caught_by(
    CallContract,
    "every_field_comes_back_as_it_went_in",
    "every_optional_field_may_be_none",
    "extreme_values_come_back_as_they_went_in",
)
class MillisecondTime(Altering):
    """Microseconds are cut off."""

    def alter(self, call: CallRecord) -> CallRecord:
        at = call.called_at
        return call.model_copy(update={"called_at": at.replace(microsecond=at.microsecond // 1000 * 1000)})


@caught_by(CallContract, "extreme_values_come_back_as_they_went_in", "calls_of_every_status_are_recorded")
class LostErrors(MemoryBackend):
    """Calls that failed are not kept."""

    async def record_calls(self, calls: Sequence[CallRecord]) -> RecordResult:
        return await super().record_calls([call for call in calls if call.status != "error"])


@caught_by(
    ListingContract,
    "calls_are_listed_newest_first",
    "calls_of_one_instant_are_ordered_by_the_number_of_their_id",
    "pages_hold_every_call_once",
    "calls_recorded_meanwhile_neither_repeat_nor_hide_one",
    "filters_accept_their_values_and_none_means_calls_without_one",
)
class UnstableOrder(MemoryBackend):
    """Calls of one instant come in the order of their arrival."""

    async def list_calls(self, query: CallQuery) -> CallPage:
        page = await super().list_calls(query)
        arrival = list(self._open.calls)
        return CallPage(sorted(page.calls, key=lambda c: (c.called_at, -arrival.index(c.id)), reverse=True), page.next)


@caught_by(ListingContract, "calls_of_one_instant_are_ordered_by_the_number_of_their_id")
class SignedIds(MemoryBackend):
    """Ids compare as signed numbers."""

    async def list_calls(self, query: CallQuery) -> CallPage:
        page = await super().list_calls(query)
        half = 2**127
        key = lambda call: (call.called_at, (call.id.int + half) % (2 * half))  # noqa: E731
        return CallPage(sorted(page.calls, key=key, reverse=True), page.next)


@caught_by(CallContract, "duplicates_touch_no_sum")
class CountedDuplicates(MemoryBackend):
    """A record that comes again is not stored again, but summed again."""

    def __init__(self) -> None:
        super().__init__()
        self._sums = MemoryBackend()
        self._count = 0

    async def record_calls(self, calls: Sequence[CallRecord]) -> RecordResult:
        result = await super().record_calls(calls)
        again = []
        for call in calls:
            self._count += 1
            again.append(call.model_copy(update={"id": UUID(int=self._count)}))
        await self._sums.connect()
        await self._sums.record_calls(again if result.duplicates else [])
        return result

    async def summarize_usage(self, query: UsageQuery) -> list[UsageRow]:
        rows = await super().summarize_usage(query)
        if query == UsageQuery() and self._sums._store is not None:
            [extra] = await self._sums.summarize_usage(query)
            return [replace(rows[0], calls=rows[0].calls + extra.calls)]
        return rows


@caught_by(CallContract, "the_first_of_an_id_stays_within_a_batch", "the_first_of_an_id_stays_across_batches")
class LastOfAnIdStays(MemoryBackend):
    """A record that comes again replaces the first."""

    async def record_calls(self, calls: Sequence[CallRecord]) -> RecordResult:
        result = await super().record_calls(calls)
        self._open.calls.update({call.id: call for call in calls if call.id not in result.expired})
        return result


@caught_by(
    ListingContract, "filters_accept_their_values_and_none_means_calls_without_one", "filtered_calls_are_paged_too"
)
class NoneFilterIsNoFilter(MemoryBackend):
    """A filter that accepts None accepts everything."""

    async def list_calls(self, query: CallQuery) -> CallPage:
        return await super().list_calls(replace(query, filters=_without_none(query.filters)))


@caught_by(ListingContract, "until_is_exclusive")
class UntilInclusive(MemoryBackend):
    """A listing holds the calls at `until`."""

    async def list_calls(self, query: CallQuery) -> CallPage:
        until = query.until and query.until + timedelta(microseconds=1) if query.until != LAST else None
        return await super().list_calls(replace(query, until=until))


@caught_by(ListingContract, "since_is_inclusive")
class SinceExclusive(MemoryBackend):
    """A listing lacks the calls at `since`."""

    async def list_calls(self, query: CallQuery) -> CallPage:
        return await super().list_calls(replace(query, since=query.since and query.since + timedelta(microseconds=1)))


@caught_by(ListingContract, "calls_recorded_meanwhile_neither_repeat_nor_hide_one")
class OffsetPaging(MemoryBackend):
    """A page begins after as many rows as were shown before."""

    def __init__(self) -> None:
        super().__init__()
        self._shown: dict[Any, int] = {}

    async def list_calls(self, query: CallQuery) -> CallPage:
        whole = await super().list_calls(replace(query, after=None, limit=1000))
        start = self._shown.get(query.after, 0)
        page = whole.calls[start : start + query.limit]
        if start + len(page) >= len(whole.calls):
            return CallPage(page, None)
        cursor = (page[-1].called_at, page[-1].id)
        self._shown[cursor] = start + len(page)
        return CallPage(page, cursor)


@caught_by(
    ListingContract, "the_last_page_says_so_even_when_it_is_full", "as_many_ids_as_a_page_holds_may_be_asked_for"
)
class OneEmptyPageMore(MemoryBackend):
    """A full page always promises another."""

    async def list_calls(self, query: CallQuery) -> CallPage:
        page = await super().list_calls(query)
        full = len(page.calls) == query.limit
        return CallPage(page.calls, (page.calls[-1].called_at, page.calls[-1].id) if full else None)


@caught_by(ModelContract, "upsert_keeps_created_at_as_first_stored")
class ReplacedCreatedAt(MemoryBackend):
    """An upsert replaces everything."""

    async def upsert_models(self, models: Sequence[LLMModel]) -> UpsertResult:
        result = await super().upsert_models(models)
        self._open.models.update({(model.provider, model.model_name): model for model in models})
        return result


@caught_by(ModelContract, "models_are_ordered_by_code_point", "models_are_found_by_their_exact_names")
class OrderWithoutCase(MemoryBackend):
    """Models are ordered without regard to case."""

    async def list_models(self, *args: Any, **options: Any) -> list[LLMModel]:
        models = await super().list_models(*args, **options)
        return sorted(models, key=lambda model: (model.provider.lower(), model.model_name.lower()))


@caught_by(CallContract, "extreme_values_come_back_as_they_went_in")
class NoToolsAreNone(Altering):
    """An empty list of tools becomes None."""

    def alter(self, call: CallRecord) -> CallRecord:
        return call.model_copy(update={"tools_used": call.tools_used or None})


@caught_by(CallContract, "extreme_values_come_back_as_they_went_in")
class NoDetailsAreNone(Altering):
    """No counts and no terms become None."""

    def alter(self, call: CallRecord) -> CallRecord:
        return call.model_copy(
            update={"usage_details": call.usage_details or None, "price_context": call.price_context or None}
        )


@caught_by(CallContract, "every_field_comes_back_as_it_went_in", "extreme_values_come_back_as_they_went_in")
class CoarseFactor(Altering):
    """A factor is stored to two decimal places."""

    def alter(self, call: CallRecord) -> CallRecord:
        factor = call.price_factor
        return call.model_copy(update={"price_factor": None if factor is None else round(factor, 2)})


@caught_by(ModelContract, "retiring_touches_and_counts_the_active_among_its_keys")
class RetireCountsAll(MemoryBackend):
    """Models that were retired before are retired again."""

    async def retire_models(self, keys: Sequence[tuple[str, str]], at: datetime) -> int:
        await super().retire_models(keys, at)
        return sum(key in self._open.models for key in set(keys))


@caught_by(ModelContract, "the_last_price_of_a_key_wins", "prices_are_kept_per_context")
class FirstOfAPriceStays(MemoryBackend):
    """A price that is set again keeps its old rates."""

    async def set_prices(self, prices: Sequence[ModelPrice]) -> None:
        for price in prices:
            self._open.prices.setdefault(price.key, price)


@caught_by(ModelContract, "prices_are_kept_per_context")
class OnePriceForAllContexts(MemoryBackend):
    """Contexts do not tell prices apart."""

    async def set_prices(self, prices: Sequence[ModelPrice]) -> None:
        for price in prices:
            for key in [key for key in self._open.prices if key[:2] == price.key[:2] and key[3] == price.key[3]]:
                del self._open.prices[key]
            await super().set_prices([price])


@caught_by(ModelContract, "rates_of_units_contexts_and_factors_come_back_as_they_went_in")
class FactorOfZeroIsNone(MemoryBackend):
    """A factor of 0 is taken for none."""

    async def set_prices(self, prices: Sequence[ModelPrice]) -> None:
        await super().set_prices([replace(price, factor=price.factor or None) for price in prices])


@caught_by(CallContract, "the_largest_batch_is_taken_and_a_larger_one_refused")
class AnyBatchSize(MemoryBackend):
    """A batch may be of any size."""

    async def record_calls(self, calls: Sequence[CallRecord]) -> RecordResult:
        parts = [await super(AnyBatchSize, self).record_calls(calls[n : n + MAX_BATCH]) for n in _starts(calls)]
        expired = tuple(id_ for part in parts for id_ in part.expired)
        return RecordResult(sum(p.inserted for p in parts), sum(p.duplicates for p in parts), expired)


@caught_by(CallContract, "a_batch_with_a_value_that_cannot_be_stored_is_stored_wholly_or_not_at_all")
class LeakingDriver(MemoryBackend):
    """The exception of the driver comes out as it is."""

    async def record_calls(self, calls: Sequence[CallRecord]) -> RecordResult:
        for call in calls:
            (call.prompt_tokens or 0).to_bytes(8, signed=True)
        return await super().record_calls(calls)


@caught_by(CallContract, "a_batch_with_a_value_that_cannot_be_stored_is_stored_wholly_or_not_at_all")
class LeakingCodec(MemoryBackend):
    """Text that cannot be encoded is refused by the codec, with a ValueError of its own."""

    async def record_calls(self, calls: Sequence[CallRecord]) -> RecordResult:
        for call in calls:
            (call.error_message or "").encode()
        return await super().record_calls(calls)


@caught_by(CallContract, "a_batch_with_a_value_that_cannot_be_stored_is_stored_wholly_or_not_at_all")
class HalfABatch(MemoryBackend):
    """The records before a rejected one are stored."""

    async def record_calls(self, calls: Sequence[CallRecord]) -> RecordResult:
        for number, call in enumerate(calls):
            if (call.prompt_tokens or 0) >= 2**63:
                await super().record_calls(calls[:number])
                raise RecordRejectedError("a number of tokens is too large", ids=(call.id,))
        return await super().record_calls(calls)


def _without_none(filters: Any) -> dict[str, tuple[str, ...]]:
    return {name: values for name, values in filters.items() if None not in values}


def _starts(calls: Sequence[CallRecord]) -> range:
    return range(0, len(calls), MAX_BATCH)


globals().update(contracts(__name__))
