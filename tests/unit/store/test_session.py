"""A database is started once, by one owner, and is closed again if the start fails."""

from __future__ import annotations

import asyncio
import gc
from datetime import UTC, datetime

import pytest

from llmbridge._store.session import StoreSession
from llmbridge.errors import StorageClosedError, StorageError, StorageUnavailableError
from llmbridge.storage import StorageBackend
from llmbridge.storage.memory import MemoryBackend


class Slow(MemoryBackend):
    """A store whose opening waits for the test."""

    def __init__(self) -> None:
        super().__init__()
        self.may_open = asyncio.Event()
        self.opening = asyncio.Event()
        self.disconnects = 0

    async def connect(self) -> None:
        self.opening.set()
        await self.may_open.wait()
        await super().connect()

    async def disconnect(self) -> None:
        self.disconnects += 1
        await super().disconnect()


async def refuse(_: StorageBackend) -> None:
    raise StorageUnavailableError("away")


async def test_a_caller_who_gives_up_does_not_take_the_start_from_the_others() -> None:
    store = Slow()
    session = StoreSession(store, migrate="auto")
    impatient, patient = asyncio.create_task(session.start()), asyncio.create_task(session.start())
    await store.opening.wait()
    impatient.cancel()
    store.may_open.set()
    await patient
    assert session.started


async def test_a_failed_start_leaves_nothing_open() -> None:
    store = Slow()
    store.may_open.set()
    session = StoreSession(store, migrate="auto")
    session.on_start(refuse)
    with pytest.raises(StorageUnavailableError):
        await session.start()
    assert store.disconnects == 1
    await asyncio.to_thread(asyncio.run, _fails(session))


async def _fails(session: StoreSession) -> None:
    with pytest.raises(StorageUnavailableError):
        await session.start()


async def test_stopping_waits_for_a_start_and_then_closes() -> None:
    store = Slow()
    session = StoreSession(store, migrate="auto")
    starting = asyncio.create_task(session.start())
    await store.opening.wait()
    stopping = asyncio.create_task(session.stop(timeout=30))
    await asyncio.sleep(0)
    store.may_open.set()
    await asyncio.gather(starting, stopping)
    assert store.disconnects == 1
    with pytest.raises(StorageClosedError):
        await session.start()
    session.reopen()
    await session.start()
    await session.stop(timeout=30)


async def test_stopping_gives_up_a_start_that_hangs() -> None:
    store = Slow()
    session = StoreSession(store, migrate="auto")
    starting = asyncio.create_task(session.start())
    await store.opening.wait()
    await session.stop(timeout=0.01)
    with pytest.raises(StorageClosedError):
        await starting


async def test_what_is_asked_while_a_store_closes_does_not_open_it_again() -> None:
    class Lingering(Slow):
        async def disconnect(self) -> None:
            await super().disconnect()
            closing.set()
            await may_close.wait()

    closing, may_close = asyncio.Event(), asyncio.Event()
    backend = Lingering()
    backend.may_open.set()
    session = StoreSession(backend, migrate="auto")
    await session.start()
    stopping = asyncio.create_task(session.stop(60))
    await closing.wait()
    backend.opening.clear()
    with pytest.raises(StorageClosedError):
        await session.start()
    may_close.set()
    await stopping
    assert not backend.opening.is_set()
    assert not session.started


async def test_a_look_at_the_schema_that_fails_binds_no_loop() -> None:
    class Away(MemoryBackend):
        async def connect(self) -> None:
            raise StorageUnavailableError("away")

    session = StoreSession(Away(), migrate="auto")
    for _ in range(2):
        with pytest.raises(StorageUnavailableError):
            await asyncio.to_thread(asyncio.run, session.schema_status())


async def test_errors_of_a_backend_become_llmbridge_s_own_without_passwords() -> None:
    class Broken(MemoryBackend):
        async def ping(self) -> None:
            raise ZeroDivisionError

        async def purge_calls(self, before: datetime) -> int:
            raise StorageUnavailableError("cannot reach postgresql://user:hunter2@db/shop")

    session = StoreSession(Broken(), migrate="auto")
    with pytest.raises(StorageError, match=r"Broken raised ZeroDivisionError, .*report it to its authors"):
        await session.call(lambda backend: backend.ping())
    with pytest.raises(StorageUnavailableError, match=r"user:\*\*\*@db"):
        await session.call(lambda backend: backend.purge_calls(datetime.now(UTC)))
    await session.stop(timeout=30)


async def test_an_error_of_what_uses_a_backend_is_not_taken_for_the_backend_s() -> None:
    async def use(backend: StorageBackend) -> None:
        await backend.ping()
        raise ZeroDivisionError

    session = StoreSession(MemoryBackend(), migrate="auto")
    with pytest.raises(ZeroDivisionError):
        await session.call(use)
    await session.stop(timeout=30)


async def test_start_steps_run_in_order_at_each_start_until_they_are_removed() -> None:
    ran: list[str] = []

    async def first(backend: StorageBackend) -> None:
        await backend.ping()
        ran.append("first")

    async def second(_: StorageBackend) -> None:
        ran.append("second")

    session = StoreSession(MemoryBackend("steps"), migrate="auto")
    remove = session.on_start(first)
    session.on_start(second)
    for _ in range(2):
        await asyncio.gather(session.start(), session.start())
        await session.stop(timeout=30)
        session.reopen()
        remove()
        remove()
    assert ran == ["first", "second", "second"]


def test_an_event_loop_that_ends_is_no_error_of_a_backend() -> None:
    session = StoreSession(MemoryBackend(), migrate="auto")
    calls: list[asyncio.Task[None]] = []
    endings: list[BaseException] = []

    async def call() -> None:
        try:
            await session.call(lambda _: asyncio.sleep(3600))
        except BaseException as error:
            endings.append(error)
            raise

    async def begin_at_the_end() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            calls.append(asyncio.create_task(call()))

    async def main() -> None:
        calls.append(asyncio.create_task(begin_at_the_end()))
        await asyncio.sleep(0)

    asyncio.run(main())
    calls.clear()
    gc.collect()
    assert [type(ending) for ending in endings] == [GeneratorExit]
