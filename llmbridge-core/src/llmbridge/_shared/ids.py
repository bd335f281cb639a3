"""Generator of call ids: UUIDv7, several times as fast as the UUID constructor."""

from __future__ import annotations

import os
import time
from struct import Struct
from uuid import UUID, SafeUUID

#: Random bits for the fields `rand_a` and `rand_b` of 128 ids.
_PARTS = Struct("<" + "HQ" * 128)


def new_id() -> UUID:
    """Return a UUIDv7 (RFC 9562, section 5.7): Unix milliseconds, then 74 random bits."""
    try:
        noise = _noise.pop()
    except IndexError:
        noise = _more_noise()
    # Skips the checks of UUID.__init__, which take most of its time.
    made = _unmade(UUID)
    _put_number(made, time.time_ns() // 1_000_000 << 80 | noise)
    _put_safety(made, _UNKNOWN)
    return made


_unmade = UUID.__new__
_put_number, _put_safety = vars(UUID)["int"].__set__, vars(UUID)["is_safe"].__set__
_UNKNOWN = SafeUUID.unknown

#: Random bits of the next ids, with version and variant in place. Asking the system for the bits of many ids at once is
#: cheaper. A forked child must not use the bits of its parent.
_noise: list[int] = []
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_noise.clear)


def _more_noise() -> int:
    parts = _PARTS.unpack(os.urandom(_PARTS.size))
    first: int
    first, *others = [
        0x7 << 76 | (before >> 4) << 64 | 0x2 << 62 | behind >> 2
        for before, behind in zip(parts[::2], parts[1::2], strict=True)
    ]
    _noise.extend(others)
    return first
