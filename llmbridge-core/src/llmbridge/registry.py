"""The models that a store knows, and the prices that its owner set."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal

from . import catalog
from .errors import LLMBridgeError
from .pricing import PriceBook, load_bundled_prices
from .records import canonical_model, check_name, check_rate
from .schemas import LLMModel
from .session import Session
from .storage.base import StorageBackend
from .storage.types import ModelPrice, UpsertResult

#: After how many seconds own prices, which another process may have changed, are read again.
PRICES_MAX_AGE = 60.0

logger = logging.getLogger("llmbridge.registry")


class ModelRegistry:
    """Models and own prices of one store; `prices` is the book that calls are charged by."""

    def __init__(self, session: Session) -> None:
        self.prices = PriceBook()
        self._session = session
        self._loaded_at = 0.0
        self._loading: asyncio.Task[None] | None = None

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

    def refresh_prices_soon(self) -> None:
        """Read the own prices again in the background if they are old and the store is open."""
        if not self._session.started or self._loading is not None:
            return
        if time.monotonic() - self._loaded_at > PRICES_MAX_AGE:
            self._loaded_at = time.monotonic()
            self._loading = asyncio.create_task(self._refresh_prices(), name="llmbridge-prices")

    async def close(self) -> None:
        """Wait for the background's reading."""
        if self._loading is not None:
            await asyncio.wait([self._loading])

    async def list_models(
        self, provider: str | None = None, model_name: str | None = None, active_only: bool = True
    ) -> list[LLMModel]:
        """Models in order of (provider, model_name)."""
        await self._session.start()
        async with self._session.guard():
            return await self._backend.list_models(provider, model_name, active_only)

    async def upsert(self, models: Sequence[LLMModel]) -> UpsertResult:
        """Insert or replace models; where they have rates that differ from those in force, set own prices."""
        await self._session.start()
        now = datetime.now(UTC)
        rows = [self._canonical(model, now) for model in models]
        async with self._session.guard():
            result = await self._backend.upsert_models(rows)
        await self._charge(rows, now)
        return result

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
        if not found:
            return False
        rates = {
            name: check_rate(name, rate)
            for name, rate in (
                ("dollars_per_million_tokens_input", input_rate),
                ("dollars_per_million_tokens_output", output_rate),
            )
            if rate is not None
        }
        await self.upsert([found[0].model_copy(update=rates)])
        return True

    async def retire(self, keys: Sequence[tuple[str, str]]) -> int:
        """Mark models as no longer in use; return how many were."""
        await self._session.start()
        async with self._session.guard():
            return await self._backend.retire_models(keys, datetime.now(UTC))

    async def set_prices(self, prices: Sequence[ModelPrice]) -> None:
        """Set own prices, in force at once in this process and within a minute in others."""
        await self._session.start()
        async with self._session.guard():
            await self._backend.set_prices(prices)
            await self._load_prices()

    @property
    def _backend(self) -> StorageBackend:
        return self._session.backend

    def _canonical(self, model: LLMModel, now: datetime) -> LLMModel:
        return canonical_model(model, id=catalog.model_id(model.provider, model.model_name), now=now)

    async def _charge(self, models: Sequence[LLMModel], now: datetime) -> None:
        await load_bundled_prices()
        changed = [price for model in models if (price := self._new_price(model, now)) is not None]
        if changed:
            await self.set_prices(changed)

    def _new_price(self, model: LLMModel, now: datetime) -> ModelPrice | None:
        card = self.prices.rates(model.provider, model.model_name, now)
        held = card.rates() if card is not None else None
        own = held if card is not None and card.source == "own_prices" else None
        given = (model.dollars_per_million_tokens_input, model.dollars_per_million_tokens_output)
        in_force = (held.input, held.output) if held is not None else (None, None)
        wanted = tuple(old if new is None else new for new, old in zip(given, in_force, strict=True))
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
        )

    async def _load_prices(self) -> None:
        self.prices.replace_own(await self._backend.list_prices())
        self._loaded_at = time.monotonic()

    async def _refresh_prices(self) -> None:
        try:
            async with self._session.guard():
                await self._load_prices()
        except LLMBridgeError as error:
            logger.debug("own prices could not be read again: %s", error)
        finally:
            self._loading = None
