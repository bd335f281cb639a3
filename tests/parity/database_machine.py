"""State machine that uses LLMDatabase, with valid and invalid arguments: every backend must give the same results."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

from hypothesis import strategies as st
from hypothesis.stateful import rule

from llmbridge import LLMDatabase
from llmbridge._usage.periods import UNITS
from llmbridge.schemas import LLMModel
from llmbridge.storage import MAX_PAGE, CallQuery, ModelPrice
from llmbridge.testing.records import MAX_INT

from . import values
from .contest import Contest
from .stores import Arena

Fields = dict[str, Any]

#: An hour ago, for questions that look back from now.
_LATELY = datetime.now(UTC).replace(microsecond=123_456) - timedelta(hours=1)
_KATHMANDU = timezone(timedelta(hours=5, minutes=45))
_KIRITIMATI = timezone(timedelta(hours=14))
#: What callers may write although no store can hold it: core makes it storable, the same for all.
_LOOSE = ("", "a\0b", "a\ufffdb", "\ud800", "\udfff\ud800", "x" * 300)

_loose_text = values.names | st.sampled_from(_LOOSE)
_moments = (
    values.times
    | st.just(_LATELY)
    | st.just(datetime(2100, 1, 1, tzinfo=UTC))
    | st.sampled_from((_KATHMANDU, _KIRITIMATI)).map(lambda zone: datetime(2024, 4, 1, tzinfo=zone))
)
_models = (("openai", "gpt-4o-mini"), ("openai", "gpt-9-imaginary"), ("app", "App"), ("openai", "*"))
_MORE_OF_A_PRICE: tuple[Fields, ...] = (
    {},
    {"factor": Decimal("0.78")},
    {"factor": Decimal(3), "context": {"service_tier": "priority"}},
    {"rates": {"web_searches": Decimal(10)}},
    {"rates": {"web_searches": Decimal("1e-13")}, "context": {"\ud800": "a\0b"}},
    {"rates": {"web_search": Decimal(1)}},
    {"rates": {"input_tokens": Decimal(1)}},
)
_amounts = st.sampled_from(
    (None, 0, 0.1, 1e-13, "0.0000000000005", "-0", -0.0, "1E-12", 8_999_999.99, "-3", Decimal(2))
)

_GOOD = {
    "id_at_origin": _loose_text | st.none(),
    "prompt_tokens": values.or_none(values.counts),
    "completion_tokens": values.or_none(st.sampled_from((0, 1, 2**31))),
    "cache_read_tokens": values.or_none(st.sampled_from((0, 1, 2**31))),
    "usage_source": st.sampled_from(("provider", "partial", "synthetic", "none")),
    "estimated_cost": _amounts,
    "cost_reason": st.sampled_from((None, *values.REASONS)),
    "response_time_ms": values.or_none(values.milliseconds),
    "time_to_first_token_ms": values.or_none(values.milliseconds),
    "temperature": st.sampled_from((None, 0.0, -0.0, 0.1, 1, "0.5")),
    "status": st.sampled_from(values.STATUSES),
    "error_type": values.or_none(_loose_text),
    "error_message": st.sampled_from((None, "key=abc", "\ud800", "x" * 3000, "a\0")),
    "metadata": values.or_none(values.metadata)
    | st.sampled_from(({"team": "a\0b"}, {"\ud800": 1}, {"team": "\ud800", "a\0": 2}, {"team": (1, 2)})),
    "response_model": values.or_none(st.sampled_from(("gpt-4o-mini-2024-07-18", "App", ""))),
    "usage_details": st.sampled_from((None, {}, {"web_searches": 1}, {"a\0b": 0})),
    "price_context": st.sampled_from((None, {}, {"service_tier": "priority"}, {"route": "\ud800"})),
    "system_prompt": st.just("You are\ud800"),
    "seed": st.just(7),
    "top_p": st.just(0.5),
    "stop_sequences": st.just(["\0"]),
}
_BAD: tuple[Fields, ...] = (
    {"called_at": datetime(2024, 1, 1)},
    {"called_at": datetime.max.replace(tzinfo=UTC)},
    {"called_at": datetime.min.replace(tzinfo=_KIRITIMATI)},
    {"called_at": "yesterday"},
    {"estimated_cost": "nan"},
    {"estimated_cost": float("inf")},
    {"estimated_cost": 9_000_000},
    {"estimated_cost": "three"},
    {"prompt_tokens": -1},
    {"prompt_tokens": MAX_INT + 1},
    {"prompt_tokens": MAX_INT, "completion_tokens": 1},
    {"prompt_tokens": 1.5},
    {"max_tokens": -MAX_INT - 2},
    {"attempt": 0},
    {"origin": ""},
    {"origin": None},
    {"provider": "p" * 256},
    {"model_name": 7},
    {"status": "fine"},
    {"temperature": float("nan")},
    {"temperature": float("inf")},
    {"id": "not an id"},
    {"id": ""},
    {"usage_details": {"web_searches": -1}},
    {"usage_details": {"input_tokens": 1}},
    {"price_context": {"route": "x" * 5000}},
    {"metadata": {"a": float("nan")}},
    {"metadata": {"a": MAX_INT + 1}},
    {"metadata": {"a": "x" * 9000}},
    {"metadata": {"a": object}},
    {"metadata": {1: 2}},
    {"metadata": [1]},
    {"repriced_at": datetime(2024, 1, 1)},
    {"unheard_of": 1},
)
_BAD_ZONES = ("Nowhere", "", "\0", "../UTC", "\ud800")

_calls = st.fixed_dictionaries(
    {"id": values.ids, "called_at": _moments, "origin": values.names, "model": st.sampled_from(_models)},
    optional=_GOOD,
)
_accepted = (
    _loose_text | st.lists(values.or_none(_loose_text), max_size=3).map(tuple) | st.sampled_from((None, (None,), 7))
)


@st.composite
def calls(draw: st.DrawFn) -> Fields:
    """The arguments of `record_api_call` for a call that can be recorded."""
    fields = draw(_calls)
    provider, model_name = fields.pop("model")
    return {"provider": provider, "model_name": model_name, **fields}


@st.composite
def ranges(draw: st.DrawFn) -> tuple[Any, Any]:
    """From when, to when: mostly short, which is what calendars can be asked for."""
    since = draw(_moments)
    if draw(st.booleans()) and 2 < since.year < 9998:
        until = since + timedelta(hours=draw(st.sampled_from((1, 25, 24 * 40))))
        return (since.date(), until.date() + timedelta(days=1)) if draw(st.booleans()) else (since, until)
    return draw(st.sampled_from(((None, None), (since, None), (None, since), (since.replace(tzinfo=None), None))))


class DatabaseParity(Contest):
    def __init__(self, arena: Arena) -> None:
        super().__init__(arena)
        self.parties = {name: LLMDatabase(backend=backend) for name, backend in arena.empty().items()}
        self.agree(lambda db: db.initialize())

    @rule(fields=calls())
    def record(self, fields: Fields) -> None:
        self.agree(lambda db: db.record_api_call(**fields))

    @rule(fields=calls(), wrong=st.sampled_from(_BAD))
    def record_wrong(self, fields: Fields, wrong: Fields) -> None:
        self.agree(lambda db: db.record_api_call(**{**fields, **wrong}))

    @rule(batch=st.lists(calls(), min_size=2, max_size=5), wrong=st.sampled_from(_BAD))
    def record_together(self, batch: list[Fields], wrong: Fields) -> None:
        given = [batch[0], {**batch[0], **wrong}, *batch[1:]]

        async def record(db: LLMDatabase) -> list[Any]:
            told = await asyncio.gather(*(db.record_api_call(**fields) for fields in given), return_exceptions=True)
            return [type(one) if isinstance(one, BaseException) else one for one in told]

        self.agree(record)

    @rule(call_id=values.ids)
    def get_call_record(self, call_id: UUID) -> None:
        self.agree(lambda db: db.get_call_record(call_id))

    @rule(
        origin=values.or_none(_loose_text),
        id_at_origin=values.or_none(_loose_text),
        limit=st.sampled_from((100, 0, 1, 2, -1)),
        offset=st.sampled_from((0, 1, 3, -1)),
    )
    def list_recent_calls(self, **wanted: Any) -> None:
        self.agree(lambda db: db.list_recent_calls(**wanted))

    @rule(
        span=ranges(),
        group_by=values.groupings(periods=(*UNITS, *UNITS, "period", "colour", "tag:")),
        tz=st.sampled_from(values.ZONES) | st.sampled_from(values.ZONES) | st.sampled_from(_BAD_ZONES),
        filters=st.dictionaries(
            st.sampled_from(("origin", "id_at_origin", "provider", "model_name", "status")), _accepted, max_size=2
        ),
        tags=st.none() | st.dictionaries(st.sampled_from((*values.KEYS, "a\0b", "")), _accepted, max_size=2),
    )
    def usage(self, span: tuple[Any, Any], group_by: tuple[str, ...], tz: str, filters: Any, tags: Any) -> None:
        since, until = span
        if until is None and since is not None:
            group_by = tuple(name for name in group_by if name not in UNITS)
        self.agree(lambda db: db.usage(since, until, group_by=group_by, tz=tz, tags=tags, **filters))

    @rule(
        origin=values.or_none(_loose_text),
        id_at_origin=values.or_none(_loose_text),
        days=st.sampled_from((30, 1, 0, 36_500)),
    )
    def get_usage_stats(self, **wanted: Any) -> None:
        self.agree(
            lambda db: db.get_usage_stats(**wanted), lambda stats: stats and stats.model_copy(update={"since": None})
        )

    @rule(
        model=st.sampled_from(_models),
        more=st.fixed_dictionaries(
            {},
            optional={
                "provider": _loose_text,
                "display_name": _loose_text,
                "max_context": st.sampled_from((1, MAX_INT, MAX_INT + 1, -1)),
                "dollars_per_million_tokens_input": _amounts.map(lambda rate: None if rate is None else Decimal(rate)),
                "dollars_per_million_tokens_output": st.sampled_from((None, Decimal(1), Decimal(10**7))),
                "inactive_from": values.times,
            },
        ),
    )
    def upsert_model(self, model: tuple[str, str], more: Fields) -> None:
        provider, model_name = model
        given = LLMModel(**{"provider": provider, "model_name": model_name, **more})
        self.agree(lambda db: db.add_model(given))

    @rule(model=st.sampled_from(_models), input_rate=_amounts, output_rate=_amounts)
    def update_model_costs(self, model: tuple[str, str], input_rate: Any, output_rate: Any) -> None:
        self.agree(lambda db: db.update_model_costs(*model, input_rate, output_rate))

    @rule(keys=st.lists(st.sampled_from(_models) | st.tuples(_loose_text, _loose_text), max_size=3))
    def retire_models(self, keys: list[tuple[str, str]]) -> None:
        self.agree(lambda db: db.retire_models(keys))

    @rule(
        provider=st.sampled_from(("openai", "app")) | _loose_text,
        model_name=values.or_none(_loose_text),
        active_only=st.booleans(),
    )
    def list_models(self, **wanted: Any) -> None:
        self.agree(lambda db: db.list_models(**wanted), _without_times)

    @rule(
        model=st.sampled_from(_models) | st.tuples(_loose_text, _loose_text),
        effective_from=_moments,
        rates=st.lists(values.or_none(values.rates), min_size=4, max_size=4) | st.just([]),
        more=st.sampled_from(_MORE_OF_A_PRICE),
    )
    def set_price(
        self, model: tuple[str, str], effective_from: datetime, rates: list[Decimal | None], more: Fields
    ) -> None:
        self.agree(lambda db: db.set_prices([ModelPrice(*model, effective_from, *rates, **more)]))
        self.agree(lambda db: db.list_prices(), _without_starts)

    @rule(fields=calls())
    def reopen(self, fields: Fields) -> None:
        self.agree(lambda db: db.close())
        self.agree(lambda db: db.record_api_call(**fields))
        self.agree(lambda db: db.initialize())

    def teardown(self) -> None:
        try:
            if self.agreed:
                self.agree(_everything)
        finally:
            self.arena.of_all(self.parties, lambda db: db.close())


def _without_times(models: list[LLMModel]) -> list[Any]:
    """Return the fields that do not depend on the clock: each database was queried at another time."""
    return [
        (model.is_active, model.model_copy(update=dict.fromkeys(("inactive_from", "created_at", "updated_at"))))
        for model in models
    ]


def _without_starts(prices: list[ModelPrice]) -> list[ModelPrice]:
    """What the clock has not touched: rates that come with a model are a price from then on."""
    return [replace(price, effective_from=_LATELY) for price in prices]


async def _everything(db: LLMDatabase) -> tuple[Any, ...]:
    page = await db.list_calls(CallQuery(limit=MAX_PAGE))
    return page, await db.usage(), await db.usage(date(1, 1, 3), date(9999, 1, 1), group_by="origin", tz="Pacific/Niue")
