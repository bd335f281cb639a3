"""Counters of recorded calls, and the report of `close()`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Counters:
    """Counters since the LLMDatabase was created; they never decrease.

    Calls by the record status that their callers got: `calls_committed`, `calls_spooled`, `calls_lost`, and
    `calls_rejected` (can never be stored), of which `calls_expired` belonged to purged days. Spooled calls:
    `calls_replayed` to the database, and `calls_set_aside` because the database rejected them, a constraint refused
    them, or their days were purged. `calls_duplicate` were stored already. `batches_committed` counts transactions,
    `batches_retried` those that were retried, `outages` how often the circuit breaker opened.
    """

    calls_committed: int = 0
    calls_spooled: int = 0
    calls_lost: int = 0
    calls_rejected: int = 0
    calls_expired: int = 0
    calls_duplicate: int = 0
    calls_replayed: int = 0
    calls_set_aside: int = 0
    batches_committed: int = 0
    batches_retried: int = 0
    outages: int = 0


@dataclass(frozen=True, slots=True)
class CloseReport:
    """Result of `close()`: the number of waiting calls that were `committed`, `spooled` for the next start, or `lost`
    (not known to be stored)."""

    committed: int = 0
    spooled: int = 0
    lost: int = 0
