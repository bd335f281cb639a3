"""Adoption and removal of the calls in a file of the spool."""

from __future__ import annotations

import asyncio

from .._recording.spool import Spool
from .._recording.spool_replay import exclusive
from .._store.session import StoreSession
from ..storage.types import MAX_BATCH

#: Seconds to wait for a running replay of the file.
REPLAY_TIMEOUT = 60.0


async def adopt(session: StoreSession, spool: Spool, name: str) -> int:
    """Give the calls of a file to the database. See `LLMDatabase.adopt_spool`."""
    await session.start()
    file = await asyncio.to_thread(spool.find, name)
    if file.name == spool.file.name:
        raise ValueError(f"the calls in {name} belong to this database already")
    async with exclusive(file, REPLAY_TIMEOUT):
        adopted = 0
        while moved := await asyncio.to_thread(file.move, spool.file, MAX_BATCH):
            adopted += moved
        return adopted


async def discard(spool: Spool, name: str) -> int:
    """Delete the calls of a file. See `LLMDatabase.discard_spool`."""
    file = await asyncio.to_thread(spool.find, name)
    async with exclusive(file, REPLAY_TIMEOUT):
        discarded = 0
        while deleted := await asyncio.to_thread(file.discard, MAX_BATCH):
            discarded += deleted
        return discarded
