"""The queue is bounded by the memory that its calls really take."""

from __future__ import annotations

import asyncio
import gc
import json
import time
import tracemalloc
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from llmbridge._pricing.price_book import PriceBook
from llmbridge._recording import bounded_queue
from llmbridge._recording.record_builder import complete
from llmbridge._shared.ids import new_id
from llmbridge.schemas import CallRecord

WIDE = "\U0001f600"
#: The texts that every record has, or may have, and whose length is bounded.
TEXTS = [
    name
    for name, field in CallRecord.model_fields.items()
    if field.annotation in (str, str | None) and name != "error_message"
]


def call(**changes: Any) -> CallRecord:
    tokens = {"prompt_tokens": 10**9, "completion_tokens": 10**9, "total_tokens": 2 * 10**9, "response_time_ms": 10**6}
    known = {"id": new_id(), "origin": "shop", "provider": "openai", "model_name": "gpt-4o", "estimated_cost": "0.5"}
    return complete({**known, **tokens, "called_at": datetime.now(UTC), "temperature": 0.5, **changes}, PriceBook())


#: Further fields of the calls of each kind, created for each call, as callers do.
KINDS: dict[str, Callable[[], dict[str, Any]]] = {
    "plain": dict,
    "long names": lambda: {name: "".join([name, "x" * (255 - len(name))]) for name in TEXTS},
    "wide names": lambda: {name: "".join([name, WIDE * (255 - len(name))]) for name in TEXTS},
    "a wide user": lambda: {"id_at_origin": "".join(["u", WIDE * 254])},
    "an error": lambda: {"status": "error", "error_message": "".join(["broken ", WIDE * 1_900])},
    "tools": lambda: {"tools_used": [f"{WIDE}{number}" for number in range(1_000)]},
    "no metadata": lambda: {"metadata": {}},
    "a context": lambda: {
        "metadata": json.loads('{"team": "search", "feature": "summary", "number": 1234567}'),
        "price_context": json.loads('{"service_tier": "default"}'),
    },
    "details": lambda: {"usage_details": json.loads('{"input_audio_tokens": 123456, "output_audio_tokens": 123456}')},
    "short metadata": lambda: {"metadata": json.loads('{"team": "search", "feature": "summary", "number": 1234567}')},
    "empty texts": lambda: {"metadata": {f"{number:x}": "" for number in range(40)}},
    "short wide texts": lambda: {"metadata": {f"{WIDE}{number}": f"{number}{WIDE}" for number in range(30)}},
    "many entries": lambda: {"metadata": {f"{number:x}": 1_000 + number for number in range(700)}},
    "wide text": lambda: {"metadata": {"text": "".join(["x" * 8_000, WIDE])}},
    "empty lists": lambda: {"metadata": json.loads('{"a": [' + "[]," * 2_700 + "[]]}")},
    "small objects": lambda: {"metadata": json.loads('{"a": [' + '{"":{}},' * 890 + "[]]}")},
    "one deep list": lambda: {"metadata": json.loads('{"a": ' + "[" * 31 + "]" * 31 + "}")},
    "little nested": lambda: {"metadata": json.loads('{"a": {"": {"": {"": {}}}}}')},
}


@pytest.mark.parametrize("kind", KINDS)
async def test_a_record_takes_no_more_memory_than_is_counted(kind: str) -> None:
    loop = asyncio.get_running_loop()

    def entry() -> bounded_queue.PendingCall:
        made = call(**KINDS[kind]())
        return bounded_queue.PendingCall(made, loop.create_future(), time.monotonic(), bounded_queue.size(made))

    waiting = bounded_queue.BoundedQueue()
    tracemalloc.start()
    try:
        # What the first records allocate once (the queue's blocks, caches) is no record's memory.
        for _ in range(15):
            waiting.add(entry())
        gc.collect()
        before, _ = tracemalloc.get_traced_memory()
        for _ in range(15):
            waiting.add(entry())
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    taken, counted = after - before, sum(one.size for one in list(waiting)[15:])
    assert taken <= counted
    assert counted <= max(2 * taken, 15 * 20_000)
    waiting.clear()


@pytest.mark.parametrize("kind", ["plain", "no metadata", "short metadata", "a context"])
def test_as_many_ordinary_calls_may_wait_as_the_bound_on_their_number_says(kind: str) -> None:
    assert bounded_queue.size(call(**KINDS[kind]())) * bounded_queue.MAX_PENDING <= bounded_queue.MAX_PENDING_BYTES


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_not_counted_fits_all_the_same(kind: str) -> None:
    assert bounded_queue.size(call(**KINDS[kind]())) * bounded_queue.UNCOUNTED <= bounded_queue.MAX_PENDING_BYTES


async def test_calls_are_counted_once_many_wait() -> None:
    waiting = bounded_queue.BoundedQueue()
    for _ in range(bounded_queue.UNCOUNTED + 1):
        made = call()
        settled = asyncio.get_running_loop().create_future()
        waiting.add(bounded_queue.PendingCall(made, settled, 0.0, waiting.size(made)))
    assert [entry.size for entry in waiting] == [0] * bounded_queue.UNCOUNTED + [bounded_queue.size(made)]
