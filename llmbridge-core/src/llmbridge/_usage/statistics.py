"""Conversion of usage rows to UsageStats and DailyAnalytics."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from .._shared.money import CONTEXT, mean, total
from ..schemas import DailyAnalytics, UsageStats
from ..storage.types import EARLIEST
from .result import UsageResult

_RATE = Decimal("0.0001")


def days_ago(days: int) -> datetime:
    """Return the time (UTC) `days` times 24 hours ago, at the earliest EARLIEST."""
    now = datetime.now(UTC)
    return now - timedelta(days=days) if days < (now - EARLIEST).days else EARLIEST


def stats(rows: Sequence[UsageResult], since: datetime) -> UsageStats | None:
    """Return the statistics of rows that are grouped by provider and model_name; None if there are no rows."""
    if not rows:
        return None
    calls = sum(row.calls for row in rows)
    unpriced = sum(row.unpriced_calls for row in rows)
    cost = total(row.cost for row in rows)
    timed = sum(row.response_time_ms_count for row in rows)
    successes = sum(row.by_status.get("success", 0) for row in rows)
    busiest = min(rows, key=lambda row: (-row.calls, row.key["provider"], row.key["model_name"]))
    return UsageStats(
        since=since,
        total_calls=calls,
        total_requests=sum(row.requests for row in rows),
        total_tokens=sum(row.total_tokens for row in rows),
        total_cost=cost,
        unpriced_calls=unpriced,
        unmeasured_calls=sum(row.unmeasured_calls for row in rows),
        avg_cost_per_call=mean(cost, calls - unpriced) if calls > unpriced else None,
        most_used_model=busiest.key["model_name"],
        success_rate=_rate(successes, calls),
        avg_response_time_ms=round(sum(row.response_time_ms_sum for row in rows) / timed) if timed else None,
    )


#: Grouping of the rows that `daily` takes.
BY_DAY = ("day", "origin", "id_at_origin", "provider", "model_name")


def daily(row: UsageResult) -> DailyAnalytics:
    """Return the analytics of a row grouped by BY_DAY."""
    statuses = row.by_status
    return DailyAnalytics(
        date=row.key["day"],
        **{name: row.key[name] for name in BY_DAY[1:]},
        total_calls=row.calls,
        total_tokens=row.total_tokens,
        total_prompt_tokens=row.prompt_tokens,
        total_completion_tokens=row.completion_tokens,
        total_cost=row.cost,
        unpriced_calls=row.unpriced_calls,
        unmeasured_calls=row.unmeasured_calls,
        avg_response_time_ms=row.response_time_mean_ms,
        success_rate=_rate(statuses.get("success", 0), row.calls),
        error_count=statuses.get("error", 0),
        timeout_count=statuses.get("timeout", 0),
        rate_limit_count=statuses.get("rate_limited", 0),
        cancelled_count=statuses.get("cancelled", 0),
    )


def _rate(part: int, whole: int) -> Decimal:
    return CONTEXT.divide(part, whole).quantize(_RATE, context=CONTEXT)
