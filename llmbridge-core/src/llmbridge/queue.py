"""The calls that wait for a writer: bounded by their number and by what they take of memory."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator

from .limits import MAX_METADATA_BYTES
from .schemas import CallRecord, RecordStatus

#: Most records that wait, and most bytes that they take; further callers wait for room.
MAX_PENDING = 10_000
MAX_PENDING_BYTES = 64 * 1024 * 1024

#: What a record takes at most, apart from its free texts.
_RECORD_BYTES = 2048

#: A call, its caller's future, when it came by the clock of the event loop, and the most bytes that it takes.
Entry = tuple[CallRecord, "asyncio.Future[RecordStatus]", float, int]


class Queue:
    """Entries in the order in which they came. Who may wait for room asks for it; who may not is taken all the same."""

    def __init__(self) -> None:
        self._entries: deque[Entry] = deque()
        self._bytes = 0
        self._wanting_room: deque[asyncio.Future[None]] = deque()

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries)

    @property
    def is_full(self) -> bool:
        """Whether further callers had better wait."""
        return len(self._entries) >= MAX_PENDING or self._bytes >= MAX_PENDING_BYTES

    def add(self, entry: Entry) -> None:
        """Put an entry at the end."""
        self._entries.append(entry)
        self._bytes += entry[3]

    def take(self, most: int) -> list[Entry]:
        """The oldest entries, which leave the queue."""
        taken = [self._entries.popleft() for _ in range(min(most, len(self._entries)))]
        self._bytes -= sum(entry[3] for entry in taken)
        self.look_again()
        return taken

    def clear(self) -> None:
        """Let all entries go."""
        self._entries.clear()
        self._bytes = 0
        self.look_again()

    async def room(self, unless: Callable[[], bool]) -> None:
        """Wait until there is room, or until `unless` is true when it is looked at again."""
        while self.is_full and not unless():
            freed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._wanting_room.append(freed)
            await freed

    def look_again(self) -> None:
        """Let those who wait for room look whether they still have to."""
        while self._wanting_room:
            freed = self._wanting_room.popleft()
            if not freed.done():
                freed.set_result(None)


def size(call: CallRecord) -> int:
    """What a record takes at most, in bytes."""
    most = _RECORD_BYTES
    if call.metadata is not None:
        most += MAX_METADATA_BYTES
    if call.error_message is not None:
        most += len(call.error_message)
    if call.tools_used is not None:
        most += sum(map(len, call.tools_used))
    return most
