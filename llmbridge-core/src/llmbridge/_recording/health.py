"""Health check of the database and of the spool."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from .._shared.redaction import redact
from .._store.session import StoreSession

if TYPE_CHECKING:
    from .spool import Spool
    from .spool_file import OnThread


async def check_database(session: StoreSession, timeout: float) -> dict[str, Any]:
    """Return `status`, and `error` if the database does not answer within `timeout` seconds. Never raises."""
    try:
        async with asyncio.timeout(timeout):
            await session.call(lambda backend: backend.ping())
    except TimeoutError:
        return {"status": "unhealthy", "error": _no_answer(timeout)}
    except Exception as error:
        return {"status": "unhealthy", "error": f"{type(error).__name__}: {redact(str(error))}"}
    return {"status": "healthy"}


async def check_spool(
    spool: Spool | None, timeout: float, *, accepts_calls: bool, on_thread: OnThread
) -> dict[str, Any] | None:
    """Return the path of the spool, its counts, and the `error` that keeps calls from waiting there. Never raises.

    None if there is no spool; without `accepts_calls` also if its file does not exist.
    """
    if spool is None:
        return None
    seen = {"path": str(spool.path) if spool.has_place else None, "waiting": None, "set_aside": None, "to_adopt": None}
    try:
        async with asyncio.timeout(timeout):
            if not accepts_calls and not await on_thread(spool.is_there):
                return None
            await on_thread(spool.check)
            return {**seen, **asdict(await on_thread(spool.counts)), "error": None}
    except TimeoutError:
        return {**seen, "error": _no_answer(timeout)}
    except Exception as error:
        return {**seen, "error": redact(str(error))}


def _no_answer(timeout: float) -> str:
    return f"no answer within {timeout:g} s"
