"""A store is started once, by one owner, and left as it was found when that fails."""

from __future__ import annotations

import asyncio
import gc

import pytest

from llmbridge._store.session import StoreSession
from llmbridge.errors import StorageClosedError, StorageUnavailableError
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


async def nothing(_: StorageBackend) -> None:
    pass


async def refuse(_: StorageBackend) -> None:
    raise StorageUnavailableError("away")


async def test_a_caller_who_gives_up_does_not_take_the_start_from_the_others() -> None:
    store = Slow()
    session = StoreSession(store, migrate="auto", prepare=nothing)
    impatient, patient = asyncio.create_task(session.start()), asyncio.create_task(session.start())
    await store.opening.wait()
    impatient.cancel()
    store.may_open.set()
    await patient
    assert session.started


async def test_a_failed_start_leaves_nothing_open() -> None:
    store = Slow()
    store.may_open.set()
    session = StoreSession(store, migrate="auto", prepare=refuse)
    with pytest.raises(StorageUnavailableError):
        await session.start()
    assert store.disconnects == 1
    await asyncio.to_thread(asyncio.run, _fails(session))


async def _fails(session: StoreSession) -> None:
    with pytest.raises(StorageUnavailableError):
        await session.start()


async def test_stopping_waits_for_a_start_and_then_closes() -> None:
    store = Slow()
    session = StoreSession(store, migrate="auto", prepare=nothing)
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
    session = StoreSession(store, migrate="auto", prepare=nothing)
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
    session = StoreSession(backend, migrate="auto", prepare=nothing)
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

    session = StoreSession(Away(), migrate="auto", prepare=nothing)
    for _ in range(2):
        with pytest.raises(StorageUnavailableError):
            await asyncio.to_thread(asyncio.run, session.schema_status())


def test_an_event_loop_that_ends_is_no_error_of_a_backend() -> None:
    session = StoreSession(MemoryBackend(), migrate="auto", prepare=nothing)
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
