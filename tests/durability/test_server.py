"""PostgreSQL stops, hangs and starts again under load, and its connections break at any byte."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from llmbridge import LLMDatabase
from llmbridge.errors import StorageError

from ..support.postgres_server import OwnServer
from ..support.proxy import proxy
from .databases import PostgreSQLUnderTest, check
from .processes import Zygote, acknowledged
from .programs.calls import numbered
from .rounds import CHAOS, rounds

ENDS = ("stop", "crash", "kill", "freeze")


async def record(db: LLMDatabase, numbers: Iterator[int], acknowledged: set[int], over: asyncio.Event) -> None:
    while not over.is_set():
        number = next(numbers)
        try:
            await db.record_api_call(numbered(number))
        except StorageError:
            continue
        acknowledged.add(number)
        await asyncio.sleep(0.001)


def crash(server: OwnServer) -> None:
    """Shut the server down without letting it finish anything."""
    postmaster = psutil.Process(server.pid)
    postmaster.send_signal(signal.SIGQUIT)
    psutil.wait_procs([postmaster], timeout=30)
    (server.folder / "postmaster.pid").unlink(missing_ok=True)


def freeze(server: OwnServer, seconds: float) -> None:
    """Let every process of the server stand still for a while."""
    postmaster = psutil.Process(server.pid)
    frozen = [postmaster, *postmaster.children(recursive=True)]
    for process in frozen:
        os.kill(process.pid, signal.SIGSTOP)
    time.sleep(seconds)
    for process in reversed(frozen):
        os.kill(process.pid, signal.SIGCONT)


def trouble(server: OwnServer, end: str, dice: random.Random) -> None:
    time.sleep(dice.uniform(0.05, 0.3))
    if end == "freeze":
        freeze(server, dice.uniform(0.3, 1.5))
        return
    if end == "crash":
        crash(server)
    else:
        getattr(server, end)()
    time.sleep(dice.uniform(0, 0.5))
    server.start()


@pytest.mark.parametrize("end", ENDS)
async def test_a_server_that_ends_under_load_and_comes_back_loses_nothing(
    end: str, own_server: OwnServer, tmp_path: Path
) -> None:
    for dice in rounds(1, 25):
        with own_server.database("ENCODING 'UTF8'") as database:
            tested = PostgreSQLUnderTest(own_server, database, tmp_path / database)
            noted: set[int] = set()
            numbers, over = iter(range(10**6)), asyncio.Event()
            async with tested.open(record_timeout=dice.choice((0.2, 1.0, 20.0))) as db:
                load = [asyncio.create_task(record(db, numbers, noted, over)) for _ in range(20)]
                await asyncio.to_thread(trouble, own_server, end, dice)
                await asyncio.sleep(0.3)
                over.set()
                await asyncio.gather(*load)
            await check(tested, noted, range(next(numbers)))


async def test_a_server_that_hangs_keeps_neither_callers_nor_the_closing_waiting(
    own_server: OwnServer, tmp_path: Path
) -> None:
    with own_server.database("ENCODING 'UTF8'") as database:
        tested = PostgreSQLUnderTest(own_server, database, tmp_path / database)
        db = tested.open(record_timeout=0.5)
        await db.initialize()
        postmaster = psutil.Process(own_server.pid)
        frozen = [postmaster, *postmaster.children(recursive=True)]
        for process in frozen:
            os.kill(process.pid, signal.SIGSTOP)
        try:
            async with asyncio.timeout(20):
                await asyncio.gather(*(db.record_api_call(numbered(number)) for number in range(50)))
                await db.close(timeout=0.5)
        finally:
            for process in reversed(frozen):
                os.kill(process.pid, signal.SIGCONT)
        assert await check(tested, range(50), range(50)) == set(range(50))


async def test_connections_cut_at_any_byte_lose_and_double_nothing(own_server: OwnServer, tmp_path: Path) -> None:
    (socket,) = (path for path in own_server.socket.glob(".s.PGSQL.*") if path.suffix != ".lock")
    async with proxy(socket) as between:
        with own_server.database("ENCODING 'UTF8'") as database:
            tested = PostgreSQLUnderTest(own_server, database, tmp_path / database, port=between.port)
            noted: set[int] = set()
            last = 0
            db = tested.open()
            for dice in rounds(20, 1000):
                between.cut_after(dice.randrange(1, dice.choice((2_000, 20_000, 60_000))))
                some = range(last, last + 60)
                outcomes = await asyncio.gather(
                    *(db.record_api_call(numbered(number)) for number in some), return_exceptions=True
                )
                assert not [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
                noted |= set(some)
                last += 60
                if dice.random() < 0.3:
                    await db.close()
                    db = tested.open()
            await db.close()
            assert between.cuts
            between.cut()
            await check(tested, noted, range(last))


async def test_a_process_killed_while_its_database_is_away_leaves_its_calls_for_the_next(
    programs: Zygote, own_server: OwnServer, tmp_path: Path
) -> None:
    for dice in rounds(3, 100):
        with own_server.database("ENCODING 'UTF8'") as database:
            tested = PostgreSQLUnderTest(own_server, database, tmp_path / database)
            notes = tested.home / "notes"
            process = programs.start(
                "record",
                url=tested.url,
                notes=str(notes),
                numbers=(0, 10**6),
                callers=dice.choice((1, 8, 32)),
                spool_dir=str(tested.spool_dir),
                record_timeout=dice.choice((0.1, 0.5)),
            )
            await asyncio.to_thread(time.sleep, dice.uniform(0, 1))
            away = dice.uniform(0.1, 60) if CHAOS and dice.random() < 0.1 else dice.uniform(0.1, 1.5)
            await asyncio.to_thread(be_away, own_server, database, away, process.kill, dice)
            process.kill()
            await asyncio.to_thread(process.wait)
            await check(tested, acknowledged(notes), range(10**6))


def be_away(server: OwnServer, database: str, seconds: float, kill: Callable[[], None], dice: random.Random) -> None:
    """Let nobody into the database for a while; kill the process before, or after, that is over."""
    with server.without(database):
        time.sleep(seconds)
        if dice.random() < 0.5:
            kill()
    time.sleep(dice.uniform(0, 0.3))
