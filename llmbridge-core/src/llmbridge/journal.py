"""The way of a call onto the books: complete it, wait for its commit, say what became of it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Mapping
from typing import Any

from .entries import complete
from .errors import StorageError, StorageUnavailableError
from .pricing import load_prices
from .recorder import Recorder
from .registry import ModelRegistry
from .schemas import CallRecord, RecordStatus
from .session import Session

logger = logging.getLogger("llmbridge.journal")


class Journal:
    """Records calls in one store, each within `timeout` seconds."""

    def __init__(self, session: Session, registry: ModelRegistry, *, timeout: float) -> None:
        self._session = session
        self._registry = registry
        self._timeout = timeout
        self._recorder: Recorder | None = None

    async def record(self, given: Mapping[str, Any]) -> CallRecord:
        """The complete record of a call, once it is committed.

        :raises RecordRejectedError: it can never be stored
        :raises StorageError: it is not known to be stored
        """
        await load_prices()
        try:
            async with asyncio.timeout(self._timeout):
                await self._session.start()
                record = self._completed(given)
                await self._commit(record)
        except TimeoutError:
            raise self._unconfirmed() from None
        return record

    async def keep(
        self, given: Mapping[str, Any], priced_as: str | None = None
    ) -> tuple[CallRecord | None, RecordStatus]:
        """The complete record of a call and what became of it, whatever the store does.

        The record is None where it can never be stored.
        """
        record = None
        failure: StorageError
        try:
            await load_prices()
            async with asyncio.timeout(self._timeout):
                await self._session.start()
                record = self._completed(given, priced_as)
                await self._commit(record)
        except TimeoutError:
            failure = self._unconfirmed()
        except StorageError as error:
            failure = error
        except Exception as error:  # whatever it is, the caller has paid for the answer and gets it
            failure = StorageError(f"recording it raised {type(error).__name__}")
        else:
            return record, "committed"
        with contextlib.suppress(Exception):
            record = record or self._completed(given, priced_as)
        logger.error("call %s is not known to be on the books: %s", given.get("id"), failure)
        return record, "lost"

    async def close(self) -> None:
        """Write what waits, for at most the timeout. Idempotent; the next record begins anew."""
        recorder, self._recorder = self._recorder, None
        if recorder is None:
            return
        self._session.check_owner()
        closing = asyncio.ensure_future(recorder.close())
        _, late = await asyncio.wait([closing], timeout=self._timeout)
        if late:
            logger.error("%d calls are not known to be on the books: the store did not take them", recorder.abandon())
            await closing

    def _completed(self, given: Mapping[str, Any], priced_as: str | None = None) -> CallRecord:
        self._registry.refresh_prices_soon()
        return complete(given, self._registry.prices, priced_as)

    async def _commit(self, record: CallRecord) -> None:
        if self._recorder is None:
            self._recorder = Recorder(self._session.backend.record_calls, patience=self._timeout)
        await self._recorder.record(record)

    def _unconfirmed(self) -> StorageError:
        return StorageUnavailableError(
            f"the store did not confirm within {self._timeout:g} s; the call may still be written"
        )
