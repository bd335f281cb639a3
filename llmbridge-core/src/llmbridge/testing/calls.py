"""Tests of `record_calls`: every field exact, each id once, a batch completely or not at all."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from ..errors import RecordRejectedError
from ..storage.base import StorageBackend
from ..storage.reference import summarize
from ..storage.types import EARLIEST, MAX_BATCH, CallQuery, UsageQuery
from .comparison import assert_same
from .harness import Harness
from .records import EPOCH, MAX_COST, MAX_INT, TEXTS, make_call

FULL: dict[str, Any] = {
    "id": UUID(int=2**128 - 1),
    "origin": "o" * 255,
    "id_at_origin": "\U0001f600" * 255,
    "provider": "Anbieter \u00df",
    "model_name": "models/\u6a21\u578b:latest",
    "requested_model": "gpt-4o",
    "response_model": "gpt-4o-2024-08-06",
    "prompt_tokens": 1000,
    "completion_tokens": 200,
    "total_tokens": 1200,
    "cache_read_tokens": 300,
    "cache_write_tokens": 40,
    "cache_write_1h_tokens": 30,
    "reasoning_tokens": 50,
    "usage_details": {"input_audio_tokens": 700, "web_searches": 0, "a unit of 😀": MAX_INT},
    "usage_source": "partial",
    "estimated_cost": Decimal("1234567.123456789012"),
    "cost_source": "own_prices",
    "cost_reason": "missing_rate",
    "dollars_per_million_tokens_input_used": Decimal("2.500000000001"),
    "dollars_per_million_tokens_output_used": Decimal(10),
    "price_context": {"service_tier": "Priority", "route": '模/"eu"', "": ""},
    "price_version": "2024-03-31",
    "price_factor": Decimal("0.780000000001"),
    "previous_cost": Decimal("0.1"),
    "previous_cost_reason": "unknown_model",
    "repriced_at": EPOCH + timedelta(microseconds=3),
    "response_time_ms": 1234,
    "time_to_first_token_ms": 56,
    "stream": True,
    "finish_reason": "stop",
    "response_id": "chatcmpl-'1'",
    "attempt": 3,
    "group_id": UUID(int=1),
    "temperature": 0.1,
    "max_tokens": 4096,
    "tools_used": ["look up", "look up", "\U0001f600"],
    "system_prompt_hash": "0" * 64,
    "status": "rate_limited",
    "error_type": "RateLimitError",
    "error_message": 'slow down\n\t"now" \\ \'',
    "metadata": {"team": "search", "deep": {"list": [1, 1.5, None, True, {"x": []}]}},
    "called_at": EPOCH + timedelta(microseconds=123_456),
}

#: Records with fields at their limits.
EXTREMES: tuple[dict[str, Any], ...] = (
    {"prompt_tokens": MAX_INT, "completion_tokens": MAX_INT, "total_tokens": MAX_INT, "max_tokens": MAX_INT},
    {"cache_read_tokens": MAX_INT, "cache_write_tokens": MAX_INT, "cache_write_1h_tokens": MAX_INT},
    {"reasoning_tokens": MAX_INT, "attempt": MAX_INT},
    {"response_time_ms": MAX_INT, "time_to_first_token_ms": MAX_INT},
    {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0, "response_time_ms": 0},
    {"estimated_cost": MAX_COST, "previous_cost": MAX_COST, "dollars_per_million_tokens_input_used": MAX_COST},
    {"estimated_cost": -MAX_COST, "previous_cost": -MAX_COST},
    {"estimated_cost": Decimal("1E-12"), "previous_cost": Decimal("-1E-12")},
    {"estimated_cost": Decimal(0), "previous_cost": Decimal("0E-12")},
    {"estimated_cost": Decimal("4503599.627370497000"), "previous_cost": Decimal("0.3")},
    {"temperature": 0.0},
    {"temperature": 0.1 + 0.2},
    {"temperature": 5e-324},
    {"called_at": EARLIEST, "repriced_at": EARLIEST},
    {"called_at": EARLIEST + timedelta(microseconds=1), "repriced_at": EARLIEST + timedelta(microseconds=999_999)},
    {"called_at": datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)},
    {"called_at": datetime(9999, 12, 31, 23, 59, 59, 999_998, tzinfo=UTC)},
    {"called_at": datetime(2024, 3, 31, 1, 59, 59, 999_999, tzinfo=UTC)},
    {"id": UUID(int=0)},
    {"id": UUID(int=2**127), "group_id": UUID(int=2**128 - 1)},
    {"requested_model": "", "finish_reason": "", "response_id": "", "error_type": "", "error_message": ""},
    *({"origin": text, "id_at_origin": text, "provider": text, "model_name": text} for text in TEXTS),
    {"error_message": "\U0010ffff" * 2000, "response_id": "\ud7ff\ue000\uffff\U00010000"},
    {"error_message": "  two spaces around  ", "error_type": "\n", "response_id": "\x01\x7f\x85\u2028"},
    {"tools_used": []},
    {"tools_used": [""]},
    {"metadata": {}},
    {"usage_details": {}, "price_context": {}, "response_model": ""},
    {
        "usage_details": {"z": 0, "a": MAX_INT, 'say "hi"': 2**53 + 1},
        "price_context": {"z": "1", "a": "null", "$": "{}"},
    },
    {"price_factor": Decimal(0)},
    {"price_factor": MAX_COST},
    {"metadata": {"": "", " ": [], "a.b": {}, 'say "hi"': "\U0001f600", "$": {"a": {"b": [[[None]]]}}}},
    {"metadata": {"int": 1, "float": 1.0, "small": 1e-07, "large": 1e300, "max": MAX_INT, "true": True, "null": None}},
    {"metadata": {"z": 1, "a": 2, "text": "1", "escaped": "\\u0000 \u2028 </script> \x1f"}},
    {"metadata": {"long": "x" * 8000}},
    *({"status": status} for status in ("success", "error", "timeout", "rate_limited", "cancelled")),
    *({"usage_source": source} for source in ("provider", "partial", "estimated", "synthetic", "none")),
)


class CallContract(Harness):
    """`record_calls`."""

    async def test_every_field_comes_back_as_it_went_in(self, backend: StorageBackend) -> None:
        full = make_call(**FULL)
        assert set(FULL) == set(type(full).model_fields)
        await backend.record_calls([full])
        assert_same((await backend.list_calls(CallQuery())).calls, [full])

    async def test_every_optional_field_may_be_none(self, backend: StorageBackend) -> None:
        kept = ("id", "origin", "provider", "model_name", "called_at")
        call = type(make_call())(**{name: FULL[name] for name in kept})
        await backend.record_calls([call])
        assert_same((await backend.list_calls(CallQuery())).calls, [call])

    async def test_extreme_values_come_back_as_they_went_in(self, backend: StorageBackend) -> None:
        calls = [make_call(number, **changes) for number, changes in enumerate(EXTREMES)]
        await backend.record_calls(calls)
        for call in calls:
            assert_same((await backend.list_calls(CallQuery(ids=(call.id,)))).calls, [call])

    async def test_calls_of_every_status_are_recorded(self, backend: StorageBackend) -> None:
        statuses = ("success", "error", "timeout", "rate_limited", "cancelled")
        calls = [make_call(number, status=status) for number, status in enumerate(statuses)]
        assert (await backend.record_calls(calls)).inserted == 5
        assert_same((await backend.list_calls(CallQuery())).calls, calls[::-1])

    async def test_an_empty_batch_records_nothing(self, backend: StorageBackend) -> None:
        result = await backend.record_calls([])
        assert (result.inserted, result.duplicates, result.expired) == (0, 0, ())

    async def test_the_first_of_an_id_stays_within_a_batch(self, backend: StorageBackend) -> None:
        first, second = make_call(1, model_name="first"), make_call(1, model_name="second", prompt_tokens=99)
        result = await backend.record_calls([make_call(0), first, second, make_call(2), second])
        assert (result.inserted, result.duplicates, result.expired) == (3, 2, ())
        assert_same((await backend.list_calls(CallQuery())).calls, [make_call(2), first, make_call(0)])

    async def test_the_first_of_an_id_stays_across_batches(self, backend: StorageBackend) -> None:
        first = make_call(1, model_name="first")
        await backend.record_calls([make_call(0), first])
        again = make_call(1, model_name="second", called_at=EPOCH + timedelta(days=1), id=first.id)
        result = await backend.record_calls([again, make_call(2), make_call(0)])
        assert (result.inserted, result.duplicates, result.expired) == (1, 2, ())
        assert_same((await backend.list_calls(CallQuery())).calls, [make_call(2), first, make_call(0)])

    async def test_duplicates_touch_no_sum(self, backend: StorageBackend) -> None:
        calls = [make_call(number) for number in range(10)]
        for batch in (calls[:6] + calls[:3], calls[3:], calls[::-1]):
            await backend.record_calls(batch)
        assert_same(await backend.summarize_usage(UsageQuery()), summarize(calls, UsageQuery()))

    async def test_the_largest_batch_is_taken_and_a_larger_one_refused(self, backend: StorageBackend) -> None:
        calls = [make_call(number) for number in range(MAX_BATCH + 1)]
        with pytest.raises(ValueError, match=str(MAX_BATCH)):
            await backend.record_calls(calls)
        assert (await backend.list_calls(CallQuery(limit=1))).calls == []
        assert (await backend.record_calls(calls[:MAX_BATCH])).inserted == MAX_BATCH

    @pytest.mark.parametrize(
        "poison", [{"prompt_tokens": MAX_INT + 1}, {"error_message": "half a pair \ud800"}, {"metadata": {"a": "\x00"}}]
    )
    async def test_a_batch_with_a_value_that_cannot_be_stored_is_stored_wholly_or_not_at_all(
        self, backend: StorageBackend, poison: dict[str, Any]
    ) -> None:
        calls = [make_call(0), make_call(1, **poison), make_call(2)]
        refusal: ValueError | None = None
        try:
            await backend.record_calls(calls)
        except ValueError as error:
            refusal = error
        assert_same((await backend.list_calls(CallQuery())).calls, [] if refusal else calls[::-1])
        if refusal is not None:
            assert isinstance(refusal, RecordRejectedError)
            assert set(refusal.ids) <= {calls[1].id}
        assert (await backend.record_calls([make_call(3)])).inserted == 1
