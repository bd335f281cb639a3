"""Programs that record calls, and write each acknowledged call into a file."""

from __future__ import annotations

import asyncio
import itertools
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import defects
from calls import numbered
from stores import backend

from llmbridge import LLMDatabase
from llmbridge.errors import StorageError

NUMBER_BYTES = 8
#: The first of the calls that processes share, and how many of them at a time.
SHARED = 100_000_000
SHARED_AT_ONCE = 200


class Notes:
    """What was acknowledged, in a file that survives the process."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def add(self, number: int) -> None:
        os.write(self._file, number.to_bytes(NUMBER_BYTES, "big"))


def run(program: str, arguments: dict[str, Any]) -> int | None:
    """Run a program by its name, in its environment and with the defect that it is to have."""
    os.environ.update(arguments.pop("environment", {}))
    defects.apply(arguments.pop("defect", None))
    return globals()[program](**arguments)


def database(url: str, options: dict[str, Any]) -> LLMDatabase:
    return LLMDatabase(backend=backend(url), **options)


def record(
    url: str,
    notes: str,
    numbers: tuple[int, int],
    *,
    callers: int = 16,
    each: int | None = None,
    ready: str | None = None,
    crossing: str | None = None,
    seconds: float | None = None,
    calm: bool = False,
    hurried: bool = False,
    **options: Any,
) -> int:
    """Open a database, record a few calls at once and close it, repeatedly, up to the last number or for `seconds`.
    `each` is how many calls lie between an opening and the closing (None: all). With `crossing`, `up` or `down`, every
    other call is one that other processes record at the same time, in that order. The exit code is 1 where a call was
    not acknowledged, and with `calm` 3 where the store made any trouble: an outage, a batch tried again, or a call
    spooled. With `hurried` the store is known to be away as soon as it has failed: the clock is set forward."""
    noted = Notes(notes)
    chosen = range(*numbers)
    until = time.monotonic() + (3600 if seconds is None else seconds)
    failures: list[StorageError] = []

    async def caller(db: LLMDatabase, mine: Iterator[int]) -> None:
        for number in mine:
            if time.monotonic() > until:
                return
            try:
                await db.record_api_call(numbered(number))
            except StorageError as error:
                failures.append(error)
            else:
                noted.add(number)

    troubles = 0

    async def main() -> None:
        nonlocal troubles
        for some in _portions(chosen, each):
            db = database(url, options)
            await db.open()
            hurrying = asyncio.create_task(_hurry(db, options["record_timeout"])) if hurried else None
            if ready is not None:
                Path(ready).touch()
            mine = _crossed(some, crossing)
            await asyncio.gather(*(caller(db, mine) for _ in range(callers)))
            if hurrying is not None:
                await hurrying
            await db.close()
            counts = db.metrics()
            troubles += counts["batches_retried"] + counts["calls_spooled"] + counts["outages"]

    asyncio.run(main())
    for error in failures[:3]:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
    if failures:
        return 1
    return 3 if calm and troubles else 0


async def _hurry(db: LLMDatabase, record_timeout: float) -> None:
    """Set the clock of the event loop forward until the store is known to be away."""
    loop = asyncio.get_running_loop()
    clock, passed = loop.time, 0.0
    loop.time = lambda: clock() + passed  # type: ignore[method-assign]
    while not db.metrics()["outages"]:
        passed += record_timeout
        await asyncio.sleep(0.01)


def _crossed(numbers: range, crossing: str | None) -> Iterator[int]:
    """Numbers of one's own, and between them such as the clock has for every process."""
    for count, number in enumerate(numbers):
        yield number
        if crossing is not None:
            place = count % SHARED_AT_ONCE
            window = int(time.time() * 5) % 100_000 * SHARED_AT_ONCE
            yield SHARED + window + (place if crossing == "up" else SHARED_AT_ONCE - 1 - place)


def _portions(numbers: range, size: int | None) -> Iterator[range]:
    if size is None:
        yield numbers
        return
    for start in itertools.count(0, size):
        if start >= len(numbers):
            return
        yield numbers[start : start + size]
