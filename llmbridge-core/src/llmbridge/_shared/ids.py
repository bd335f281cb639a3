"""Ids of calls and identities of stores: UUIDv7, made several times as fast as by the UUID constructor."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime, timedelta
from struct import Struct
from uuid import UUID, SafeUUID

#: Random bits for the fields `rand_a` and `rand_b` of 128 ids.
_PARTS = Struct("<" + "HQ" * 128)


def new_id() -> UUID:
    """Return a UUIDv7 (RFC 9562, section 5.7): Unix milliseconds, then 74 random bits."""
    try:
        random_bits = _random_bits.pop()
    except IndexError:
        random_bits = _next_random_bits()
    # Skips the checks of UUID.__init__, which take most of its time.
    made = _new_uuid(UUID)
    _set_int(made, time.time_ns() // 1_000_000 << 80 | random_bits)
    _set_is_safe(made, _UNKNOWN)
    return made


def new_identity() -> str:
    """Return the identity of a new store: a text that no other store has, and that tells when it was made."""
    return str(new_id())


def made_at(identity: str) -> datetime | None:
    """Return when an identity was made, to the millisecond (UTC); None if it does not tell."""
    try:
        uuid = UUID(identity)
    except ValueError:
        return None
    milliseconds = uuid.int >> 80
    return _EPOCH + timedelta(milliseconds=milliseconds) if uuid.version == 7 and milliseconds < _END else None


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
#: Milliseconds from there to the end of what a datetime can hold.
_END = (datetime.max.replace(tzinfo=UTC) - _EPOCH) // timedelta(milliseconds=1)
_new_uuid = UUID.__new__
_set_int, _set_is_safe = vars(UUID)["int"].__set__, vars(UUID)["is_safe"].__set__
_UNKNOWN = SafeUUID.unknown

#: Random bits of the next ids, with version and variant in place. Asking the system for the bits of many ids at once is
#: cheaper. A forked child must not use the bits of its parent.
_random_bits: list[int] = []
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_random_bits.clear)


def _next_random_bits() -> int:
    parts = _PARTS.unpack(os.urandom(_PARTS.size))
    first: int
    first, *others = [
        0x7 << 76 | (before >> 4) << 64 | 0x2 << 62 | behind >> 2
        for before, behind in zip(parts[::2], parts[1::2], strict=True)
    ]
    _random_bits.extend(others)
    return first
