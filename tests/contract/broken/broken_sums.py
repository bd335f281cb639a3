"""Backends that return wrong usage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal

from defects import CAPABILITIES, LAST, Altering, caught_by, contracts, sound

from llmbridge.schemas import CallRecord
from llmbridge.storage import (
    CostChange,
    PurgedDetailError,
    RecordResult,
    StorageBackend,
    TotalsPage,
    TotalsRow,
    UsageQuery,
    UsageRow,
)
from llmbridge.storage.memory import MemoryBackend
from llmbridge.testing.copying import CopyContract
from llmbridge.testing.purging import PurgeContract
from llmbridge.testing.reprice_and_erase import RepriceAndEraseContract
from llmbridge.testing.usage import UsageContract


@caught_by(
    UsageContract,
    "money_is_summed_to_the_last_digit",
    "sums_pass_64_bits",
    "negative_sums_pass_64_bits",
    "every_grouping_is_summed_exactly",
    "every_filter_is_summed_exactly",
    "any_grouping_sums_to_the_ungrouped_total",
    "kept_totals_agree_with_the_calls",
    "a_year_of_days_may_be_asked_for_at_once",
)
class FloatSums(MemoryBackend):
    """Costs are summed as floats."""

    async def summarize_usage(self, query: UsageQuery) -> list[UsageRow]:
        rows = await super().summarize_usage(query)
        return [replace(row, cost=Decimal(repr(float(row.cost)))) for row in rows]


@caught_by(
    UsageContract,
    "without_calls_there_is_one_row_of_zeros",
    "without_matching_calls_there_is_one_row_of_zeros",
    "calls_of_every_status_are_counted",
    "unpriced_is_not_free",
    "money_is_summed_to_the_last_digit",
    "sums_pass_64_bits",
    "negative_sums_pass_64_bits",
    "unbounded_edges_hold_calls_of_all_times",
    "every_grouping_is_summed_exactly",
    "every_filter_is_summed_exactly",
    "any_grouping_sums_to_the_ungrouped_total",
    "kept_totals_agree_with_the_calls",
    "a_year_of_days_may_be_asked_for_at_once",
    "the_first_and_the_last_instants_of_time_can_be_asked_for",
)
class FloatAnswers(MemoryBackend):
    """Sums are handed out as floats."""

    async def summarize_usage(self, query: UsageQuery) -> list[UsageRow]:
        return [replace(row, cost=float(row.cost)) for row in await super().summarize_usage(query)]


@caught_by(UsageContract, "none_in_a_filter_means_calls_without_one", "every_filter_is_summed_exactly")
class NoneFilterMatchesNothing(MemoryBackend):
    """None among the accepted values is compared like a value, as SQL does."""

    async def summarize_usage(self, query: UsageQuery) -> list[UsageRow]:
        filters = {name: tuple(v for v in values if v is not None) for name, values in query.filters.items()}
        return await super().summarize_usage(replace(query, filters=filters))


@caught_by(
    UsageContract,
    "grouped_there_is_no_row_without_calls",
    "sums_pass_64_bits",
    "a_call_on_an_edge_belongs_to_the_interval_that_begins_there",
    "the_first_and_the_last_instants_of_time_can_be_asked_for",
    "every_grouping_is_summed_exactly",
)
class EdgesShifted(MemoryBackend):
    """A call on an edge is counted to the interval that ends there."""

    async def summarize_usage(self, query: UsageQuery) -> list[UsageRow]:
        if query.edges[-1] == LAST:
            return await super().summarize_usage(query)
        return await super().summarize_usage(
            replace(query, edges=tuple(edge + timedelta(microseconds=1) for edge in query.edges))
        )


@caught_by(UsageContract, "groups_are_ordered_by_code_point_none_first", "every_grouping_is_summed_exactly")
class OrderByUTF16(MemoryBackend):
    """Groups are ordered by UTF-16 units."""

    async def summarize_usage(self, query: UsageQuery) -> list[UsageRow]:
        rows = await super().summarize_usage(query)
        if query.group_by != ("id_at_origin",):
            return rows
        return sorted(rows, key=lambda row: (row.key["id_at_origin"] or "").encode("utf-16-be"))


@caught_by(UsageContract, "groups_are_ordered_by_code_point_none_first", "every_grouping_is_summed_exactly")
class NoneLast(MemoryBackend):
    """Groups without a value come last."""

    async def summarize_usage(self, query: UsageQuery) -> list[UsageRow]:
        rows = await super().summarize_usage(query)
        if len(query.group_by) != 1 or query.group_by == ("period",):
            return rows
        return sorted(rows, key=lambda row: next(iter(row.key.values())) is None)


@caught_by(
    UsageContract,
    "groups_are_ordered_by_code_point_none_first",
    "every_grouping_is_summed_exactly",
    "every_filter_is_summed_exactly",
)
class TrimmedText(Altering):
    """Blanks at the end of a user's name are lost."""

    def alter(self, call: CallRecord) -> CallRecord:
        user = call.id_at_origin
        return call.model_copy(update={"id_at_origin": user and user.rstrip(" ")})


@caught_by(
    UsageContract,
    "unpriced_is_not_free",
    "every_grouping_is_summed_exactly",
    "every_filter_is_summed_exactly",
    "kept_totals_agree_with_the_calls",
    "a_year_of_days_may_be_asked_for_at_once",
)
class UnpricedIsFree(MemoryBackend):
    """Nobody is told that a call has no price."""

    async def summarize_usage(self, query: UsageQuery) -> list[UsageRow]:
        return [replace(row, unpriced_calls=0) for row in await super().summarize_usage(query)]


@caught_by(
    UsageContract,
    "requests_are_first_attempts",
    "every_grouping_is_summed_exactly",
    "every_filter_is_summed_exactly",
    "kept_totals_agree_with_the_calls",
    "a_year_of_days_may_be_asked_for_at_once",
)
class RetriesAreRequests(MemoryBackend):
    """Every attempt counts as a request."""

    async def summarize_usage(self, query: UsageQuery) -> list[UsageRow]:
        return [replace(row, requests=row.calls) for row in await super().summarize_usage(query)]


@caught_by(
    UsageContract,
    "sums_pass_64_bits",
    "every_grouping_is_summed_exactly",
    "every_filter_is_summed_exactly",
    "kept_totals_agree_with_the_calls",
)
class WrappedSums(MemoryBackend):
    """Sums of tokens are numbers of 64 bits."""

    async def summarize_usage(self, query: UsageQuery) -> list[UsageRow]:
        rows = await super().summarize_usage(query)
        return [replace(row, prompt_tokens=(row.prompt_tokens + 2**63) % 2**64 - 2**63) for row in rows]


@caught_by(
    UsageContract,
    "without_calls_there_is_one_row_of_zeros",
    "without_matching_calls_there_is_one_row_of_zeros",
    "the_first_and_the_last_instants_of_time_can_be_asked_for",
    "none_in_a_filter_means_calls_without_one",
    "every_filter_is_summed_exactly",
)
class NoZeroRow(MemoryBackend):
    """Without calls there is no answer."""

    async def summarize_usage(self, query: UsageQuery) -> list[UsageRow]:
        return [row for row in await super().summarize_usage(query) if row.calls]


@caught_by(
    PurgeContract,
    "sums_outlive_their_calls",
    "a_query_is_answered_exactly_or_refused",
    "only_matching_purged_totals_prevent_an_answer",
    "calls_that_come_too_late_are_returned_as_expired",
    "a_watermark_ahead_of_the_clock_is_reported_and_a_repair_lowers_it",
    "purging_day_after_day_adds_up",
    "purged_sums_pass_64_bits",
    "a_cancelled_purge_happens_wholly_or_not_at_all",
    "purging_while_others_record_loses_nothing",
)
class PurgeForgets(MemoryBackend):
    """With the calls go their sums."""

    async def purge_calls(self, before: datetime) -> int:
        deleted = await super().purge_calls(before)
        self._open.totals.clear()
        return deleted


@caught_by(PurgeContract, "a_query_is_answered_exactly_or_refused", "only_matching_purged_totals_prevent_an_answer")
class PurgeApproximates(MemoryBackend):
    """What the totals do not tell is left out of the answer."""

    async def summarize_usage(self, query: UsageQuery) -> list[UsageRow]:
        try:
            return await super().summarize_usage(query)
        except PurgedDetailError:
            totals, self._open.totals = self._open.totals, {}
            try:
                return await super().summarize_usage(query)
            finally:
                self._open.totals = totals


@caught_by(PurgeContract, "the_watermark_never_moves_back")
class WatermarkMovesBack(MemoryBackend):
    """Purging less opens days again that were closed."""

    async def purge_calls(self, before: datetime) -> int:
        deleted = await super().purge_calls(before)
        self._open.watermark = before.replace(hour=0, minute=0, second=0, microsecond=0)
        return deleted


@caught_by(
    PurgeContract,
    "a_watermark_ahead_of_the_clock_is_reported_and_a_repair_lowers_it",
    "a_repair_forgets_a_watermark_before_which_there_was_nothing",
)
class FutureWatermarkStays(MemoryBackend):
    """What a wrong clock has purged stays closed for new calls."""

    check_totals = StorageBackend.check_totals


@caught_by(PurgeContract, "a_clock_of_the_store_tells_the_time")
class ClockWithoutZone(MemoryBackend):
    """The time of the store is that of some zone."""

    async def clock(self) -> datetime:
        return datetime(2024, 3, 1)


@caught_by(
    PurgeContract,
    "calls_that_come_too_late_are_returned_as_expired",
    "the_watermark_never_moves_back",
    "a_watermark_ahead_of_the_clock_is_reported_and_a_repair_lowers_it",
)
class LateCallsAreKept(MemoryBackend):
    """Calls of purged days are stored beside their totals."""

    async def record_calls(self, calls: Sequence[CallRecord]) -> RecordResult:
        watermark, self._open.watermark = self._open.watermark, None
        try:
            return await super().record_calls(calls)
        finally:
            self._open.watermark = watermark


@caught_by(
    RepriceAndEraseContract,
    "a_change_to_the_stored_values_is_ignored",
    "repricing_keeps_the_previous_cost",
    "unknown_ids_are_ignored_and_the_last_change_of_an_id_wins",
)
class RepriceForgets(MemoryBackend):
    """The cost that stood before is overwritten."""

    async def reprice_calls(self, changes: Sequence[CostChange]) -> int:
        changed = await super().reprice_calls(changes)
        for change in changes:
            if call := self._open.calls.get(change.id):
                self._open.calls[change.id] = call.model_copy(update={"previous_cost": None})
        return changed


@caught_by(RepriceAndEraseContract, "a_change_to_the_stored_values_is_ignored")
class RepriceTakesTheNewForTheOld(MemoryBackend):
    """A change that was made already is made again, and the former cost is lost."""

    async def reprice_calls(self, changes: Sequence[CostChange]) -> int:
        for change in changes:
            if call := self._open.calls.get(change.id):
                self._open.calls[change.id] = call.model_copy(update={"price_version": None})
        return await super().reprice_calls(changes)


@caught_by(RepriceAndEraseContract, "a_change_to_the_stored_values_is_ignored")
class RepriceOverlooksTheFactor(MemoryBackend):
    """A change of nothing but the factor is not made."""

    async def reprice_calls(self, changes: Sequence[CostChange]) -> int:
        calls = self._open.calls
        kept = [
            c for c in changes if c.id not in calls or calls[c.id].repriced_at is None or c.price_factor is not None
        ]
        return await super().reprice_calls(kept)


@caught_by(RepriceAndEraseContract, "a_user_is_erased_from_purged_totals_too")
class EraseLeavesTotals(MemoryBackend):
    """Totals of purged days still name the user."""

    async def erase_user(self, origin: str, id_at_origin: str) -> int:
        totals = dict(self._open.totals)
        changed = await super().erase_user(origin, id_at_origin)
        self._open.totals = totals
        return changed


@caught_by(CopyContract, "writing_replaces_and_never_adds")
class WriteTotalsAdds(MemoryBackend):
    """Writing totals twice counts them twice."""

    async def write_totals(self, rows: Sequence[TotalsRow], watermark: datetime | None) -> None:
        before = {(r.grain, r.start, *r.key.values()): r.sums for r in self._open.totals.values()}
        added = [
            replace(row, sums=replace(row.sums, calls=row.sums.calls + before[key].calls))
            if (key := (row.grain, row.start, *row.key.values())) in before
            else row
            for row in rows
        ]
        await super().write_totals(added, watermark)


@caught_by(CopyContract, "totals_come_back_as_they_went_in_page_by_page")
class TotalsPagesOverlap(MemoryBackend):
    """A page of totals begins with the last row of the page before."""

    async def read_totals(self, cursor: str | None = None) -> TotalsPage:
        return await super().read_totals(str(int(cursor) - 1) if cursor else None)


@caught_by(
    PurgeContract,
    "purging_deletes_the_calls_before_a_day",
    "the_time_is_rounded_down_to_a_utc_day",
    "sums_outlive_their_calls",
    "a_query_is_answered_exactly_or_refused",
    "only_matching_purged_totals_prevent_an_answer",
    "calls_that_come_too_late_are_returned_as_expired",
    "the_watermark_never_moves_back",
    "a_watermark_ahead_of_the_clock_is_reported_and_a_repair_lowers_it",
    "a_repair_forgets_a_watermark_before_which_there_was_nothing",
    "purging_day_after_day_adds_up",
    "purged_sums_pass_64_bits",
    "a_cancelled_purge_happens_wholly_or_not_at_all",
    "purging_while_others_record_loses_nothing",
)
class UndeclaredPurge(MemoryBackend):
    """It purges, and its plugin does not say so."""

    declared = CAPABILITIES - {"purge"}


@sound
class Bare(MemoryBackend):
    """Sound, with no more than is required."""

    declared: frozenset[str] = frozenset()

    purge_calls = StorageBackend.purge_calls
    reprice_calls = StorageBackend.reprice_calls
    read_totals = StorageBackend.read_totals
    write_totals = StorageBackend.write_totals
    erase_user = StorageBackend.erase_user


globals().update(contracts(__name__))
