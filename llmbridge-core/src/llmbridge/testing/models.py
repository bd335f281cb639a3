"""Tests of models and own prices."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

from ..storage.base import StorageBackend
from ..storage.types import EARLIEST, LATEST, ModelPrice
from .comparison import assert_same
from .harness import Harness
from .records import EPOCH, MAX_COST, TEXTS, make_model

LATER = EPOCH + timedelta(days=1, microseconds=7)


def make_price(provider: str = "openai", model_name: str = "gpt-4o", **rates: Any) -> ModelPrice:
    """Return an own price that is valid from `EPOCH` on."""
    return ModelPrice(provider, model_name, EPOCH, **rates)


class ModelContract(Harness):
    """`upsert_models`, `list_models`, `retire_models`, `set_prices`, `list_prices`."""

    async def test_models_come_back_as_they_went_in(self, backend: StorageBackend) -> None:
        full = make_model("a", inactive_from=LATER)
        bare = make_model("b").model_copy(update=dict.fromkeys(_OPTIONAL_FIELDS))
        dear = make_model("c", dollars_per_million_tokens_input=MAX_COST, dollars_per_million_tokens_output=Decimal(0))
        early = make_model("d", created_at=EARLIEST, updated_at=LATEST - timedelta(microseconds=1), id=1)
        await backend.upsert_models([early, dear, bare, full])
        assert_same(await backend.list_models(active_only=False), [full, bare, dear, early])

    async def test_upsert_counts_new_and_replaced_models(self, backend: StorageBackend) -> None:
        first = await backend.upsert_models([make_model("a"), make_model("b")])
        second = await backend.upsert_models([make_model("b"), make_model("c"), make_model("d")])
        none = await backend.upsert_models([])
        assert [(r.inserted, r.updated) for r in (first, second, none)] == [(2, 0), (2, 1), (0, 0)]

    async def test_upsert_replaces_all_fields(self, backend: StorageBackend) -> None:
        await backend.upsert_models([make_model(inactive_from=LATER)])
        emptied = make_model().model_copy(update=dict.fromkeys(_OPTIONAL_FIELDS))
        await backend.upsert_models([emptied])
        stored = await backend.list_models()
        assert_same([model.model_copy(update={"created_at": None}) for model in stored], [emptied])

    async def test_upsert_keeps_created_at_as_first_stored(self, backend: StorageBackend) -> None:
        await backend.upsert_models([make_model()])
        await backend.upsert_models([make_model(created_at=LATER, updated_at=LATER)])
        assert_same(await backend.list_models(), [make_model(updated_at=LATER)])

    async def test_the_last_model_of_a_key_wins_and_counts_once(self, backend: StorageBackend) -> None:
        twice = [make_model(display_name="first"), make_model("other"), make_model(display_name="last")]
        result = await backend.upsert_models(twice)
        assert (result.inserted, result.updated) == (2, 0)
        assert_same(await backend.list_models("openai"), [twice[-1]])

    async def test_models_are_ordered_by_code_point(self, backend: StorageBackend) -> None:
        models = [make_model(provider, name) for provider in TEXTS for name in TEXTS]
        await backend.upsert_models(models[::-1])
        assert_same(await backend.list_models(), sorted(models, key=lambda m: (m.provider, m.model_name)))

    async def test_models_are_found_by_their_exact_names(self, backend: StorageBackend) -> None:
        keys = sorted((provider, name) for provider in TEXTS for name in ("Zeta", "zeta"))
        await backend.upsert_models([make_model(*key) for key in keys])
        for provider in (*TEXTS, "nobody", "", None):
            for name in ("zeta", "Zeta", "ZETA", None):
                found = [(model.provider, model.model_name) for model in await backend.list_models(provider, name)]
                assert found == [key for key in keys if provider in (None, key[0]) and name in (None, key[1])]

    async def test_retired_models_are_left_out_unless_asked_for(self, backend: StorageBackend) -> None:
        await backend.upsert_models([make_model("a"), make_model("b", inactive_from=EPOCH)])
        assert [model.provider for model in await backend.list_models()] == ["a"]
        assert [model.provider for model in await backend.list_models(active_only=False)] == ["a", "b"]

    async def test_retiring_touches_and_counts_the_active_among_its_keys(self, backend: StorageBackend) -> None:
        gone = make_model("gone", inactive_from=EPOCH)
        await backend.upsert_models([make_model("a"), make_model("b"), make_model("A"), gone])
        keys = [("a", "gpt-4o-mini"), ("a", "gpt-4o-mini"), ("gone", "gpt-4o-mini"), ("b", "unknown")]
        assert await backend.retire_models(keys, LATER) == 1
        retired = make_model("a", inactive_from=LATER, updated_at=LATER)
        assert_same(await backend.list_models(active_only=False), [make_model("A"), retired, make_model("b"), gone])
        assert await backend.retire_models(keys, EPOCH) == 0
        assert await backend.retire_models([], LATER) == 0

    async def test_an_upsert_brings_a_retired_model_back(self, backend: StorageBackend) -> None:
        await backend.upsert_models([make_model()])
        await backend.retire_models([("openai", "gpt-4o-mini")], LATER)
        assert await backend.list_models() == []
        await backend.upsert_models([make_model()])
        assert_same(await backend.list_models(), [make_model()])

    async def test_prices_come_back_to_the_last_digit(self, backend: StorageBackend) -> None:
        prices = [
            make_price("a"),
            make_price("b", input=Decimal(0), output=Decimal("1E-12"), cache_read=MAX_COST, cache_write=Decimal("2.5")),
            make_price("c", input=Decimal("0.1"), output=Decimal("0.3"), cache_write_1h=Decimal("123.456789012345")),
        ]
        await backend.set_prices(prices)
        assert_same(await backend.list_prices(), prices)

    async def test_rates_of_units_contexts_and_factors_come_back_as_they_went_in(self, backend: StorageBackend) -> None:
        prices = [
            make_price("a", rates={"web_searches": Decimal(10), "z": Decimal("1E-12"), "a": MAX_COST}),
            make_price("b", factor=Decimal("0.780000000001"), model_name="*"),
            make_price(
                "c", factor=Decimal(0), context={"service_tier": "Priority", "route": 'mistral/"eu" \U0001f600'}
            ),
            make_price("d", context={"z": "", "a": "null"}),
        ]
        await backend.set_prices(prices)
        assert_same(await backend.list_prices(), prices)

    async def test_prices_are_kept_per_context(self, backend: StorageBackend) -> None:
        contexts: list[dict[str, str]] = [{}, {"a": "1"}, {"a": "1", "b": "2"}, {"a": "2"}, {"\uff5e": "1"}]
        prices = [make_price(context=context, input=Decimal(n)) for n, context in enumerate(contexts)]
        await backend.set_prices(prices[::-1])
        other_order = make_price(context={"b": "2", "a": "1"}, input=Decimal(9))
        await backend.set_prices([other_order])
        prices[2] = other_order
        assert_same(await backend.list_prices(), sorted(prices, key=lambda price: price.key))

    async def test_prices_are_kept_per_date_and_listed_in_order_of_their_key(self, backend: StorageBackend) -> None:
        dates = (EARLIEST, EPOCH, EPOCH + timedelta(microseconds=1), LATEST - timedelta(microseconds=1))
        prices = [
            ModelPrice(provider, name, date, input=Decimal(index))
            for provider in TEXTS
            for name in ("zeta", "Zeta")
            for index, date in enumerate(dates)
        ]
        await backend.set_prices(prices[::-1])
        assert_same(await backend.list_prices(), sorted(prices, key=lambda price: price.key))

    async def test_the_last_price_of_a_key_wins(self, backend: StorageBackend) -> None:
        all_set = make_price(input=Decimal(1), output=Decimal(2), rates={"web_searches": Decimal(1)})
        await backend.set_prices([all_set, make_price("other", factor=Decimal(2))])
        await backend.set_prices([make_price(input=Decimal(3)), make_price("other"), make_price(input=Decimal(4))])
        await backend.set_prices([])
        assert_same(await backend.list_prices(), [make_price(input=Decimal(4)), make_price("other")])

    async def test_prices_are_found_by_their_exact_names(self, backend: StorageBackend) -> None:
        await backend.set_prices([make_price(p, n) for p in ("openai", "OpenAI") for n in ("gpt", "GPT")])
        assert_same(await backend.list_prices("openai"), [make_price("openai", "GPT"), make_price("openai", "gpt")])
        assert_same(await backend.list_prices(None, "gpt"), [make_price("OpenAI", "gpt"), make_price("openai", "gpt")])
        assert_same(await backend.list_prices("OpenAI", "GPT"), [make_price("OpenAI", "GPT")])
        assert await backend.list_prices("Openai") == []


_OPTIONAL_FIELDS = (
    "id",
    "display_name",
    "description",
    "max_context",
    "max_output_tokens",
    "tool_call_format",
    "dollars_per_million_tokens_input",
    "dollars_per_million_tokens_output",
    "created_at",
    "updated_at",
)
