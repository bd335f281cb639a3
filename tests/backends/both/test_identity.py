"""Calls that wait on a machine get into the database that they were recorded for, wherever it is, and into no other."""

from __future__ import annotations

import asyncio
import random
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from uuid import UUID

import pytest

from llmbridge import LLMDatabase
from llmbridge._recording.spool import Spool
from llmbridge._shared.ids import made_at
from llmbridge.plugins import create_backend
from llmbridge.storage import CallQuery, StorageBackend

from ...support.postgres_server import Server


class FilePlace:
    """A file in a folder of its own."""

    #: A file that is deleted while it is open takes the log of the next one of its name along, when it is closed.
    is_deleted_while_open = False

    def __init__(self, folder: Path) -> None:
        self._home = folder / "here"
        self.url = f"sqlite:///{self._home}/calls.db"
        self.elsewhere = f"sqlite:///{folder}/there/calls.db"

    @contextmanager
    def away(self) -> Iterator[None]:
        """The database cannot be reached; it can be deleted."""
        hidden = self._home.with_name("hidden")
        self._home.rename(hidden)
        self._home.touch()
        try:
            yield
        finally:
            self._home.unlink()
            hidden.rename(self._home)

    def delete(self) -> set[UUID]:
        """Delete the database, which is away, and return the ids of its calls. Nothing is at its address then."""
        hidden = self._home.with_name("hidden")
        with closing(sqlite3.connect(hidden / "calls.db")) as file:
            ids = {UUID(bytes=row[0]) for row in file.execute("SELECT id FROM llmbridge_calls")}
        for file in hidden.glob("calls.db*"):
            file.unlink()
        return ids

    def move(self) -> None:
        """Move the database to another address."""
        self._home.rename(self._home.with_name("there"))

    def restore(self) -> None:
        """Restore a backup of the database at another address."""
        there = self._home.with_name("there")
        there.mkdir()
        source, target = sqlite3.connect(self._home / "calls.db"), sqlite3.connect(there / "calls.db")
        with closing(source), closing(target):
            source.backup(target)


class SchemaPlace:
    """A schema of a database."""

    is_deleted_while_open = True

    def __init__(self, server: Server, database: str) -> None:
        self._server, self._database, self._copy = server, database, f"{database}_copy"
        self.url = server.database_url(database, schema="here")
        self.elsewhere = server.database_url(self._copy, schema="here")

    @contextmanager
    def away(self) -> Iterator[None]:
        """The database cannot be reached; it can be deleted."""
        with self._server.without(self._database):
            yield

    def delete(self) -> set[UUID]:
        """Delete the database, which is away, and return the ids of its calls. Nothing is at its address then."""
        self._server.run(f"ALTER DATABASE {self._database} ALLOW_CONNECTIONS true")
        select = "SELECT id FROM here.llmbridge_calls"
        ids = {row["id"] for row in self._server.run(select, database=self._database)}
        self._server.run("DROP SCHEMA here CASCADE", database=self._database)
        self._server.run(f"ALTER DATABASE {self._database} ALLOW_CONNECTIONS false")
        return ids

    def move(self) -> None:
        """Move the database to another address."""
        self._server.run(f"ALTER DATABASE {self._database} RENAME TO {self._copy}")

    def restore(self) -> None:
        """Restore a backup of the database at another address."""
        self._server.run(f"CREATE DATABASE {self._copy} TEMPLATE {self._database}")

    def drop(self) -> None:
        for name in (self._database, self._copy):
            self._server.run(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


Place = FilePlace | SchemaPlace


@pytest.fixture(params=["sqlite", "postgres"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """A database that nobody has made yet."""
    if request.param == "sqlite":
        folder = tmp_path / "databases"
        (folder / "here").mkdir(parents=True)
        yield FilePlace(folder)
        shutil.rmtree(folder)
        return
    server: Server = request.getfixturevalue("server")
    with server.database(drop=False) as name:
        found = SchemaPlace(server, name)
        try:
            yield found
        finally:
            found.drop()


@pytest.fixture
def spool_dir(tmp_path: Path) -> Path:
    return tmp_path / "spool"


def opened(url: str, spool_dir: Path) -> LLMDatabase:
    return LLMDatabase(url, spool_dir=spool_dir, record_timeout=0.3)


def backend_of(url: str) -> StorageBackend:
    backend = create_backend(url)
    assert backend is not None
    return backend


async def make(url: str) -> str:
    """Make the database if there is none; its identity."""
    async with backend_of(url) as backend:
        await backend.apply_migrations()
        identity = (await backend.schema_status()).identity
    assert identity is not None
    return identity


async def stored(url: str) -> set[UUID]:
    async with backend_of(url) as backend:
        return {call.id for call in (await backend.list_calls(CallQuery(limit=1000))).calls}


async def record(db: LLMDatabase, count: int = 3) -> set[UUID]:
    """Record calls; the ids of those that are acknowledged."""
    ids = [
        await db.record_api_call(origin="o", provider="p", model_name="m", estimated_cost="0.1") for _ in range(count)
    ]
    return {found for found in ids if found is not None}


async def spooled(place: Place, spool_dir: Path) -> set[UUID]:
    """Calls that a process spools while a database that it has reached is away."""
    async with opened(place.url, spool_dir) as db:
        with place.away():
            calls = await record(db)
            assert db.metrics()["calls_spooled"] == 3
            await db.close()
    return calls


async def replayed(db: LLMDatabase, timeout: float = 60) -> None:
    async with asyncio.timeout(timeout):
        while (status := await db.spool_status()) is not None and status.waiting:
            await asyncio.sleep(0.01)


async def test_the_identity_is_made_with_the_database(place: Place) -> None:
    identity = await make(place.url)
    assert made_at(identity) is not None
    assert await make(place.url) == identity
    with place.away():
        place.delete()
    assert await make(place.url) != identity


async def test_a_database_that_was_moved_gets_the_calls_that_wait_for_it(place: Place, spool_dir: Path) -> None:
    calls = await spooled(place, spool_dir)
    place.move()
    async with opened(place.elsewhere, spool_dir) as db:
        await replayed(db)
        assert await stored(place.elsewhere) == calls
        assert await db.spool_status() is not None


async def test_a_database_restored_from_a_backup_keeps_its_identity_and_gets_its_calls(
    place: Place, spool_dir: Path
) -> None:
    calls = await spooled(place, spool_dir)
    place.restore()
    assert await make(place.elsewhere) == await make(place.url)
    async with opened(place.elsewhere, spool_dir) as db:
        await replayed(db)
        assert await stored(place.elsewhere) == calls


async def test_a_copy_is_another_database(place: Place, spool_dir: Path, tmp_path: Path) -> None:
    identity = await make(place.url)
    copy_url = f"sqlite:///{tmp_path}/copy.db"
    async with opened(place.url, spool_dir) as source, opened(copy_url, spool_dir) as target:
        before = await record(source)
        await source.copy_to(target)
    waiting = await spooled(place, spool_dir)
    assert await make(copy_url) != identity
    async with opened(copy_url, spool_dir) as target:
        assert await record(target, 1)
        assert len(await stored(copy_url)) == len(before) + 1
    async with opened(place.url, spool_dir) as source:
        await replayed(source)
        assert await stored(place.url) == before | waiting


async def test_another_database_at_the_address_gets_no_call_until_it_is_adopted(place: Place, spool_dir: Path) -> None:
    async with opened(place.url, spool_dir) as db:
        with place.away():
            calls = await record(db)
            place.delete()
            await db.close()
    await make(place.url)
    async with opened(place.url, spool_dir) as db:
        own = await record(db)
        status = await db.spool_status()
        assert status is not None
        assert (status.waiting, status.to_adopt) == (0, 3)
        (file,) = await db.spool_files()
        assert (file.target, file.waiting) == (db.backend and db.backend.target, 3)
        assert await stored(place.url) == own
        assert await db.adopt_spool(file.name) == 3
        await replayed(db)
        assert await stored(place.url) == own | calls


@pytest.mark.parametrize("place", ["postgres"], indirect=True)  # a SQLite file that was replaced is not written at all
async def test_a_running_process_gives_another_database_no_call_of_the_one_before(
    place: Place, spool_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(place.url, spool_dir) as db:
        with place.away():
            calls = await record(db)
            place.delete()
        await make(place.url)
        async with asyncio.timeout(60):
            while "another database is at" not in caplog.text:
                await asyncio.sleep(0.05)
        status = await db.spool_status()
        assert status is not None
        assert (status.waiting, status.to_adopt) == (0, 3)
        assert not calls & await stored(place.url)


async def test_calls_of_before_the_first_answer_get_into_a_database_that_was_there(
    place: Place, spool_dir: Path
) -> None:
    await make(place.url)
    db = opened(place.url, spool_dir)
    with place.away():
        calls = await record(db)
    await db.close()
    async with opened(place.url, spool_dir) as db:
        await replayed(db)
        assert await stored(place.url) == calls


async def test_calls_of_before_the_first_answer_do_not_get_into_a_database_that_is_made_later(
    place: Place, spool_dir: Path
) -> None:
    await make(place.url)
    db = opened(place.url, spool_dir)
    with place.away():
        calls = await record(db)
        place.delete()
    await db.close()
    await make(place.url)
    async with opened(place.url, spool_dir) as db:
        own = await record(db)
        status = await db.spool_status()
        assert status is not None
        assert (status.waiting, status.to_adopt) == (0, 3)
        assert await stored(place.url) == own
        (unbound,) = [file for file in await db.spool_files() if file.waiting]
        assert await db.discard_spool(unbound.name) == len(calls)
        assert await stored(place.url) == own


@pytest.mark.parametrize("seed", range(2))
async def test_no_acknowledged_call_is_lost_and_none_gets_into_another_database(
    seed: int, place: Place, spool_dir: Path
) -> None:
    """Processes record while databases go away, come back, and are replaced by new ones at their address."""
    dice = random.Random(seed)
    meant: dict[UUID, str | None] = {}
    of_deleted: set[UUID] = set()
    identity: str | None = await make(place.url)
    processes = [opened(place.url, spool_dir) for _ in range(3)]

    async def work() -> None:
        for _ in range(dice.randrange(1, 6)):
            number = dice.randrange(3)
            if dice.random() < 0.3:
                await processes[number].close()
                processes[number] = opened(place.url, spool_dir)
            meant.update(dict.fromkeys(await record(processes[number], dice.randrange(1, 4)), identity))

    for _ in range(8):
        await work()
        with place.away():
            await work()
            if is_replaced := dice.random() < 0.4:
                for number in () if place.is_deleted_while_open else range(3):
                    await processes[number].close()
                    processes[number] = opened(place.url, spool_dir)
                of_deleted |= place.delete()
                identity = None
                await work()
        if is_replaced:
            identity = await make(place.url)
    await work()
    for process in processes:
        await process.close()
    last = opened(place.url, spool_dir)
    async with last:
        await replayed(last)
    stored_now = await stored(place.url)
    assert {meant[call] for call in stored_now} <= {identity, None}
    spool = Spool(last.backend.target if last.backend and last.backend.target else "", spool_dir)
    files = [spool.find(file.name) for file in spool.files()]
    waiting = {found.record.id for file in files for found in file.oldest(1000) if found.record}
    assert meant.keys() <= stored_now | of_deleted | waiting
