"""`llmbridge models find`, `cheapest` and `load`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Command = Callable[..., Any]


def names(document: Any) -> list[str]:
    return [f"{model['provider']}:{model['model_name']}" for model in document["models"]]


def test_models_are_found_by_words_abilities_size_and_price(cli: Command, db_url: str) -> None:
    found = names(cli("models", "find", "gpt-4o mini", "--can", "vision,tools", "--json").document)
    assert "openai:gpt-4o-mini" in found
    assert all("mini" in name for name in found)
    cheap = names(cli("models", "find", "--max-input", "0.15", "--max-output", "0.6", "--json").document)
    assert "openai:gpt-4o-mini" in cheap
    assert "openai:gpt-4o" not in cheap
    wide = cli("models", "find", "--min-context", "1000000", "--provider", "google", "--json").document["models"]
    assert wide
    assert all(model["max_context"] >= 1_000_000 and model["provider"] == "google" for model in wide)
    assert cli("models", "find", "gpt-4o", "--can", "json").out.splitlines()[0].split()[:2] == ["model", "context"]


def test_the_cheapest_models_are_listed_with_what_they_ask(cli: Command, db_url: str) -> None:
    cli("models", "set-price", "openai:gpt-4o", "--input", "0", "--output", "0", "--from", "2020-01-01")
    first, *_ = cli("models", "cheapest", "--in", "1000", "--out", "100", "--json").document["models"]
    assert first == {"model": "openai:gpt-4o", "cost": "0"}
    _, row = cli(
        "models", "cheapest", "--in", "1000", "--out", "100", "--provider", "openai", "-n", "1"
    ).out.splitlines()
    assert row.split() == ["openai:gpt-4o", "0"]


@pytest.mark.parametrize(
    "args",
    [
        ["find", "--can", "fly"],
        ["find", "--max-input", "cheap"],
        ["find", "--min-context", "0"],
        ["cheapest", "--in", "1"],
        ["cheapest", "--in", "1", "--out", "-1"],
        ["load", "nowhere"],
    ],
)
def test_a_wrong_question_is_a_mistake(cli: Command, db_url: str, args: list[str]) -> None:
    assert cli("models", *args).code == 2


def test_models_are_loaded_from_files(cli: Command, db_url: str, tmp_path: Path) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    entry = {"model_id": "large-1", "dollars_per_million_tokens_input": 1, "dollars_per_million_tokens_output": 2}
    (folder / "acme.json").write_text(json.dumps({"models": [entry]}))
    assert cli("models", "load", "models", "--no-prices").out == (
        "providers: acme\nmodels:    1 new, 0 replaced, 0 retired\n"
    )
    assert cli("models", "prices", "--json").document == {"prices": []}
    (folder / "acme.json").write_text(json.dumps({"models": [{**entry, "model_id": "large-2"}]}))
    assert cli("models", "load", str(folder), "--json").document == {
        "providers": ["acme"],
        "inserted": 1,
        "updated": 0,
        "retired": 1,
    }
    assert names(cli("models", "list", "--provider", "acme", "--json").document) == ["acme:large-2"]
    assert len(cli("models", "prices", "--json").document["prices"]) == 1


def test_a_file_that_does_not_parse_is_named_and_nothing_is_loaded(cli: Command, db_url: str, tmp_path: Path) -> None:
    (tmp_path / "acme.json").write_text(json.dumps({"models": [{"model_id": "m"}]}))
    (tmp_path / "openai.json").write_text('{"models": [{}]}')
    result = cli("models", "load", ".")
    assert result.code == 2
    assert "openai.json: models[0]: it has no model_id" in result.err
    assert names(cli("models", "list", "--all", "--provider", "acme", "--json").document) == []
