"""Erasure of a user: removes the user's name from calls, totals and spooled calls."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .._recording.spool_replay import exclusive
from .._records.validation import check_name
from .._store.session import StoreSession
from .._usage.query import filters
from ..storage.types import MAX_BATCH, UsageQuery

if TYPE_CHECKING:
    from .._recording.spool import Spool

#: Seconds to wait for a running replay before a user is erased from the spool.
REPLAY_TIMEOUT = 60.0


@dataclass(frozen=True, slots=True)
class Forgotten:
    """Result of erasing a user at one `origin`: the number of `calls` that had the name, including purged and spooled
    ones, and the number of `rows` of calls and totals that were changed."""

    origin: str
    calls: int
    rows: int


async def forget(
    session: StoreSession, spool: Spool | None, user: str, origin: str | None, *, dry_run: bool
) -> list[Forgotten]:
    """Erase the name of a user at one origin, or at all origins (None). See `LLMDatabase.forget`."""
    user = check_name("id_at_origin", user)
    await session.start()  # first: the spool does not change if the database cannot be opened
    async with AsyncExitStack() as replay_stopped:
        file = None
        if spool is not None and await asyncio.to_thread(spool.is_there):
            while await asyncio.to_thread(spool.bind, MAX_BATCH):
                pass
            file = spool.file
        if file is not None and not dry_run:
            await replay_stopped.enter_async_context(exclusive(file, REPLAY_TIMEOUT))
        spooled = await asyncio.to_thread(file.calls_of, user, origin) if file is not None else {}
        if file is not None and spooled and not dry_run:
            await asyncio.to_thread(file.forget, user, origin)
        stored = await _stored_calls(session, user, origin)
        forgotten = []
        for place in sorted({*stored, *spooled}):
            rows = 0 if dry_run else spooled.get(place, 0)
            if place in stored and not dry_run:
                rows += await _erase(session, place, user)
            forgotten.append(Forgotten(place, stored.get(place, 0) + spooled.get(place, 0), rows))
    return forgotten


async def _stored_calls(session: StoreSession, user: str, origin: str | None) -> dict[str, int]:
    """Return the number of the user's calls by origin."""
    query = UsageQuery(filters({"id_at_origin": user, "origin": origin}), ("origin",))
    rows = await session.call(lambda backend: backend.summarize_usage(query))
    return {row.key["origin"]: row.calls for row in rows}


async def _erase(session: StoreSession, origin: str, user: str) -> int:
    return await session.call(lambda backend: backend.erase_user(origin, user))
