"""Model registry: the models that a database knows, and the own prices that their rates set."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal

from .._pricing.own_prices import OwnPrices
from .._pricing.price_book import load_prices
from .._records.canonical import canonical_model
from .._records.fields import RATE_FIELDS
from .._records.validation import check_name, check_rate
from .._shared.text import storable
from .._store.session import StoreSession
from ..errors import StorageRefusedError
from ..schemas import LLMModel
from ..storage.base import StorageBackend
from ..storage.types import ModelPrice, UpsertResult
from . import catalog

logger = logging.getLogger("llmbridge.models")

#: Dollars per million tokens of input and of output; None keeps the current rate.
GivenRates = tuple[Decimal | None, Decimal | None]


@dataclass(frozen=True, slots=True)
class LoadReport:
    """Result of loading models: the `providers` that had some, and the numbers of models that were new, replaced and
    retired."""

    providers: tuple[str, ...]
    inserted: int
    updated: int
    retired: int


class ModelRegistry:
    """The models of one database. Rates that are given with a model become its own price."""

    def __init__(self, session: StoreSession, prices: OwnPrices) -> None:
        self._session = session
        self._prices = prices

    async def add_catalog(self, backend: StorageBackend) -> None:
        """Store the models of the bundled catalog that are missing, and replace those that come from an older catalog
        or that it now says are retired. A model that is retired in the database stays so. The backend is connected. A
        database that can only be read keeps the models that it has."""
        stored = {(m.provider, m.model_name): m for m in await backend.list_models(active_only=False)}
        now = datetime.now(UTC)
        new = []
        for model in catalog.models():
            known = stored.get((model.provider, model.model_name))
            if known is None or (known.is_active and _is_outdated(known, model)):
                new.append(_canonical(model, now))
        if not new:
            return
        try:
            await backend.upsert_models(new)
        except StorageRefusedError as error:
            logger.info("the models of the bundled catalog are not stored: %s", error)

    async def list_models(
        self, provider: str | None = None, model_name: str | None = None, active_only: bool = True
    ) -> list[LLMModel]:
        """Return models in order of (provider, model_name); None does not filter."""
        provider, model_name = (None if name is None else storable(name) for name in (provider, model_name))
        return await self._session.call(lambda backend: backend.list_models(provider, model_name, active_only))

    async def upsert(self, models: Sequence[LLMModel], *, set_prices: bool = True) -> UpsertResult:
        """Insert or replace models as the user's own. With `set_prices`, rates that differ from the current ones become
        own prices."""
        if set_prices:
            await self._prices.reload()
        now = datetime.now(UTC)  # after the reading: a price that another process set before it is replaced
        rows = [_canonical(model.model_copy(update={"source": "user"}), now) for model in models]
        result = await self._session.call(lambda backend: backend.upsert_models(rows))
        if set_prices:
            last = {(row.provider, row.model_name): row for row in rows}.values()
            rates = ((m.dollars_per_million_tokens_input, m.dollars_per_million_tokens_output) for m in last)
            await self._set_prices(zip(last, rates, strict=True), now)
        return result

    async def load(self, models_of: Mapping[str, Sequence[LLMModel]], *, set_prices: bool) -> LoadReport:
        """Insert or replace the models of each provider as the user's own, and retire the provider's other models."""
        models = [model for of_provider in models_of.values() for model in of_provider]
        loaded = {(model.provider, model.model_name) for model in models}
        result = await self.upsert(models, set_prices=set_prices)
        known = [model for provider in models_of for model in await self.list_models(provider)]
        missing = [key for model in known if (key := (model.provider, model.model_name)) not in loaded]
        return LoadReport(tuple(models_of), result.inserted, result.updated, await self.retire(missing))

    async def update_costs(
        self,
        provider: str,
        model_name: str,
        input_rate: Decimal | float | str | None,
        output_rate: Decimal | float | str | None,
    ) -> bool:
        """Set new rates of a stored model; a rate of None stays as it is. Return False if the model is not stored."""
        check_name("provider", provider)
        check_name("model_name", model_name)
        found = await self.list_models(provider, model_name, active_only=False)
        new_input, new_output = check_rate("input rate", input_rate), check_rate("output rate", output_rate)
        given = {"dollars_per_million_tokens_input": new_input, "dollars_per_million_tokens_output": new_output}
        changes = {name: rate for name, rate in given.items() if rate is not None}
        if found and changes:
            await self._prices.reload()
            now = datetime.now(UTC)
            row = _canonical(found[0].model_copy(update={**changes, "source": "user"}), now)
            await self._session.call(lambda backend: backend.upsert_models([row]))
            await self._set_prices([(row, (new_input, new_output))], now)
        return bool(found)

    async def retire(self, keys: Sequence[tuple[str, str]]) -> int:
        """Mark models as retired; return how many were active."""
        stored = [(storable(provider), storable(model_name)) for provider, model_name in keys]
        return await self._session.call(lambda backend: backend.retire_models(stored, datetime.now(UTC)))

    async def _set_prices(self, given: Iterable[tuple[LLMModel, GivenRates]], now: datetime) -> None:
        """Make the rates that were given with models own prices, all at once, if they differ from the current ones."""
        await load_prices()
        found = [self._own_price(model, rates, now) for model, rates in given]
        if prices := [price for price in found if price is not None]:
            await self._prices.set(prices)

    def _own_price(self, model: LLMModel, given: GivenRates, now: datetime) -> ModelPrice | None:
        """Return the own price that the given rates make; None if they are the current ones."""
        card = self._prices.book.rates(model.provider, model.model_name, now)
        rates = card.rates() if card is not None else None
        own = rates if card is not None and card.source == "own_prices" else None
        current = (rates.input, rates.output) if rates is not None else (None, None)
        wanted = tuple(held if rate is None else rate for rate, held in zip(given, current, strict=True))
        if wanted == current:
            return None
        return ModelPrice(
            model.provider,
            model.model_name,
            now,
            input=wanted[0],
            output=wanted[1],
            cache_read=own.cache_read if own is not None else None,
            cache_write=own.cache_write if own is not None else None,
            cache_write_1h=own.cache_write_1h if own is not None else None,
            rates={unit: rate for unit, rate in own.units.items() if unit not in RATE_FIELDS}
            if own is not None
            else {},
        )


def _is_outdated(known: LLMModel, model: LLMModel) -> bool:
    """Return whether the catalog's `model` replaces the `known` one of the database."""
    return catalog.is_older(known.source) or (known.source == model.source and not model.is_active)


def _canonical(model: LLMModel, now: datetime) -> LLMModel:
    return canonical_model(model, id=catalog.model_id(model.provider, model.model_name), now=now)
