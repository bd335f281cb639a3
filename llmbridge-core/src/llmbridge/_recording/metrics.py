"""What became of the calls that were to be put on the books, in numbers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Counters:
    """Counts since the books were made; none ever goes down.

    Of calls, as their callers were told: `calls_committed` to the store, `calls_spooled`, `calls_lost` and
    `calls_rejected` (can never be stored). Of those that were spooled: `calls_replayed` into the store,
    `calls_set_aside` because it refuses them. `calls_expired` lay in purged days, and were rejected or left the spool;
    `calls_duplicate` were in the store already and counted once. `batches_committed` is the number of transactions,
    `batches_retried` of those that were tried again, `outages` how often the store went away.
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
    """What became of the calls that still waited when the books were closed.

    `committed` to the store, `spooled` for the next start, `lost`: not known to be anywhere.
    """

    committed: int = 0
    spooled: int = 0
    lost: int = 0
