"""Queue of calls that wait for a batch, bounded by their number and by the memory that they take."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from operator import attrgetter
from sys import getsizeof
from typing import Any, NamedTuple

from .._records.fields import MAX_NAME, SHORT_TEXTS, of_kind
from ..schemas import CallRecord, RecordStatus

#: Bounds of the queue: calls, and bytes of memory. Further callers wait for room.
MAX_PENDING = 10_000
MAX_PENDING_BYTES = 82 * 1024 * 1024
#: While fewer calls than this wait, their size is not computed: that many calls fit, whatever they hold, and computing
#: the size would cost time in every call.
UNCOUNTED = 200

_get_texts = attrgetter(*SHORT_TEXTS)
_get_unbounded = attrgetter(*of_kind("message", "texts", "json", "counts", "labels"))

#: Most bytes of a record with its queue entry, without its messages, lists and objects, if its short texts are ASCII;
#: and the bytes to add if some of those texts have characters of four bytes.
_RECORD_BYTES = 3200 + len(SHORT_TEXTS) * MAX_NAME
_WIDE_BYTES = len(SHORT_TEXTS) * (3 * MAX_NAME + 32)

#: Scalar types. Metadata of nothing else takes at most `_BYTES_PER_CHARACTER` bytes for each character of its repr;
#: if the repr is longer than `_SHORT`, the values are measured one by one.
_FLAT = frozenset({str, int, float, bool, type(None)})
_BYTES_PER_CHARACTER, _SHORT = 24, 400


class PendingCall(NamedTuple):
    """A call that waits for its commit.

    `settled` is the future of its caller, `since` the time by the event loop's clock from which its timeout counts, and
    `size` the most bytes that it takes (0: not computed).
    """

    call: CallRecord
    settled: asyncio.Future[RecordStatus]
    since: float
    size: int


class BoundedQueue:
    """First-in, first-out queue of pending calls.

    The bounds are advice: a caller that may wait asks `is_full` and awaits `changed()`; `add` always succeeds.
    """

    def __init__(self) -> None:
        self._pending: deque[PendingCall] = deque()
        self._bytes = 0
        self._waiters: deque[asyncio.Future[None]] = deque()

    def __len__(self) -> int:
        return len(self._pending)

    def __iter__(self) -> Iterator[PendingCall]:
        return iter(self._pending)

    @property
    def is_full(self) -> bool:
        """Whether further callers should wait."""
        return len(self._pending) >= MAX_PENDING or self._bytes >= MAX_PENDING_BYTES

    def size(self, call: CallRecord) -> int:
        """Return the most bytes that `call` takes if it is added now; 0 while the queue is short."""
        return size(call) if len(self._pending) >= UNCOUNTED else 0

    def add(self, pending: PendingCall) -> None:
        """Append a call."""
        self._pending.append(pending)
        self._bytes += pending.size

    def take(self, most: int) -> list[PendingCall]:
        """Remove and return up to `most` calls, oldest first."""
        taken = [self._pending.popleft() for _ in range(min(most, len(self._pending)))]
        self._bytes -= sum(pending.size for pending in taken)
        self.wake()
        return taken

    def clear(self) -> None:
        """Remove all calls."""
        self._pending.clear()
        self._bytes = 0
        self.wake()

    def changed(self) -> asyncio.Future[None]:
        """Return a future that ends when calls leave the queue, or at `wake`."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        return waiter

    def wake(self) -> None:
        """End the futures of `changed`."""
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)


def size(call: CallRecord) -> int:
    """Return the most bytes of memory that a record takes. Fields that most calls do not set cost time only if set."""
    most = _RECORD_BYTES
    if not all(text is None or text.isascii() for text in _get_texts(call)):
        most += _WIDE_BYTES
    for value in _get_unbounded(call):
        if value is not None:
            most += getsizeof(value) if isinstance(value, str) else _of_json(value)
    return most


def _of_json(value: Any) -> int:
    if isinstance(value, dict) and _FLAT.issuperset(map(type, value.values())):
        shown = len(repr(value))
        if shown <= _SHORT:
            return getsizeof(value) + _BYTES_PER_CHARACTER * shown
    return _of_all(value)


def _of_all(value: object) -> int:
    """Return the bytes of a JSON value and of everything in it.

    The length of its text is no measure: an empty list of two characters takes more than twenty times as many bytes.
    """
    found = [value]
    for one in found:  # which grows meanwhile
        if isinstance(one, dict):
            found += one
            found += one.values()
        elif isinstance(one, list | tuple):
            found += one
    return sum(map(getsizeof, found))
