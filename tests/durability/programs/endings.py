"""A program that records calls and ends in one of several ways without closing its database."""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Awaitable, Callable
from functools import partial

from calls import numbered
from recording import Notes
from stores import backend

from llmbridge import LLMDatabase
from llmbridge.errors import WrongLoopError

WAYS: dict[str, Callable[[Callable[[], Awaitable[object]]], object]] = {}
CALLERS = 100

kept: list[object] = []


def way(function: Callable[[Callable[[], Awaitable[object]]], object]) -> object:
    WAYS[function.__name__] = function
    return function


def run(way: str, *, url: str, spool_dir: str, accepted: str, acknowledged: str) -> None:
    """Record calls, and end."""
    WAYS[way](partial(work, url, spool_dir, Notes(accepted), Notes(acknowledged)))


async def work(url: str, spool_dir: str, accepted: Notes, acknowledged: Notes) -> LLMDatabase:
    """Record calls without end; return when some are acknowledged and others wait."""
    db = LLMDatabase(backend=backend(url), spool_dir=spool_dir, record_timeout=60)
    await db.initialize()
    noted, enough = 0, asyncio.Event()

    async def caller(first: int) -> None:
        nonlocal noted
        for number in range(first, 10**6, CALLERS):
            await asyncio.sleep(number % 7 / 1000)  # so that they do not all wait for one commit
            accepted.add(number)
            await db.record_api_call(numbered(number))
            acknowledged.add(number)
            noted += 1
            if noted > 500:
                enough.set()

    kept.extend(asyncio.create_task(caller(number)) for number in range(CALLERS))
    await enough.wait()
    kept.append(db)
    return db


@way
def returns(begin):
    asyncio.run(begin())


@way
def raises(begin):
    async def main():
        await begin()
        raise ValueError

    asyncio.run(main())


@way
def exits(begin):
    async def main():
        await begin()
        sys.exit(3)

    asyncio.run(main())


@way
def exits_at_once(begin):
    async def main():
        await begin()
        os._exit(0)

    asyncio.run(main())


@way
def aborts(begin):
    async def main():
        await begin()
        os.abort()

    asyncio.run(main())


@way
def is_terminated(begin):
    async def main():
        await begin()
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.sleep(60)

    asyncio.run(main())


@way
def is_terminated_and_exits(begin):
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))

    async def main():
        await begin()
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.sleep(60)

    asyncio.run(main())


@way
def is_interrupted(begin):
    async def main():
        await begin()
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.sleep(60)

    asyncio.run(main())


@way
def closes_its_loop(begin):
    loop = asyncio.new_event_loop()
    loop.run_until_complete(begin())
    loop.close()


@way
def leaves_its_loop(begin):
    loop = asyncio.new_event_loop()
    loop.run_until_complete(begin())
    kept.append(loop)


@way
def leaves_its_thread(begin):
    begun = threading.Event()

    async def main():
        await begin()
        begun.set()
        await asyncio.sleep(60)

    threading.Thread(target=lambda: asyncio.run(main()), daemon=True).start()
    begun.wait()


@way
def forgets_its_books(begin):
    async def main():
        await begin()
        for task in kept:
            if isinstance(task, asyncio.Task):
                task.cancel()
        kept.clear()
        gc.collect()

    asyncio.run(main())


@way
def forks(begin):
    async def main():
        db = await begin()
        child = multiprocessing.get_context("fork").Process(target=_use, args=(db,))
        child.start()
        await asyncio.to_thread(child.join)
        assert child.exitcode == 0, child.exitcode

    asyncio.run(main())


def _use(db):
    try:
        asyncio.run(db.record_api_call(numbered(0)))
    except WrongLoopError:
        return
    sys.exit(1)
