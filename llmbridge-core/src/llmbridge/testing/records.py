"""Deterministic calls, models and totals for tests: the same arguments always give the same values."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from .._shared.money import from_units
from ..schemas import CallRecord, CallStatus, CostReason, LLMModel
from ..storage.reference import CELL_KEYS, GRAINS, summarize
from ..storage.types import Grain, TotalsRow, UsageQuery

#: Time of `make_call(0)`: a Sunday, one hour before the end of a month.
EPOCH = datetime(2024, 3, 31, 23, 0, tzinfo=UTC)

MAX_INT = 2**63 - 1
MAX_COST = Decimal("8999999.999999999999")

#: Texts whose order differs by code point, by UTF-16 unit, by case folding, by locale and by padded comparison.
TEXTS = (
    "Zeta",
    "alpha",
    "Alpha",
    "alpha ",
    "zeta",
    "Ångström",
    "émile",
    "\uff5e wave",
    "\U0001f600 smile",
    "it's \"%_\\",
)

_PROVIDERS = ("openai", "OpenAI", "anthropic", "google", "\uff5e wave", "\U0001f600 smile")
_MODELS = ("gpt-4o", "gpt-4o-mini", "claude-sonnet-4", "Claude-Sonnet-4", "gemini-2.5-flash")
_STATUSES: tuple[CallStatus, ...] = ("success", "success", "success", "error", "timeout", "rate_limited", "cancelled")
_ERRORS = (None, "RateLimitError", "ProviderTimeoutError", "ratelimiterror")
_TAGS: tuple[Any, ...] = (
    "search",
    "Search",
    "",
    "7",
    7,
    1.5,
    1e-07,
    True,
    False,
    None,
    ["search"],
    {"a": 1},
    "\U0001f600",
    "\uff5e",
)
_REASONS: tuple[CostReason, ...] = ("unknown_model", "unmeasured_usage", "missing_rate", "not_billed", "synthetic")


def make_id(at: datetime, number: int) -> UUID:
    """Return a UUIDv7 with the millisecond of `at`; its other bits are those of `number`."""
    ms = (at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)
    return UUID(int=(ms % 2**48 << 80) | (7 << 76) | (0b10 << 62) | (number % 2**62))


def make_call(number: int = 0, /, **changes: Any) -> CallRecord:
    """Return a successful, priced call; `changes` replace its fields.

    Calls with different numbers have different ids and start one second apart, from `EPOCH` on.
    """
    called_at = changes.get("called_at", EPOCH + timedelta(seconds=number))
    usual: dict[str, Any] = {
        "id": make_id(called_at, number),
        "origin": "kit",
        "id_at_origin": "user-1",
        "provider": "openai",
        "model_name": "gpt-4o-mini",
        "prompt_tokens": 12,
        "completion_tokens": 5,
        "total_tokens": 17,
        "usage_source": "provider",
        "estimated_cost": Decimal("0.000004800001"),
        "cost_source": "prices",
        "response_time_ms": 250,
        "called_at": called_at,
    }
    return CallRecord(**{**usual, **changes})


def make_calls(n: int, seed: int = 0, *, start: datetime = EPOCH, days: float = 3) -> list[CallRecord]:
    """Return `n` random calls spread over `days` from `start` on, unordered.

    They have every status, sums beyond 64 bits, None in every optional field, equal times, and times on the edges of
    hours and days and one microsecond beside them.
    """
    dice = random.Random(seed)  # noqa: S311
    span = int(timedelta(days=days) / timedelta(microseconds=1))
    calls: list[CallRecord] = []
    for number in range(n):
        called_at = start + timedelta(microseconds=dice.randrange(span))
        match dice.randrange(6):
            case 0:
                called_at = called_at.replace(minute=dice.choice((0, 15, 30, 45)), second=0, microsecond=0)
            case 1:
                called_at = called_at.replace(minute=59, second=59, microsecond=999_999)
            case 2 if calls:
                called_at = dice.choice(calls).called_at
        calls.append(_random_call(dice, make_id(called_at, dice.getrandbits(40) << 16 | number), max(called_at, start)))
    return calls


def _random_call(dice: random.Random, id_: UUID, called_at: datetime) -> CallRecord:
    status = dice.choice(_STATUSES)
    measured = dice.random() < 0.8
    prompt, completion = (
        (dice.choice((0, 1, 900, MAX_INT // 2)), dice.choice((0, 3, 77, MAX_INT // 2))) if measured else (None, None)
    )
    priced = dice.random() < 0.7
    cost = from_units(dice.choice((0, 1, -1, 10**9 + 7, 450_000, 9 * 10**18 - 1, 1 - 9 * 10**18))) if priced else None
    return CallRecord(
        id=id_,
        origin=dice.choice(("app", "App", *TEXTS[-3:])),
        id_at_origin=dice.choice((None, "user-1", "User-1", *TEXTS)),
        provider=dice.choice(_PROVIDERS),
        model_name=dice.choice(_MODELS),
        requested_model=dice.choice((None, "latest")),
        response_model=dice.choice((None, *_MODELS)),
        prompt_tokens=prompt,
        completion_tokens=completion,
        total_tokens=None if prompt is None or completion is None else prompt + completion,
        cache_read_tokens=dice.choice((None, 0, 64)),
        cache_write_tokens=dice.choice((None, 0, 32)),
        cache_write_1h_tokens=dice.choice((None, 0, 16)),
        reasoning_tokens=dice.choice((None, 0, 16)),
        usage_details=dice.choice((None, {}, {"input_audio_tokens": 7, "web_searches": 1})),
        usage_source="provider" if measured else "none",
        estimated_cost=cost,
        cost_source=dice.choice(("prices", "own_prices", "provider", "caller")) if priced else None,
        cost_reason=None if priced else dice.choice(_REASONS),
        price_context=dice.choice((None, {"service_tier": "priority"})),
        price_version=dice.choice((None, "2024-03")),
        price_factor=dice.choice((None, Decimal("0.780000000000"))),
        response_time_ms=dice.choice((None, 0, 1, 250, 251, 12_345, 86_400_000)),
        time_to_first_token_ms=dice.choice((None, None, 0, 40, 41, 900)),
        stream=dice.random() < 0.3,
        attempt=dice.choice((1, 1, 1, 2, 3)),
        status=status,
        error_type=None if status == "success" else dice.choice(_ERRORS),
        metadata=_random_metadata(dice),
        called_at=called_at,
    )


def _random_metadata(dice: random.Random) -> dict[str, Any] | None:
    if dice.random() < 0.2:
        return dice.choice((None, {}))
    return {"team": dice.choice(_TAGS), "cost.center": dice.choice(("a", "b")), 'say "hi"': dice.choice((1, 2))}


def make_model(provider: str = "openai", model_name: str = "gpt-4o-mini", **changes: Any) -> LLMModel:
    """Return a model in use with every field set but `inactive_from`; `changes` replace fields."""
    usual: dict[str, Any] = {
        "id": 2**63 - 25,
        "display_name": "Fünf \U0001f600",
        "description": 'Quick, small; it\'s "good".',
        "max_context": 128_000,
        "max_output_tokens": 16_384,
        "supports_vision": True,
        "supports_function_calling": True,
        "supports_json_mode": True,
        "supports_parallel_tool_calls": True,
        "tool_call_format": "openai",
        "dollars_per_million_tokens_input": Decimal("0.150000000001"),
        "dollars_per_million_tokens_output": Decimal("0.600000000000"),
        "source": "catalog 2024-03-31",
        "created_at": EPOCH,
        "updated_at": EPOCH + timedelta(microseconds=1),
    }
    return LLMModel(provider=provider, model_name=model_name, **{**usual, **changes})


def cell_of(call: CallRecord, grain: Grain) -> tuple[datetime, datetime]:
    """Return start and end (UTC) of the day or quarter of an hour that contains the call."""
    width = GRAINS[grain]
    midnight = call.called_at.replace(hour=0, minute=0, second=0, microsecond=0)
    start = midnight + (call.called_at - midnight) // width * width
    return start, start + width


def make_totals(calls: Iterable[CallRecord]) -> list[TotalsRow]:
    """Return the totals of a store that has purged exactly these calls, in the order of `read_totals`."""
    calls = list(calls)
    return [row for grain in sorted(GRAINS) for row in _totals_of_grain(calls, grain)]


def _totals_of_grain(calls: Sequence[CallRecord], grain: Grain) -> list[TotalsRow]:
    if not calls:
        return []
    edges = tuple(sorted({edge for call in calls for edge in cell_of(call, grain)}))
    rows = summarize(calls, UsageQuery(group_by=("period", *CELL_KEYS[grain]), edges=edges))
    return [
        TotalsRow(grain, edges[row.period], row.key, replace(row, key={}, period=None))
        for row in rows
        if row.period is not None
    ]
