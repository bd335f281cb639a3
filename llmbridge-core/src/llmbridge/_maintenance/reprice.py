"""Reprice: computes the cost of recorded calls again with the current prices."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal

from .._pricing.genai_prices import editions
from .._pricing.own_prices import OwnPrices
from .._pricing.price_book import PriceBook, list_used
from .._records.validation import check_amount
from .._shared.money import from_units, to_units
from .._store.session import StoreSession
from ..schemas import CallRecord, Money, Result
from ..storage.reference import NEVER_PRICED
from ..storage.types import CallQuery, CostChange

#: Sources of a cost that no price list determines.
_FIXED_SOURCES = ("caller", "provider")


class ModelReprice(Result):
    """Result of a reprice for one model. Costs are dollars, exact, over all calls examined."""

    provider: str
    model_name: str
    examined: int
    changed: int
    unpriced_before: int
    unpriced_after: int
    cost_before: Money
    cost_after: Money


class RepriceReport(Result):
    """Result of a reprice, or with `dry_run` what it would change.

    Of the calls `examined`, `changed` got another cost. Calls whose cost was `given` by the caller or the provider, and
    calls `without_price` (their model has no price now), were not changed. The two costs (dollars, exact) are those of
    all calls examined. `models` are ordered by provider and name.
    """

    dry_run: bool
    examined: int
    changed: int
    given: int
    without_price: int
    cost_before: Money
    cost_after: Money
    models: tuple[ModelReprice, ...]


async def reprice(
    session: StoreSession,
    prices: OwnPrices,
    calls: CallQuery,
    *,
    priced_as: Mapping[str, str],
    dry_run: bool,
    on_page: Callable[[RepriceReport], None] | None,
) -> RepriceReport:
    """Compute the cost of the calls of a query again, page by page. See `LLMDatabase.reprice`.

    :raises ValueError: the price data has no price list that `priced_as` names
    """
    await asyncio.to_thread(editions.refresh, at_once=True)
    for listed in priced_as.values():
        editions.current().check_list(listed)
    await prices.reload()
    repricing = Repricing(prices.book, priced_as, datetime.now(UTC))
    async for page in session.call_pages(calls):
        changes = repricing.changes(page.calls)
        if changes and not dry_run:
            await _reprice_calls(session, changes)
        if on_page is not None:
            on_page(repricing.report(dry_run=dry_run))
    return repricing.report(dry_run=dry_run)


async def _reprice_calls(session: StoreSession, changes: list[CostChange]) -> int:
    return await session.call(lambda backend: backend.reprice_calls(changes))


class Repricing:
    """Computes new costs of calls, and counts the changes."""

    def __init__(self, prices: PriceBook, priced_as: Mapping[str, str], at: datetime) -> None:
        self._prices = prices
        self._priced_as = priced_as
        self._at = at
        self._given = 0
        self._without_price = 0
        self._models: dict[tuple[str, str], _Tally] = {}

    def changes(self, calls: Iterable[CallRecord]) -> list[CostChange]:
        """Return the calls' new costs, without those that stay the same.

        :raises RecordRejectedError: a new cost is too large to be recorded
        """
        found = [self._change(call) for call in calls]
        return [change for change in found if change is not None]

    def report(self, *, dry_run: bool) -> RepriceReport:
        """Return the result so far."""
        models = [self._models[key].report(*key) for key in sorted(self._models)]
        return RepriceReport(
            dry_run=dry_run,
            examined=sum(model.examined for model in models),
            changed=sum(model.changed for model in models),
            given=self._given,
            without_price=self._without_price,
            cost_before=from_units(sum(tally.before for tally in self._models.values())),
            cost_after=from_units(sum(tally.after for tally in self._models.values())),
            models=tuple(models),
        )

    def _change(self, call: CallRecord) -> CostChange | None:
        change = self._decide(call)
        tally = self._models.setdefault((call.provider, call.model_name), _Tally())
        if change is None:
            tally.count(call, call.estimated_cost, call.cost_reason)
        else:
            tally.changed += 1
            tally.count(call, change.cost, change.cost_reason)
        return change

    def _decide(self, call: CallRecord) -> CostChange | None:
        """Return the call's new cost; None if it stays the same."""
        if call.cost_source in _FIXED_SOURCES:
            self._given += 1
            return None
        if call.cost_reason in NEVER_PRICED:
            return None
        listed = list_used(call.price_version)
        if listed is None and call.cost_source != "prices":
            listed = self._priced_as.get(call.provider)
        price = self._prices.price(call.provider, call.model_name, call, call.called_at, priced_as=listed)
        if price.reason == "unknown_model":
            self._without_price += 1
            return None
        if (price.cost, price.reason) == (call.estimated_cost, call.cost_reason):
            return None
        check_amount(f"the new cost of call {call.id} to {call.provider}:{call.model_name}", price.cost)
        return CostChange(call.id, price.cost, price.source, price.reason, price.version, self._at, price.factor)


@dataclass(slots=True)
class _Tally:
    examined: int = 0
    changed: int = 0
    before: int = 0
    after: int = 0
    unpriced_before: int = 0
    unpriced_after: int = 0

    def count(self, call: CallRecord, cost: Decimal | None, reason: str | None) -> None:
        self.examined += 1
        self.before += _units(call.estimated_cost)
        self.after += _units(cost)
        self.unpriced_before += _is_unpriced(call.estimated_cost, call.cost_reason)
        self.unpriced_after += _is_unpriced(cost, reason)

    def report(self, provider: str, model_name: str) -> ModelReprice:
        return ModelReprice(
            provider=provider,
            model_name=model_name,
            examined=self.examined,
            changed=self.changed,
            unpriced_before=self.unpriced_before,
            unpriced_after=self.unpriced_after,
            cost_before=from_units(self.before),
            cost_after=from_units(self.after),
        )


def _units(cost: Decimal | None) -> int:
    return 0 if cost is None else to_units(cost)


def _is_unpriced(cost: Decimal | None, reason: str | None) -> bool:
    return cost is None and reason not in NEVER_PRICED
