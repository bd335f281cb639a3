"""Calls of a stopped or forgotten batch writer are saved once, by the process that accepted them."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
from collections.abc import Sequence

import pytest

from llmbridge._recording.bounded_queue import BoundedQueue, PendingCall
from llmbridge._recording.rescue import Rescue
from llmbridge.errors import StorageUnavailableError
from llmbridge.schemas import CallRecord
from llmbridge.testing import make_call


class Writer:
    """Holds calls as a batch writer does."""


class Place:
    """Where calls are saved."""

    def __init__(self, error: Exception | None = None) -> None:
        self.saved: list[CallRecord] = []
        self.error = error

    def save(self, calls: Sequence[CallRecord]) -> None:
        if self.error is not None:
            raise self.error
        self.saved += calls


def pending(number: int) -> PendingCall:
    return PendingCall(make_call(number), asyncio.get_running_loop().create_future(), 0.0, 0)


async def test_what_a_forgotten_writer_holds_is_saved_batch_first() -> None:
    place, writer, queue = Place(), Writer(), BoundedQueue()
    batch = [[pending(1)], [pending(2)]]
    queue.add(pending(3))
    rescue = Rescue(place.save)
    rescue.watch(writer, queue, batch)
    rescue.accept()
    del writer
    gc.collect()
    assert place.saved == [make_call(number) for number in (1, 2, 3)]


async def test_after_the_watch_has_ended_nothing_is_saved() -> None:
    place, writer, queue = Place(), Writer(), BoundedQueue()
    queue.add(pending(1))
    rescue = Rescue(place.save)
    rescue.accept()
    rescue.watch(writer, queue, []).detach()
    del writer
    gc.collect()
    assert place.saved == []


@pytest.mark.parametrize("rescue", [Rescue(None), Rescue(Place(StorageUnavailableError("full")).save)])
async def test_calls_that_cannot_be_saved_are_logged(rescue: Rescue, caplog: pytest.LogCaptureFixture) -> None:
    writer, queue = Writer(), BoundedQueue()
    queue.add(pending(1))
    rescue.watch(writer, queue, [])
    rescue.accept()
    del writer
    gc.collect()
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert record.getMessage().startswith("1 calls are lost: the database was never closed, and ")


async def test_a_forked_child_saves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    place, writer, queue = Place(), Writer(), BoundedQueue()
    queue.add(pending(1))
    rescue = Rescue(place.save)
    rescue.watch(writer, queue, [])
    rescue.accept()
    monkeypatch.setattr(os, "getpid", lambda: -1)
    assert rescue.is_foreign
    del writer
    gc.collect()
    assert place.saved == []


async def test_a_forked_child_saves_what_it_accepts_with_a_writer_that_its_parent_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    place, writer, queue = Place(), Writer(), BoundedQueue()
    rescue = Rescue(place.save)
    rescue.watch(writer, queue, [])
    monkeypatch.setattr(os, "getpid", lambda: -1)
    rescue.accept()
    queue.add(pending(1))
    del writer
    gc.collect()
    assert place.saved == [make_call(1)]


async def test_without_a_place_saving_fails() -> None:
    with pytest.raises(StorageUnavailableError, match="there is no spool"):
        Rescue(None).save([pending(1)])


async def test_a_call_that_cannot_be_saved_takes_no_other_with_it(caplog: pytest.LogCaptureFixture) -> None:
    saved: list[CallRecord] = []

    def save(calls: Sequence[CallRecord]) -> None:
        if make_call(2) in calls:
            raise RecursionError
        saved.extend(calls)

    writer, queue = Writer(), BoundedQueue()
    for number in range(5):
        queue.add(pending(number))
    rescue = Rescue(save)
    rescue.watch(writer, queue, [])
    rescue.accept()
    del writer
    gc.collect()
    assert saved == [make_call(number) for number in (0, 1, 3, 4)]
    assert "1 calls are lost" in caplog.text
