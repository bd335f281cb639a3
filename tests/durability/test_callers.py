"""Callers that are cancelled at any await, and calls that a database can never store."""

from __future__ import annotations

import asyncio
import random
from typing import Any

from llmbridge import LLMDatabase
from llmbridge._recording.batch_writer import BatchWriter
from llmbridge.errors import RecordRejectedError, StorageError
from llmbridge.schemas import CallRecord

from .conftest import MakeDatabase
from .databases import LONG, DatabaseUnderTest, check
from .programs.calls import numbered
from .rounds import rounds

AT_ONCE = 100


async def cancel_some(db: LLMDatabase, numbers: range, dice: random.Random, timeout: float = LONG) -> set[int]:
    """Record calls at once while a third of their callers leave; the numbers of those that were acknowledged."""

    async def record(number: int) -> int:
        await db.record_api_call(numbered(number))
        return number

    callers = [asyncio.create_task(record(number)) for number in numbers]
    for caller in dice.sample(callers, len(callers) // 3):
        for _ in range(dice.randrange(4)):
            await asyncio.sleep(dice.choice((0, 0, 0, 0.0005)))
        caller.cancel()
    _, forgotten = await asyncio.wait(callers, timeout=timeout)
    for caller in forgotten:
        caller.cancel()
    outcomes = await asyncio.gather(*callers, return_exceptions=True)
    assert not forgotten, f"{len(forgotten)} callers were forgotten"
    others = [outcome for outcome in outcomes if not isinstance(outcome, int | asyncio.CancelledError)]
    assert not others, others[0]
    assert len([outcome for outcome in outcomes if isinstance(outcome, int)]) >= len(callers) * 2 // 3
    return {outcome for outcome in outcomes if isinstance(outcome, int)}


async def cancel_rounds(tested: DatabaseUnderTest, usual: int, chaos: int, timeout: float = LONG) -> None:
    acknowledged: set[int] = set()
    last = 0
    for dice in rounds(usual, chaos):
        db = tested.open()
        try:
            for _ in range(dice.randrange(1, 4)):
                acknowledged |= await cancel_some(db, range(last, last + AT_ONCE), dice, timeout)
                last += AT_ONCE
        finally:
            await db.close()
    await check(tested, acknowledged, range(last))


async def test_callers_who_leave_at_any_await_take_nothing_along(new_database: MakeDatabase) -> None:
    tested = new_database()
    await cancel_rounds(tested, 10, 250)


async def open_and_close(db: LLMDatabase, numbers: range, dice: random.Random) -> set[int]:
    """Record calls while others open, close, ask and leave; the numbers of those that were acknowledged."""

    async def record(number: int) -> int:
        await db.record_api_call(numbered(number))
        return number

    going: list[asyncio.Task[Any]] = []
    for number in numbers:
        going.append(asyncio.create_task(record(number)))
        match dice.randrange(30):
            case 0:
                going.append(asyncio.create_task(db.close(timeout=dice.choice((0, 0.01, 1)))))
            case 1 | 2:
                going.append(asyncio.create_task(db.open()))
            case 3:
                going.append(asyncio.create_task(db.usage()))
            case 4:
                going.append(asyncio.create_task(db.forget("nobody")))
            case 5 | 6:
                dice.choice(going).cancel()
            case 7 | 8:
                await asyncio.sleep(dice.choice((0, 0.001, 0.01)))
    async with asyncio.timeout(LONG):
        outcomes = await asyncio.gather(*going, return_exceptions=True)
    expected = StorageError | asyncio.CancelledError
    others = [out for out in outcomes if isinstance(out, BaseException) and not isinstance(out, expected)]
    assert not others, others[0]
    return {outcome for outcome in outcomes if isinstance(outcome, int)}


async def test_callers_cancelled_at_any_await_of_opening_and_closing_lose_no_call(new_database: MakeDatabase) -> None:
    tested = new_database()
    acknowledged: set[int] = set()
    last = 0
    for dice in rounds(10, 250):
        db = tested.open(record_timeout=dice.choice((0.1, 5)))
        try:
            acknowledged |= await open_and_close(db, range(last, last + AT_ONCE), dice)
            await db.open()
        finally:
            await db.close()
        last += AT_ONCE
    await check(tested, acknowledged, range(last))


def unstorable(number: int) -> CallRecord:
    """A call that core would have refused, and no store holds."""
    return numbered(number).model_copy(update={"prompt_tokens": 2**63})


def with_poison(dice: random.Random) -> tuple[list[CallRecord], set[int]]:
    poison = set(dice.sample(range(500), dice.randrange(1, 51)))
    return [unstorable(number) if number in poison else numbered(number) for number in range(500)], poison


async def test_calls_that_no_store_holds_fail_alone(new_database: MakeDatabase) -> None:
    for dice in rounds(3, 250):
        calls, poison = with_poison(dice)
        tested = new_database()
        backend = tested.backend()
        async with backend:
            await backend.apply_migrations()
            recorder = BatchWriter(backend.record_calls, timeout=LONG)
            outcomes = await asyncio.gather(*map(recorder.record, calls), return_exceptions=True)
            await recorder.close()
        rejected = {number for number, outcome in enumerate(outcomes) if isinstance(outcome, RecordRejectedError)}
        assert rejected == poison
        assert await check(tested, set(range(500)) - poison, range(500)) == set(range(500)) - poison


async def test_calls_that_no_store_holds_are_set_aside_and_do_not_keep_the_others_waiting(
    new_database: MakeDatabase,
) -> None:
    for dice in rounds(2, 250):
        calls, poison = with_poison(dice)
        tested = new_database()
        async with tested.open():
            pass
        tested.spool.put(calls)
        async with tested.open() as db:
            async with asyncio.timeout(LONG):
                while db.metrics()["calls_replayed"] + db.metrics()["calls_set_aside"] < 500:
                    await asyncio.sleep(0.01)
        await check(tested, set(range(500)) - poison, range(500), set_aside=len(poison))
