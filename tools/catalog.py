"""Updater of the bundled catalog of models, `llmbridge-core/src/llmbridge/_models/catalog.json`.

    python tools/catalog.py        # writes the file, and lists models of genai-prices that the catalog does not have

What is known of a model from its provider stays as it is in the file: texts, limits, features, `source` with `date`,
`retires` with `retires_source`. Rates come from the installed genai-prices; as long as they stay the same, so do the
edition and the date beside them. A model that genai-prices calls deprecated
and for which no provider's date is known retires on the day of the update that found it. A test compares the committed
file with `updated()`.
"""

from __future__ import annotations

import json
import sys
from datetime import UTC, date, datetime, time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from genai_prices.data import providers

from llmbridge._pricing.genai_prices.cards import PROVIDER_IDS, bundled
from llmbridge._shared.money import text

FILE = Path(__file__).parents[1] / "llmbridge-core" / "src" / "llmbridge" / "_models" / "catalog.json"
PRICES = f"genai-prices {version('genai-prices')}"

Entry = dict[str, Any]


def read() -> list[Entry]:
    """Return the entries of the committed file."""
    entries: list[Entry] = json.loads(FILE.read_text("utf-8"))
    return entries


def updated(entries: list[Entry], today: date) -> list[Entry]:
    """Return the entries with the rates and the deprecations of the installed genai-prices, in order of their names.

    :param today: the date of rates and deprecations that are new
    """
    ordered = sorted(entries, key=lambda entry: (entry["provider"], entry["model_name"]))
    return [_with_deprecation(_with_rates(entry, today), today) for entry in ordered]


def missing(entries: list[Entry]) -> list[str]:
    """Return the models that genai-prices lists for providers of the catalog, not as deprecated, and that the catalog
    does not have."""
    known = {(entry["provider"], entry["model_name"]) for entry in entries}
    names = {name for name, _ in known}
    return [
        f"{provider.id}:{model.id}"
        for provider in providers
        if provider.id in names
        for model in provider.models
        if not model.deprecated and (provider.id, model.id) not in known
    ]


def _with_rates(entry: Entry, today: date) -> Entry:
    at = datetime.combine(today, time(12), UTC)
    card = bundled().get(entry["provider"], entry["model_name"], at)
    rates = card.rates() if card is not None else None
    found = {
        "dollars_per_million_tokens_input": None if rates is None or rates.input is None else text(rates.input),
        "dollars_per_million_tokens_output": None if rates is None or rates.output is None else text(rates.output),
    }
    if found.items() <= entry.items() and (rates is None) == (entry["rates_source"] is None):
        return entry
    source, day = (PRICES, today.isoformat()) if rates is not None else (None, None)
    return {**entry, **found, "rates_source": source, "rates_date": day}


def _with_deprecation(entry: Entry, today: date) -> Entry:
    if entry["retires"] is not None:
        return entry
    provider = PROVIDER_IDS.get(entry["provider"], entry["provider"])
    price_list = next((one for one in providers if one.id == provider), None)
    model = price_list.find_model(entry["model_name"]) if price_list is not None else None
    if model is None or not model.deprecated:
        return entry
    return {**entry, "retires": today.isoformat(), "retires_source": PRICES}


if __name__ == "__main__":
    catalog = updated(read(), datetime.now(UTC).date())
    FILE.write_text(json.dumps(catalog, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    sys.stdout.write("\n  ".join(["not in the catalog:", *missing(catalog)]) + "\n")
