"""Own prices of one database, kept up to date in memory, and the price book that calls are priced by."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from difflib import get_close_matches

from .._records.canonical import canonical_price
from .._shared.text import storable
from .._store.session import StoreSession
from ..errors import LLMBridgeError, RecordRejectedError
from ..storage.base import StorageBackend
from ..storage.types import ModelPrice
from .genai_prices import editions
from .genai_prices.units import units
from .price_book import PriceBook, load_prices

#: Seconds after which own prices are read again, since another process may have changed them.
PRICES_MAX_AGE = 60.0

#: Seconds that a call waits for such a reading; then it is priced with the prices in memory.
PRICES_TIMEOUT = 0.5

#: Seconds from a reading that failed to the next one.
PRICES_RETRY = 5.0

logger = logging.getLogger("llmbridge.pricing")


class OwnPrices:
    """The own prices of one database; `book` prices calls with them, else with those of genai-prices."""

    def __init__(self, session: StoreSession) -> None:
        self.book = PriceBook()
        self._session = session
        self._readings = 0
        self._latest = 0
        self._due = 0.0
        self._timeout = 0.0
        self._wait_until = 0.0
        self._reading: asyncio.Task[None] | None = None

    @property
    def is_fresh(self) -> bool:
        """Whether `refresh` would read nothing."""
        return time.monotonic() < self._due and editions.is_fresh()

    async def refresh(self) -> None:
        """Read again what another process may have changed, if it is old: price data, and own prices once the database
        is open.

        All callers share one reading and wait for it at most `PRICES_TIMEOUT` seconds. After a reading that failed no
        caller waits until one has succeeded.
        """
        await load_prices()
        now = time.monotonic()
        if not self._session.started or now < self._due:
            return
        self._session.check_owner()
        if self._reading is None:
            self._wait_until = now + self._timeout
            self._reading = asyncio.create_task(self._read_again(), name="llmbridge-prices")
            self._reading.add_done_callback(self._after_reading)
        if now < self._wait_until:
            await asyncio.wait([self._reading], timeout=self._wait_until - now)

    async def set(self, prices: Sequence[ModelPrice]) -> None:
        """Store own prices and use them: at once in this process, within a minute in others.

        :raises RecordRejectedError: a price can never be stored, or has the rate of a unit that genai-prices does not
            know
        """
        rows = [canonical_price(price) for price in prices]
        for unit in {unit for row in rows for unit in row.rates}:
            _check_unit(unit)

        async def store(backend: StorageBackend) -> None:
            await backend.set_prices(rows)
            await self.load(backend)

        await self._session.call(store)

    async def list(self, provider: str | None = None, model_name: str | None = None) -> list[ModelPrice]:
        """Return own prices in order of (provider, model_name, effective_from); None does not filter."""
        provider, model_name = (None if name is None else storable(name) for name in (provider, model_name))
        return await self._session.call(lambda backend: backend.list_prices(provider, model_name))

    async def reload(self) -> None:
        """Read the own prices again now."""
        await self._session.call(self.load)

    async def load(self, backend: StorageBackend) -> None:
        """Read the own prices from a backend that is connected."""
        self._readings += 1
        reading = self._readings
        prices = await backend.list_prices()
        if reading < self._latest:  # a reading that began later has ended before, and knows more
            return
        self.book.replace_own(prices)
        self._latest = reading
        self._due = time.monotonic() + PRICES_MAX_AGE
        self._timeout = PRICES_TIMEOUT

    async def close(self) -> None:
        """Cancel a reading that goes on."""
        reading, self._reading = self._reading, None
        if reading is not None:
            reading.cancel()
            await asyncio.wait([reading], timeout=1)

    async def _read_again(self) -> None:
        try:
            await self.reload()
        except LLMBridgeError as error:
            self._due = time.monotonic() + PRICES_RETRY
            self._timeout = 0.0
            logger.debug("own prices could not be read again: %s", error)

    def _after_reading(self, reading: asyncio.Task[None]) -> None:
        if reading is self._reading:
            self._reading = None


def _check_unit(name: str) -> None:
    if name not in units():
        close = get_close_matches(name, units(), n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise RecordRejectedError(f"{name!r} is not a unit of genai-prices{hint}")
