"""The calls that wait for a writer: bounded by their number and by what they take of memory."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from sys import getsizeof
from typing import Any

from .._records.fields import MAX_NAME
from ..schemas import CallRecord, RecordStatus

#: Most records that wait, and most bytes that they take; further callers wait for room. What comes while fewer than
#: `UNCOUNTED` wait is not looked at: they fit, whatever they hold, and to look at them would take time of every call.
MAX_PENDING = 10_000
MAX_PENDING_BYTES = 64 * 1024 * 1024
UNCOUNTED = 200

#: What a record with its entry takes at most, apart from the fields of any size, where its ten texts are in ASCII; and
#: how much more where some of those texts have characters of four bytes.
_RECORD_BYTES = 2304 + 10 * MAX_NAME
_WIDE_BYTES = 10 * (3 * MAX_NAME + 32)

#: Types of values without others in them. Metadata of nothing else, shown as text, takes at most so many bytes for each
#: character; where the text is longer than this, they are counted.
_FLAT = frozenset({str, int, float, bool, type(None)})
_BYTES_PER_CHARACTER, _SHORT = 24, 400

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

    def size(self, call: CallRecord) -> int:
        """How many bytes of memory a record that comes now is taken to have."""
        return size(call) if len(self._entries) >= UNCOUNTED else 0

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
    """What a record takes at most, in bytes of memory. Nothing is looked at closely that most calls do not have."""
    most = _RECORD_BYTES
    texts = (
        f"{call.origin}{call.id_at_origin}{call.provider}{call.model_name}{call.requested_model}{call.price_version}"
        f"{call.finish_reason}{call.response_id}{call.system_prompt_hash}{call.error_type}"
    )
    if not texts.isascii():
        most += _WIDE_BYTES
    if call.error_message is not None:
        most += getsizeof(call.error_message)
    if call.metadata is not None:
        most += _of_metadata(call.metadata)
    if call.tools_used is not None:
        most += _of_all(call.tools_used)
    return most


def _of_metadata(metadata: Mapping[str, Any]) -> int:
    if _FLAT.issuperset(map(type, metadata.values())):
        shown = len(repr(metadata))
        if shown <= _SHORT:
            return getsizeof(metadata) + _BYTES_PER_CHARACTER * shown
    return _of_all(metadata)


def _of_all(value: object) -> int:
    """The bytes of a value of JSON and of all in it: an empty list of two characters takes more than twenty times as
    many."""
    found = [value]
    for one in found:  # which grows meanwhile
        if isinstance(one, dict):
            found += one
            found += one.values()
        elif isinstance(one, list | tuple):
            found += one
    return sum(map(getsizeof, found))
