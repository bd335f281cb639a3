"""An outage is counted and logged once, from the first failure to the next success."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmbridge._recording.circuit_breaker import CircuitBreaker, DatabaseBreaker
from llmbridge._recording.metrics import Counters
from llmbridge._recording.spool import Spool
from llmbridge.errors import StorageUnavailableError

AWAY = StorageUnavailableError("no route to postgresql://user:hunter2@host/db")


def test_it_is_open_from_a_failure_to_a_success() -> None:
    breaker = CircuitBreaker()
    assert not breaker.is_open
    assert not breaker.reset()
    breaker.trip(AWAY)
    assert breaker.is_open
    assert breaker.error is AWAY
    assert breaker.reset()
    assert breaker.error is None


def test_an_outage_is_told_at_its_start_and_at_its_end(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    counters, spool = Counters(calls_spooled=5, calls_lost=1), Spool("memory:test", tmp_path)
    breaker = DatabaseBreaker("memory:test", spool, counters)
    breaker.trip(AWAY)
    breaker.trip(StorageUnavailableError("still away"))
    counters.calls_spooled += 3
    breaker.reset()
    breaker.reset()
    started, ended = (record.getMessage() for record in caplog.records)
    assert started.startswith(f"the database memory:test is away, calls wait in {spool.path} until it is back: ")
    assert ended.startswith("the database memory:test is back after ")
    assert ended.endswith("; meanwhile 3 calls were spooled and 0 lost")
    assert counters.outages == 1
    assert "hunter2" not in caplog.text


def test_without_a_spool_it_says_that_calls_are_lost(caplog: pytest.LogCaptureFixture) -> None:
    breaker = DatabaseBreaker(None, None, Counters())
    breaker.trip(AWAY)
    assert "the database is away, calls are lost until it is back" in caplog.text


def test_the_latest_error_stays_after_the_outage() -> None:
    breaker = DatabaseBreaker(None, None, Counters())
    assert breaker.last_error is None
    breaker.trip(AWAY)
    breaker.reset()
    assert breaker.last_error is not None
    assert breaker.last_error.startswith("StorageUnavailableError: no route to ")
    assert "hunter2" not in breaker.last_error
