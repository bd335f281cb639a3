"""Circuit breaker: whether the database takes calls, and the log lines of an outage."""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from .._shared.redaction import redact
from ..errors import (
    SchemaOutdatedError,
    SchemaTooNewError,
    StorageError,
    StorageRefusedError,
    StorageUnavailableError,
)
from .metrics import Counters

if TYPE_CHECKING:
    from .spool import Spool

#: Errors that concern the whole database. Any other error may concern a single call.
AWAY = (StorageUnavailableError, StorageRefusedError, SchemaOutdatedError, SchemaTooNewError)

logger = logging.getLogger("llmbridge.recording")


class CircuitBreaker:
    """State of one destination of calls: closed while it takes them, open from its first failure to its next
    success."""

    def __init__(self) -> None:
        self._error: StorageError | None = None

    @property
    def is_open(self) -> bool:
        """Whether the destination does not take calls, as far as is known."""
        return self._error is not None

    @property
    def error(self) -> StorageError | None:
        """The latest failure of this outage; None while the breaker is closed."""
        return self._error

    def trip(self, error: StorageError) -> None:
        """Open the breaker, or note the latest error of the outage."""
        self._error = error

    def reset(self) -> bool:
        """Close the breaker; return whether it was open."""
        was_open = self._error is not None
        self._error = None
        return was_open


class DatabaseBreaker(CircuitBreaker):
    """The breaker of the database: it counts outages and logs one WARNING at the start and at the end of each."""

    def __init__(self, target: str | None, spool: Spool | None, counters: Counters) -> None:
        super().__init__()
        self.last_error: str | None = None
        self._name = f"the database {target}" if target else "the database"
        self._spool = spool
        self._counters = counters
        self._since = 0.0
        self._before = Counters()

    def note(self, error: StorageError) -> str:
        """Keep the text of an error as `last_error`, without secrets, and return it."""
        self.last_error = redact(f"{type(error).__name__}: {error}")
        return self.last_error

    def trip(self, error: StorageError) -> None:
        """Open the breaker; count and log the outage if it starts now."""
        starts = not self.is_open
        super().trip(error)
        if not starts:
            return
        self._counters.outages += 1
        self._since = time.monotonic()
        self._before = replace(self._counters)
        effect = f"wait in {self._spool.path}" if self._spool is not None and self._spool.has_place else "are lost"
        told = self.note(error)
        logger.warning("%s is away, calls %s until it is back: %s", self._name, effect, told)

    def reset(self) -> bool:
        """Close the breaker; log the end of the outage if there was one."""
        was_open = super().reset()
        if was_open:
            logger.warning(
                "%s is back after %.1f s; meanwhile %d calls were spooled and %d lost",
                self._name,
                time.monotonic() - self._since,
                self._counters.calls_spooled - self._before.calls_spooled,
                self._counters.calls_lost - self._before.calls_lost,
            )
        return was_open
