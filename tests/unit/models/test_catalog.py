"""The bundled catalog says what is known of each model, since when, and from which source."""

from __future__ import annotations

import json
import runpy
from datetime import UTC, date, datetime, time
from decimal import Decimal
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from llmbridge._models import catalog
from llmbridge._pricing.genai_prices.cards import bundled

ENTRIES: list[dict[str, Any]] = json.loads(files("llmbridge._models").joinpath("catalog.json").read_text("utf-8"))
FLAGS = (
    "supports_vision",
    "supports_function_calling",
    "supports_json_mode",
    "supports_parallel_tool_calls",
)
FIELDS = {
    "provider",
    "model_name",
    "display_name",
    "description",
    "max_context",
    "max_output_tokens",
    *FLAGS,
    "tool_call_format",
    "dollars_per_million_tokens_input",
    "dollars_per_million_tokens_output",
    "source",
    "date",
    "retires",
    "retires_source",
    "rates_source",
    "rates_date",
}
SEEDED_BY_UPSTREAM = {
    ("anthropic", "claude-3-haiku-20240307"),
    ("anthropic", "claude-3-sonnet-20240229"),
    ("anthropic", "claude-3-opus-20240229"),
    ("anthropic", "claude-3-5-haiku-20241022"),
    ("anthropic", "claude-3-5-sonnet-20241022"),
    ("google", "gemini-pro"),
    ("google", "gemini-1.5-flash"),
    ("google", "gemini-1.5-pro"),
    ("google", "gemini-2.0-flash-exp"),
    ("ollama", "llama3.2:latest"),
    ("ollama", "mistral:latest"),
    ("ollama", "qwen2.5-coder:latest"),
    ("openai", "gpt-3.5-turbo"),
    ("openai", "gpt-4-turbo"),
    ("openai", "gpt-4o"),
    ("openai", "gpt-4o-mini"),
}


def named(entry: dict[str, Any]) -> str:
    return f"{entry['provider']}:{entry['model_name']}"


@pytest.mark.parametrize("entry", ENTRIES, ids=named)
def test_an_entry_is_complete_and_says_where_it_is_from(entry: dict[str, Any]) -> None:
    assert entry.keys() == FIELDS
    assert entry["display_name"]
    assert entry["description"]
    assert entry["source"].startswith("https://")
    assert date(2025, 1, 1) <= date.fromisoformat(entry["date"]) <= date(2026, 11, 23)
    assert all(entry[flag] in (True, False, None) for flag in FLAGS)
    for limit in ("max_context", "max_output_tokens"):
        assert entry[limit] is None or entry[limit] > 0
    assert (entry["tool_call_format"] is not None) == (entry["supports_function_calling"] is True)


@pytest.mark.parametrize("entry", ENTRIES, ids=named)
def test_rates_are_text_and_dated_or_absent_altogether(entry: dict[str, Any]) -> None:
    rates = (entry["dollars_per_million_tokens_input"], entry["dollars_per_million_tokens_output"])
    if entry["rates_source"] is None:
        assert (*rates, entry["rates_date"]) == (None, None, None)
    else:
        assert all(isinstance(rate, str) and Decimal(rate) >= 0 for rate in rates)
        assert date.fromisoformat(entry["rates_date"]) <= date(2026, 11, 23)


@pytest.mark.parametrize("entry", ENTRIES, ids=named)
def test_rates_are_those_of_genai_prices_where_it_knows_the_model(entry: dict[str, Any]) -> None:
    day = date.fromisoformat(entry["rates_date"] or entry["date"])
    at = datetime.combine(day, time(12), UTC)
    card = bundled().get(entry["provider"], entry["model_name"], at)
    if card is None:
        assert entry["rates_source"] is None
    else:
        rates = card.rates()
        assert Decimal(entry["dollars_per_million_tokens_input"]) == rates.input
        assert Decimal(entry["dollars_per_million_tokens_output"]) == rates.output


def test_models_are_the_entries_in_order_each_once() -> None:
    keys = [(model.provider, model.model_name) for model in catalog.models()]
    assert keys == sorted({(entry["provider"], entry["model_name"]) for entry in ENTRIES})
    assert len(keys) == len(ENTRIES)


def test_models_carry_their_id_and_the_version_of_the_catalog() -> None:
    for model in catalog.models():
        assert model.id == catalog.model_id(model.provider, model.model_name)
        assert model.source == f"catalog {catalog.VERSION}"
    assert len({model.id for model in catalog.models()}) == len(ENTRIES)


def test_a_model_is_retired_from_the_day_on_which_its_provider_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def state(day: date) -> dict[str, datetime | None]:
        monkeypatch.setattr(catalog, "today", lambda: day)
        return {model.model_name: model.inactive_from for model in catalog.models()}

    before, after = state(date(2026, 10, 22)), state(date(2026, 10, 23))
    assert before["gpt-4"] is None
    assert after["gpt-4"] == datetime(2026, 10, 23, tzinfo=UTC)
    assert after["gpt-6-luna"] is None
    assert after["gemini-1.5-flash"] == datetime(2025, 9, 24, tzinfo=UTC)


@pytest.mark.parametrize("entry", ENTRIES, ids=named)
def test_a_retirement_has_a_date_and_a_source_or_neither(entry: dict[str, Any]) -> None:
    assert (entry["retires"] is None) == (entry["retires_source"] is None)
    if entry["retires"] is not None:
        assert date.fromisoformat(entry["retires"]) >= date(2025, 1, 1)
        assert entry["retires_source"].startswith(("https://", "genai-prices "))


def test_the_committed_file_is_what_the_script_writes() -> None:
    script = runpy.run_path(str(Path(__file__).parents[3] / "tools" / "catalog.py"))
    assert script["updated"](ENTRIES, date(2026, 11, 30)) == ENTRIES, "run: python tools/catalog.py"
    assert script["missing"](ENTRIES)


def test_the_script_takes_rates_and_deprecations_from_genai_prices() -> None:
    script = runpy.run_path(str(Path(__file__).parents[3] / "tools" / "catalog.py"))
    other = {"retires": None, "retires_source": None, "dollars_per_million_tokens_input": "999"}
    stale = [{**entry, **other, "rates_source": "genai-prices 0.0.1"} for entry in ENTRIES]
    found = {entry["model_name"]: entry for entry in script["updated"](stale, date(2027, 1, 1))}
    assert found["gemini-2.0-flash-exp"]["retires"] == "2027-01-01"
    assert found["gpt-4o-mini"]["retires"] is None
    assert (found["gpt-4o-mini"]["rates_source"], found["gpt-4o-mini"]["rates_date"]) == (
        f"genai-prices {version('genai-prices')}",
        "2027-01-01",
    )
    assert found["gpt-4o-mini"]["dollars_per_million_tokens_input"] == "0.15"
    assert found["llama3.2:latest"]["rates_source"] is None


def test_rates_that_stay_the_same_keep_their_edition() -> None:
    script = runpy.run_path(str(Path(__file__).parents[3] / "tools" / "catalog.py"))
    kept = [{**entry, "rates_source": entry["rates_source"] and "genai-prices 0.0.1"} for entry in ENTRIES]
    assert script["updated"](kept, date(2026, 11, 30)) == kept


def test_models_have_exact_rates_and_limits() -> None:
    found = {model.model_name: model for model in catalog.models()}["gpt-4o-mini"]
    assert found.dollars_per_million_tokens_input == Decimal("0.15")
    assert found.dollars_per_million_tokens_output == Decimal("0.6")
    assert (found.max_context, found.max_output_tokens) == (128_000, 16_384)
    assert found.supports_vision
    assert found.supports_function_calling


def test_a_capability_that_is_not_known_is_not_claimed() -> None:
    models = {named(model.model_dump()): model for model in catalog.models()}
    unknown = [(named(entry), flag) for entry in ENTRIES for flag in FLAGS if entry[flag] is None]
    assert unknown
    assert not any(getattr(models[name], flag) for name, flag in unknown)


def test_the_models_that_upstream_seeded_are_all_there() -> None:
    assert {(model.provider, model.model_name) for model in catalog.models()} >= SEEDED_BY_UPSTREAM


def test_models_are_copies() -> None:
    catalog.models()[0].display_name = "changed"
    assert catalog.models()[0].display_name != "changed"


@pytest.mark.parametrize(
    ("provider", "model_name", "expected"),
    [
        ("openai", "gpt-4o", 2_165_892_381_754_098_370),
        ("ollama", "llama3.2:latest", 1_973_841_902_536_727_385),
        ("acme", "mödel", 8_825_910_445_861_153_263),
    ],
)
def test_ids_never_change(provider: str, model_name: str, expected: int) -> None:
    assert catalog.model_id(provider, model_name) == expected
    assert 0 <= expected < 2**63


def test_ids_tell_provider_and_name_apart() -> None:
    assert catalog.model_id("ab", "c") != catalog.model_id("a", "bc")


@pytest.mark.parametrize(
    ("source", "older"),
    [
        ("user", False),
        (f"catalog {catalog.VERSION}", False),
        ("catalog 2026.9.12", True),
        ("catalog 2026.10.0", True),
        ("catalog 2025.12.3", True),
        ("catalog 2026.11.1", False),
        ("catalog 2027.1.0", False),
        ("catalog of my own", False),
        ("2025.1.0", False),
        ("", False),
    ],
)
def test_a_source_is_older_only_if_it_names_an_older_catalog(source: str, older: bool) -> None:
    assert catalog.is_older(source) is older


def test_every_entry_says_where_and_until_when_it_is_known_to_be_true() -> None:
    for model in catalog.models():
        origin = catalog.origin(model.provider, model.model_name)
        assert origin is not None
        assert origin.source.startswith("https://")
        assert origin.confirmed <= date(2026, 11, 23)
    assert catalog.origin("openai", "nobody-knows") is None
