"""Rescue of calls that a batch writer holds when it is stopped or forgotten before it could write them."""

from __future__ import annotations

import logging
import os
import weakref
from collections.abc import Callable, Iterable, Sequence

from ..errors import StorageError, StorageUnavailableError
from ..schemas import CallRecord
from .bounded_queue import PendingCall

logger = logging.getLogger("llmbridge.recording")

#: Save calls durably, without an event loop; raise StorageUnavailableError if that fails.
Save = Callable[[Sequence[CallRecord]], None]


class Rescue:
    """Saves pending calls through `save` (None: there is no place for them), in the process that accepted them."""

    def __init__(self, save: Save | None) -> None:
        self._save = save
        self._process: int | None = None

    @property
    def is_foreign(self) -> bool:
        """Whether this is a forked child, whose copies of the calls the parent writes."""
        return self._process != os.getpid()

    def accept(self) -> None:
        """Note that this process accepts the calls from now on. The writer may have been made before a fork."""
        self._process = os.getpid()

    def save(self, pending: Sequence[PendingCall]) -> list[PendingCall]:
        """Save the calls, and return those that can never be saved.

        :raises StorageUnavailableError: there is no place for them, or it cannot be written
        """
        if self._save is None:
            raise StorageUnavailableError("there is no spool")
        try:
            self._save([one.call for one in pending])
        except StorageUnavailableError:
            raise
        except Exception:
            if len(pending) == 1:
                return list(pending)
            return [unsaved for one in pending for unsaved in self.save([one])]
        return []

    def watch(
        self, writer: object, queue: Iterable[PendingCall], batches: Iterable[Iterable[PendingCall]]
    ) -> weakref.finalize[..., object]:
        """Save what `queue` and `batches` hold when `writer` is collected, or when the interpreter exits.

        Return the finalizer; `detach()` ends the watch. It must not refer to the writer, so it takes its parts.
        """
        return weakref.finalize(writer, self._save_rest, queue, batches)

    def _save_rest(self, queue: Iterable[PendingCall], batches: Iterable[Iterable[PendingCall]]) -> None:
        pending = [*(one for batch in batches for one in batch), *queue]
        if not pending or self.is_foreign:
            return
        try:
            unsaved = len(self.save(pending))
            reason = "they cannot be spooled"
        except StorageError as error:
            unsaved, reason = len(pending), str(error)
        if unsaved:
            logger.error("%d calls are lost: the database was never closed, and %s", unsaved, reason)
