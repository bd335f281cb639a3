"""The models that a store knows, and the prices that its owner set."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal

from .._pricing.genai_prices import editions
from .._pricing.price_book import PriceBook, load_prices
from .._records.canonical import canonical_model, canonical_price
from .._records.validation import check_name, check_rate
from .._shared.text import storable
from .._store.session import Session
from ..errors import LLMBridgeError
from ..schemas import LLMModel
from ..storage.base import StorageBackend
from ..storage.types import ModelPrice, UpsertResult
from . import catalog

#: After how many seconds own prices, which another process may have changed, are read again.
PRICES_MAX_AGE = 60.0

#: Seconds that whoever needs prices waits for such a reading, and goes on with those that are known.
PRICES_PATIENCE = 0.5

#: Seconds after a reading that failed until the next.
PRICES_RETRY = 5.0

#: Dollars per million tokens of input and of output; None leaves the rate that is in force.
GivenRates = tuple[Decimal | None, Decimal | None]

logger = logging.getLogger("llmbridge.registry")


@dataclass(frozen=True, slots=True)
class LoadReport:
    """What loading models did: which `vendors` had some, and how many models were new, replaced and retired."""

    vendors: tuple[str, ...]
    inserted: int
    updated: int
    retired: int


class ModelRegistry:
    """Models and own prices of one store; `prices` is the book that calls are charged by."""

    def __init__(self, session: Session) -> None:
        self.prices = PriceBook()
        self._session = session
        self._readings = 0
        self._in_force = 0
        self._due = 0.0
        self._patience = 0.0
        self._wait_until = 0.0
        self._reading: asyncio.Task[None] | None = None

    async def prepare(self) -> None:
        """Bring the bundled catalog and the own prices together with what is stored, on a store that is open."""
        stored = {(m.provider, m.model_name): m for m in await self._backend.list_models(active_only=False)}
        now = datetime.now(UTC)
        news = []
        for model in catalog.models():
            known = stored.get((model.provider, model.model_name))
            if known is None or (known.is_active and catalog.is_older(known.source)):
                news.append(self._canonical(model, now))
        if news:
            await self._backend.upsert_models(news)
        await self._load_prices()

    @property
    def is_fresh(self) -> bool:
        """Whether it is too early for `refresh` to read anything."""
        return time.monotonic() < self._due and editions.is_fresh()

    async def refresh(self) -> None:
        """Read again what another process may have changed, if it is old: price data, and own prices once the store is
        open.

        However many ask, they wait for one reading, and no longer than `PRICES_PATIENCE` seconds. When it fails they go
        on with what is known, and nobody waits for another until one has succeeded.
        """
        await load_prices()
        now = time.monotonic()
        if not self._session.started or now < self._due:
            return
        self._session.check_owner()
        if self._reading is None:
            self._wait_until = now + self._patience
            self._reading = asyncio.create_task(self._read_again(), name="llmbridge-prices")
            self._reading.add_done_callback(self._after_reading)
        if now < self._wait_until:
            await asyncio.wait([self._reading], timeout=self._wait_until - now)

    async def close(self) -> None:
        """End a reading that goes on."""
        reading, self._reading = self._reading, None
        if reading is not None:
            reading.cancel()
            await asyncio.wait([reading], timeout=1)

    async def list_models(
        self, provider: str | None = None, model_name: str | None = None, active_only: bool = True
    ) -> list[LLMModel]:
        """Models in order of (provider, model_name)."""
        await self._session.start()
        provider, model_name = (None if name is None else storable(name) for name in (provider, model_name))
        with self._session.guard():
            return await self._backend.list_models(provider, model_name, active_only)

    async def upsert(self, models: Sequence[LLMModel], *, set_prices: bool = True) -> UpsertResult:
        """Insert or replace models as a user's own; where they have rates that differ from those in force, set own
        prices, unless that is not wanted."""
        await self._session.start()
        if set_prices:
            await self.reload_prices()
        now = datetime.now(UTC)
        rows = [self._canonical(model.model_copy(update={"source": "user"}), now) for model in models]
        with self._session.guard():
            result = await self._backend.upsert_models(rows)
        if set_prices:
            last = {(row.provider, row.model_name): row for row in rows}.values()
            rates = ((m.dollars_per_million_tokens_input, m.dollars_per_million_tokens_output) for m in last)
            await self._charge(zip(last, rates, strict=True), now)
        return result

    async def load(self, vendors: Mapping[str, Sequence[LLMModel]], *, set_prices: bool) -> LoadReport:
        """Insert or replace the models of each vendor as a user's own, and retire the vendor's other models."""
        models = [model for of_vendor in vendors.values() for model in of_vendor]
        loaded = {(model.provider, model.model_name) for model in models}
        result = await self.upsert(models, set_prices=set_prices)
        known = [model for vendor in vendors for model in await self.list_models(vendor)]
        missing = [key for model in known if (key := (model.provider, model.model_name)) not in loaded]
        return LoadReport(tuple(vendors), result.inserted, result.updated, await self.retire(missing))

    async def update_costs(
        self,
        provider: str,
        model_name: str,
        input_rate: Decimal | float | str | None,
        output_rate: Decimal | float | str | None,
    ) -> bool:
        """New rates for a model that is stored; False when it is not. A rate of None stays as it is."""
        check_name("provider", provider)
        check_name("model_name", model_name)
        found = await self.list_models(provider, model_name, active_only=False)
        new_input, new_output = check_rate("input rate", input_rate), check_rate("output rate", output_rate)
        given = {"dollars_per_million_tokens_input": new_input, "dollars_per_million_tokens_output": new_output}
        changes = {name: rate for name, rate in given.items() if rate is not None}
        if found and changes:
            await self.reload_prices()
            now = datetime.now(UTC)
            row = self._canonical(found[0].model_copy(update={**changes, "source": "user"}), now)
            with self._session.guard():
                await self._backend.upsert_models([row])
            await self._charge([(row, (new_input, new_output))], now)
        return bool(found)

    async def retire(self, keys: Sequence[tuple[str, str]]) -> int:
        """Mark models as no longer in use; return how many were."""
        await self._session.start()
        stored = [(storable(provider), storable(model_name)) for provider, model_name in keys]
        with self._session.guard():
            return await self._backend.retire_models(stored, datetime.now(UTC))

    async def set_prices(self, prices: Sequence[ModelPrice]) -> None:
        """Set own prices, in force at once in this process and within a minute in others.

        :raises RecordRejectedError: a name, time or rate that can never be stored
        """
        rows = [canonical_price(price) for price in prices]
        await self._session.start()
        with self._session.guard():
            await self._backend.set_prices(rows)
            await self._load_prices()

    async def list_prices(self, provider: str | None = None, model_name: str | None = None) -> list[ModelPrice]:
        """Own prices in order of (provider, model_name, effective_from)."""
        await self._session.start()
        provider, model_name = (None if name is None else storable(name) for name in (provider, model_name))
        with self._session.guard():
            return await self._backend.list_prices(provider, model_name)

    async def reload_prices(self) -> None:
        """Read the own prices again now."""
        with self._session.guard():
            await self._load_prices()

    @property
    def _backend(self) -> StorageBackend:
        return self._session.backend

    def _canonical(self, model: LLMModel, now: datetime) -> LLMModel:
        return canonical_model(model, id=catalog.model_id(model.provider, model.model_name), now=now)

    async def _charge(self, given: Iterable[tuple[LLMModel, GivenRates]], now: datetime) -> None:
        """Make the rates given with models own prices, all at once, but for those that are in force."""
        await load_prices()
        found = [self._own_price(model, rates, now) for model, rates in given]
        if prices := [price for price in found if price is not None]:
            await self.set_prices(prices)

    def _own_price(self, model: LLMModel, given: GivenRates, now: datetime) -> ModelPrice | None:
        """The own price that the given rates make; None where they are in force."""
        card = self.prices.rates(model.provider, model.model_name, now)
        held = card.rates() if card is not None else None
        own = held if card is not None and card.source == "own_prices" else None
        in_force = (held.input, held.output) if held is not None else (None, None)
        wanted = tuple(now_is if rate is None else rate for rate, now_is in zip(given, in_force, strict=True))
        if wanted == in_force:
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
        )

    async def _load_prices(self) -> None:
        self._readings += 1
        reading = self._readings
        prices = await self._backend.list_prices()
        if reading < self._in_force:  # what began later has ended earlier, and knows more
            return
        self.prices.replace_own(prices)
        self._in_force = reading
        self._due = time.monotonic() + PRICES_MAX_AGE
        self._patience = PRICES_PATIENCE

    async def _read_again(self) -> None:
        try:
            await self.reload_prices()
        except LLMBridgeError as error:
            self._due = time.monotonic() + PRICES_RETRY
            self._patience = 0.0
            logger.debug("own prices could not be read again: %s", error)

    def _after_reading(self, reading: asyncio.Task[None]) -> None:
        if reading is self._reading:
            self._reading = None
