"""Settlement of calls: gives callers the outcome of their calls, and counts the calls by outcome."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence

from ..errors import LLMBridgeError, RecordRejectedError
from ..schemas import RecordStatus
from .bounded_queue import PendingCall
from .metrics import Counters

#: Reason of a call that came after its day was purged.
EXPIRED = "called_at lies in a day that was purged"

logger = logging.getLogger("llmbridge.recording")


class Settlement:
    """Settles pending calls. A call whose caller was cancelled counts too; one that was settled before does not."""

    def __init__(self, counters: Counters) -> None:
        self._counters = counters

    def settle(self, pending: Sequence[PendingCall], outcome: RecordStatus) -> None:
        """Give the callers `outcome`, which is `committed` or `spooled`."""
        settled_before = 0
        for one in pending:
            if not one.settled.done():
                one.settled.set_result(outcome)
            elif not one.settled.cancelled():
                settled_before += 1
        counted = len(pending) - settled_before
        if outcome == "committed":
            self._counters.calls_committed += counted
        else:
            self._counters.calls_spooled += counted

    def expire(self, pending: Iterable[PendingCall]) -> None:
        """Give the callers of calls whose day is purged a RecordRejectedError, each with the id of its call."""
        for one in pending:
            self._counters.calls_expired += 1
            self.fail([one], RecordRejectedError(EXPIRED, ids=(one.call.id,)))

    def fail(self, pending: Iterable[PendingCall], error: LLMBridgeError) -> None:
        """Give the callers `error`. The error of calls without a caller is logged."""
        raised = unheard = 0
        for one in pending:
            if one.settled.cancelled():
                unheard += 1
            elif not one.settled.done():
                raised += 1
                one.settled.set_exception(error)
        if isinstance(error, RecordRejectedError):
            self._counters.calls_rejected += raised + unheard
        else:
            self._counters.calls_lost += raised + unheard
        if unheard:
            logger.error("%d calls whose callers were cancelled are not known to be recorded: %s", unheard, error)
