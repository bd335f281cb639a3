"""Ids of calls: UUIDv7, fast."""

from __future__ import annotations

import os
import time
from struct import Struct
from uuid import UUID, SafeUUID

#: Bits for the fields `rand_a` and `rand_b` of so many ids.
_PARTS = Struct("<" + "HQ" * 128)


def new_id() -> UUID:
    """A UUIDv7 (RFC 9562, section 5.7): Unix milliseconds, then 74 random bits."""
    try:
        noise = _noise.pop()
    except IndexError:
        noise = _more_noise()
    # Without the checks that take most of the time of making one.
    made = _unmade(UUID)
    _put_number(made, time.time_ns() // 1_000_000 << 80 | noise)
    _put_safety(made, _UNKNOWN)
    return made


_unmade = UUID.__new__
_put_number, _put_safety = vars(UUID)["int"].__set__, vars(UUID)["is_safe"].__set__
_UNKNOWN = SafeUUID.unknown

#: Random bits for ids to come, in their places beside the version and the variant: asking the system for those of many
#: ids at once is cheaper. A forked child must not draw those of its parent.
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
