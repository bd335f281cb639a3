"""Disks that are full, fail, cannot be written, or lose their power."""

from __future__ import annotations

import asyncio
import errno
import random
import sys
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from llmbridge._recording.spool import Spool
from llmbridge.storage.url import parse, target

from .conftest import MakeDatabase
from .databases import LONG, DatabaseUnderTest, check, spooled
from .disk import built, lose_power
from .processes import Zygote, acknowledged, until, zygote
from .rounds import CHAOS, FULL, SEED, rounds


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Zygote]:
    """Programs on a disk that fails when the environment says so."""
    folder = tmp_path_factory.mktemp("disk")
    with zygote(folder / "log", LD_PRELOAD=str(built(folder))) as started:
        yield started


async def record_on(
    programs: Zygote,
    tested: DatabaseUnderTest,
    watched: Path,
    *,
    record_timeout: float = 0.3,
    hurried: bool = False,
    **disk: object,
) -> tuple[int, set[int]]:
    """Record thirty calls while the disk of the `watched` files is as told; how the program ended, and what was
    acknowledged to it."""
    notes = tested.home.with_suffix(".notes")
    environment = {"DISK_FOLDER": str(watched), **{f"DISK_{name.upper()}": str(value) for name, value in disk.items()}}
    process = programs.start(
        "record",
        url=tested.url,
        notes=str(notes),
        numbers=(0, 30),
        callers=10,
        spool_dir=str(tested.spool_dir),
        record_timeout=record_timeout,
        hurried=hurried,
        environment=environment,
    )
    return await asyncio.to_thread(process.wait), acknowledged(notes)


async def test_whatever_write_fails_no_acknowledged_call_is_lost(
    programs: Zygote, new_sqlite: MakeDatabase, tmp_path: Path
) -> None:
    """The first write fails, then the second, and so on, of which the default run tries some; a long run goes on until
    none fails any more."""
    told, step = tmp_path / "told", 1 if FULL or CHAOS else 7
    for at in count(1, step):
        for error in (errno.EIO, errno.ENOSPC) if CHAOS else ((errno.EIO, errno.ENOSPC)[at % 2],):
            sys.stdout.write(f"the {at}th write fails with {errno.errorcode[error]}\n")
            tested = new_sqlite()
            _, noted = await record_on(programs, tested, tested.home, fail_at=at, failures=1, error=error, told=told)
            await check(tested, noted, range(30))
        if not told.exists() or (at + step > 30 and not CHAOS):
            break
        told.unlink()
    assert at + step > 30


@pytest.mark.parametrize("at", [1, 15, 25])
async def test_a_disk_that_stays_full_loses_nothing_that_was_acknowledged(
    at: int, programs: Zygote, new_sqlite: MakeDatabase
) -> None:
    tested = new_sqlite()
    _, noted = await record_on(programs, tested, tested.home, fail_at=at, error=errno.ENOSPC)
    await check(tested, noted, range(30))


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EROFS])
async def test_calls_wait_in_the_spool_while_the_store_cannot_be_written(
    error: int, programs: Zygote, new_sqlite: MakeDatabase
) -> None:
    tested = new_sqlite()
    async with tested.open():
        pass
    store = tested.home / "calls.db"
    ended = await record_on(programs, tested, store, fail_at=1, error=error, record_timeout=LONG, hurried=True)
    assert ended == (0, set(range(30)))
    assert tested.spool.counts().waiting == 30
    assert await check(tested, range(30), range(30)) == set(range(30))


async def test_a_loss_of_power_takes_no_commit_with_it(programs: Zygote, new_sqlite: MakeDatabase) -> None:
    """What was not synced is undone, as a disk with a cache would have it."""
    forgotten = [await lose_power_once(programs, new_sqlite(), dice) for dice in rounds(3, 200)]
    more = random.Random(SEED)
    while not any(forgotten):  # between a sync and the next change there is nothing to forget
        assert len(forgotten) < 50
        forgotten.append(await lose_power_once(programs, new_sqlite(), more))


async def lose_power_once(programs: Zygote, tested: DatabaseUnderTest, dice: random.Random, **options: object) -> int:
    """Record until the power fails, and check the file. Return how many changes the disk lost."""
    log, notes, ready = (tested.home.with_suffix(f".{name}") for name in ("undo", "notes", "ready"))
    process = programs.start(
        "record",
        url=tested.url,
        notes=str(notes),
        numbers=(0, 100_000),
        callers=8,
        each=100,
        spool_dir=str(tested.spool_dir),
        ready=str(ready),
        environment={"DISK_FOLDER": str(tested.home), "DISK_UNDO": str(log)},
        **options,
    )
    await asyncio.to_thread(until, ready.exists)
    await asyncio.to_thread(time.sleep, 0.4 * dice.random())
    process.kill()
    assert await asyncio.to_thread(process.wait) == -9
    forgotten = lose_power(log, dice)
    for shared in tested.home.glob("*-shm"):
        shared.unlink()
    await check(tested, acknowledged(notes), range(100_000))
    return forgotten


async def test_a_loss_of_power_takes_no_spooled_call_with_it(programs: Zygote, tmp_path: Path) -> None:
    for number, dice in enumerate(rounds(2, 100)):
        await lose_power_while_spooling(programs, tmp_path / f"spool-{number}", dice)


async def lose_power_while_spooling(programs: Zygote, folder: Path, dice: random.Random, **options: object) -> None:
    """Record during an outage until the power fails, and check the spool."""
    folder.mkdir()
    away = "postgresql://postgres@127.0.0.1:1/away"
    log, notes, spool_dir = folder.with_suffix(".undo"), folder.with_suffix(".notes"), folder / "state" / "spool"
    process = programs.start(
        "record",
        url=away,
        notes=str(notes),
        numbers=(0, 100_000),
        callers=8,
        spool_dir=str(spool_dir),
        environment={"DISK_FOLDER": str(folder), "DISK_UNDO": str(log)},
        **options,
    )
    await asyncio.to_thread(until, notes.exists)
    await asyncio.to_thread(until, lambda: notes.stat().st_size > 0)
    await asyncio.to_thread(time.sleep, 0.3 * dice.random())
    process.kill()
    assert await asyncio.to_thread(process.wait) == -9
    lose_power(log, dice)
    spool = Spool(target(parse(away)[0]) or "", spool_dir)
    missing = acknowledged(notes) - spooled(spool)
    assert not missing, f"{len(missing)} acknowledged calls are gone"
