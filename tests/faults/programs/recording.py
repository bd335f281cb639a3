"""Programs that record calls, and note each in a file once it is acknowledged."""

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

from llmbridge import LLMDatabase
from llmbridge.errors import StorageError

NUMBER_BYTES = 8


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


def books(url: str, options: dict[str, Any]) -> LLMDatabase:
    made = defects.backend(url)
    if made is not None:
        return LLMDatabase(backend=made, **options)
    return LLMDatabase(url, **options)


def record(
    url: str,
    notes: str,
    numbers: tuple[int, int],
    *,
    callers: int = 16,
    each: int | None = None,
    ready: str | None = None,
    shared: tuple[int, int] | None = None,
    backwards: bool = False,
    seconds: float | None = None,
    calm: bool = False,
    **options: Any,
) -> int:
    """Open the books, record a few calls at once, close, and again, up to the last number or for so many `seconds`.
    `each` is how many calls lie between an opening and the closing (None: all). Those of `shared` are recorded too,
    one after each of one's own. The exit code is 1 where a call was not acknowledged, and with
    `calm` 3 where the store made any trouble: a batch tried again, or a call spooled."""
    noted = Notes(notes)
    chosen = list(range(*numbers))
    if shared is not None:
        chosen = [number for both in zip(chosen, range(*shared), strict=False) for number in both]
    if backwards:
        chosen.reverse()
    until = time.monotonic() + (seconds or 3600)
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
            async with books(url, options) as db:
                if ready is not None:
                    Path(ready).touch()
                mine = iter(some)
                await asyncio.gather(*(caller(db, mine) for _ in range(callers)))
                counts = db.metrics()
                troubles += counts["batches_retried"] + counts["calls_spooled"]

    asyncio.run(main())
    for error in failures[:3]:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
    if failures:
        return 1
    return 3 if calm and troubles else 0


def _portions(numbers: list[int], size: int | None) -> Iterator[list[int]]:
    if size is None:
        yield numbers
        return
    for start in itertools.count(0, size):
        if start >= len(numbers):
            return
        yield numbers[start : start + size]
