"""Durations of statements, also of those inside transactions.

pgdbm's own monitor does not see statements inside a transaction, so this one uses asyncpg's query logger.
"""

from __future__ import annotations

from collections import deque
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg

#: Milliseconds from which a statement is slow, and how many statements are remembered.
SLOW_MS = 100
REMEMBERED = 1000


class Monitor:
    """Keeps the texts and durations of statements, never their parameters."""

    def __init__(self) -> None:
        self._recent: deque[dict[str, Any]] = deque(maxlen=REMEMBERED)
        self._executed = 0
        self._failed = 0

    def __call__(self, logged: asyncpg.connection.LoggedQuery) -> None:
        """Take asyncpg's report about a statement that has just ended."""
        now, failure = datetime.now(UTC), logged.exception
        self._executed += failure is None
        self._failed += failure is not None
        self._recent.append(
            {
                "query": logged.query,
                "start_time": now - timedelta(seconds=logged.elapsed),
                "end_time": now,
                "duration_ms": logged.elapsed * 1000,
                "error": None if failure is None else type(failure).__name__,
            }
        )

    def slow_queries(self, threshold_ms: float | None = None) -> list[dict[str, Any]]:
        """Return the remembered statements that took longer than `threshold_ms` (None: 100), oldest first."""
        threshold = SLOW_MS if threshold_ms is None else threshold_ms
        return [dict(one) for one in self._recent if one["duration_ms"] > threshold]

    def query_metrics(self) -> dict[str, Any]:
        """Return counts of all statements, and durations in ms of the remembered ones."""
        times = [one["duration_ms"] for one in self._recent]
        return {
            "timestamp": datetime.now(UTC),
            "queries_executed": self._executed,
            "queries_failed": self._failed,
            "avg_query_time_ms": sum(times) / len(times) if times else 0.0,
            "slowest_query_ms": max(times, default=0.0),
        }
