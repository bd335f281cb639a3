"""The models and own prices that the books know: the part of LLMDatabase that is about them."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path

from .._pricing.price_book import PriceBook, load_prices
from ..plugins import provider_names
from ..providers.routing import resolve
from ..schemas import LLMModel
from ..storage.types import ModelPrice
from . import catalog, json_files
from .queries import Models
from .registry import LoadReport, ModelRegistry


class ModelBooks(ABC):
    """Models and own prices. Where no books are kept nothing is stored, and the bundled catalog answers questions."""

    _registry: ModelRegistry | None

    @property
    @abstractmethod
    def prices(self) -> PriceBook:
        """The prices that calls are charged by."""

    @property
    def models(self) -> Models:
        """Questions about the models that are known: which can do this, which are cheapest, what would it cost."""
        return Models(
            self.known_models,
            self.refresh_prices,
            lambda: self.prices,
            lambda text: resolve(text, provider_names()),
            lambda _: None,
        )

    async def add_model(self, model: LLMModel) -> int | None:
        """Insert or replace a model and return its id (None: no books are kept). Rates that it has become its own
        price from now on, where they differ from the one in force."""
        await self.upsert_models([model])
        found = await self.get_model(model.provider, model.model_name, active_only=False)
        return found.id if found is not None else None

    async def upsert_model(self, model: LLMModel) -> None:
        """Insert or replace a model; as for `add_model`, rates that it has become its own price."""
        await self.upsert_models([model])

    async def upsert_models(self, models: Sequence[LLMModel]) -> tuple[int, int]:
        """Insert or replace models; how many were new, and how many were replaced."""
        if self._registry is None:
            return 0, 0
        result = await self._registry.upsert(models)
        return result.inserted, result.updated

    async def load_models(self, directory: str | Path, *, set_prices: bool = True) -> LoadReport:
        """Take the models of `directory`, which has a file `VENDOR.json` for each vendor, in llmbridge-py's form, and
        retire the other models of these vendors. All files are read before anything is changed.

        Rates become own prices from now on where they differ from those in force, unless `set_prices` is False.

        :raises ValueError: a file or an entry does not parse; the text names it, and nothing was changed
        """
        vendors = await asyncio.to_thread(json_files.read, directory)
        if self._registry is None:
            return LoadReport((), 0, 0, 0)
        return await self._registry.load(vendors, set_prices=set_prices)

    async def update_model_costs(
        self,
        provider: str,
        model_name: str,
        dollars_per_million_tokens_input: Decimal | float | str | None,
        dollars_per_million_tokens_output: Decimal | float | str | None,
    ) -> bool:
        """Give a stored model new rates, which become its own price from now on; None leaves a rate as it is.
        False when the model is not stored."""
        if self._registry is None:
            return False
        return await self._registry.update_costs(
            provider, model_name, dollars_per_million_tokens_input, dollars_per_million_tokens_output
        )

    async def retire_models(self, keys: Sequence[tuple[str, str]]) -> int:
        """Mark models, by (provider, model_name), as no longer in use; return how many were."""
        if self._registry is None:
            return 0
        return await self._registry.retire(keys)

    async def set_prices(self, prices: Sequence[ModelPrice]) -> None:
        """Set own prices; in other processes they are in force within a minute."""
        if self._registry is not None:
            await self._registry.set_prices(prices)

    async def list_prices(self, provider: str | None = None, model_name: str | None = None) -> list[ModelPrice]:
        """Own prices in order of vendor, name and the time from which they are in force; None does not filter."""
        return await self._registry.list_prices(provider, model_name) if self._registry is not None else []

    async def get_model(self, provider: str, model_name: str, active_only: bool = True) -> LLMModel | None:
        """The model of that vendor and name; None when there is none."""
        found = await self.list_models(provider, active_only=active_only, model_name=model_name)
        return found[0] if found else None

    async def list_models(
        self, provider: str | None = None, active_only: bool = True, *, model_name: str | None = None
    ) -> list[LLMModel]:
        """Models in order of vendor and name; None does not filter."""
        if self._registry is None:
            return []
        return await self._registry.list_models(provider, model_name, active_only)

    async def refresh_prices(self) -> None:
        """Take up what other processes changed in the prices, if it is time to look."""
        await (self._registry.refresh() if self._registry is not None else load_prices())

    async def known_models(self) -> list[LLMModel]:
        """All models, retired ones included; those of the bundled catalog where no books are kept."""
        return await self.list_models(active_only=False) if self._registry is not None else catalog.models()
