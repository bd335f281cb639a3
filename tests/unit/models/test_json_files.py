"""Models from files: all files of a folder or none are loaded, and only the providers in it are changed."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from llmbridge import LLMDatabase, LLMModel
from llmbridge._models import json_files
from llmbridge._models.registry import LoadReport

#: As llmbridge-py 0.2 writes an entry.
ENTRY: dict[str, Any] = {
    "model_id": "large-1",
    "display_name": "Large 1",
    "description": "Reads long papers",
    "use_cases": ["papers"],
    "max_context": 200000,
    "max_output_tokens": None,
    "supports_vision": True,
    "supports_function_calling": True,
    "supports_json_mode": False,
    "supports_parallel_tool_calls": False,
    "dollars_per_million_tokens_input": 0.1,
    "dollars_per_million_tokens_output": 3.0,
    "release_date": "2026-01-01",
    "deprecation_date": None,
    "notes": None,
}


def write(folder: Path, vendor: str, *entries: Any, **changes: Any) -> Path:
    path = folder / f"{vendor}.json"
    document = {"provider": vendor, "last_updated": "2026-01-01", "source_documents": [], "models": list(entries)}
    path.write_text(json.dumps({**document, **changes}))
    return path


@pytest.fixture
async def db() -> AsyncIterator[LLMDatabase]:
    async with LLMDatabase("memory://") as opened:
        yield opened


async def test_a_directory_is_loaded_and_only_models_of_its_providers_are_retired(
    db: LLMDatabase, tmp_path: Path
) -> None:
    for name in ("old", "small"):
        await db.upsert_model(LLMModel(provider="acme", model_name=name))
    write(tmp_path, "acme", ENTRY, {"model_id": "small"})
    (tmp_path / "summary.json").write_text("{}")
    others = len(await db.list_models()) - 2
    assert await db.load_models(tmp_path) == LoadReport(("acme",), inserted=1, updated=1, retired=1)

    assert [model.model_name for model in await db.list_models("acme")] == ["large-1", "small"]
    assert len(await db.list_models()) - 2 == others
    model = await db.get_model("acme", "large-1")
    assert model is not None
    assert (model.source, model.max_context, model.max_output_tokens) == ("user", 200_000, None)
    assert (model.supports_vision, model.tool_call_format) == (True, "openai")
    assert model.dollars_per_million_tokens_input == Decimal("0.1")
    assert await db.load_models(tmp_path) == LoadReport(("acme",), inserted=0, updated=2, retired=0)


async def test_rates_become_own_prices_where_they_differ_and_are_wanted(db: LLMDatabase, tmp_path: Path) -> None:
    write(tmp_path, "acme", ENTRY)
    same = {
        "model_id": "gpt-4o-mini",
        "dollars_per_million_tokens_input": 0.15,
        "dollars_per_million_tokens_output": 0.6,
    }
    write(tmp_path, "openai", same)
    await db.load_models(tmp_path, set_prices=False)
    assert await db.list_prices() == []
    await db.load_models(tmp_path)
    (price,) = await db.list_prices()
    assert (price.provider, price.model_name, price.input, price.output) == ("acme", "large-1", Decimal("0.1"), 3)


async def test_a_rate_of_zero_is_a_price_and_a_size_of_zero_is_not_known(db: LLMDatabase, tmp_path: Path) -> None:
    free = {"dollars_per_million_tokens_input": 0, "dollars_per_million_tokens_output": 0, "max_context": 0}
    write(tmp_path, "ollama", {**ENTRY, **free})
    await db.load_models(tmp_path)
    model = await db.get_model("ollama", "large-1")
    assert model is not None
    assert model.max_context is None
    card = db.prices.rates("ollama", "large-1", datetime.now(UTC))
    assert card is not None
    assert card.rates().input == 0


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("large-1", "models[1]: it must be a JSON object"),
        ({"display_name": "no id"}, "models[1]: it has no model_id"),
        ({**ENTRY, "model_id": ""}, "model_name is empty"),
        ({**ENTRY, "model_id": "x" * 256}, "at most 255"),
        ({**ENTRY, "model_id": "m", "max_context": "long"}, "models[1] (m): max_context"),
        ({**ENTRY, "model_id": "m", "max_context": -1}, "models[1] (m): max_context"),
        ({**ENTRY, "model_id": "m", "supports_vision": "perhaps"}, "models[1] (m): supports_vision"),
        ({**ENTRY, "model_id": "m", "dollars_per_million_tokens_input": "cheap"}, "dollars_per_million_tokens_input"),
        (
            {**ENTRY, "model_id": "m", "dollars_per_million_tokens_input": -1},
            "dollars_per_million_tokens_input is negative",
        ),
        (ENTRY, "models[1] (large-1) appears twice"),
    ],
)
async def test_an_entry_that_does_not_parse_stops_the_load_with_nothing_changed(
    db: LLMDatabase, tmp_path: Path, entry: Any, said: str
) -> None:
    before = await db.list_models(active_only=False)
    write(tmp_path, "acme", ENTRY)
    broken = write(tmp_path, "openai", ENTRY, entry)
    with pytest.raises(ValueError, match="models") as raised:
        await db.load_models(tmp_path)
    assert str(raised.value).startswith(f"{broken}: models[1]")
    assert said in str(raised.value)
    assert await db.list_models(active_only=False) == before
    assert await db.list_prices() == []


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "is not valid JSON"),
        ("{", "is not valid JSON"),
        ('{"models": [{"model_id": "m", "max_context": NaN}]}', "NaN is not a valid number"),
        ("[" * 100_000, "is not valid JSON"),
        ('{"models": [{"model_id": "m", "max_context": 1e99999999}]}', "the number 1e99999999 is out of range"),
        (
            '{"models": [{"model_id": "m", "dollars_per_million_tokens_input": 1e99999999999999999999}]}',
            "the number 1e99999999999999999999 is out of range",
        ),
        ("[]", '"models" is a list that is not empty'),
        ("{}", '"models" is a list that is not empty'),
        ('{"models": []}', '"models" is a list that is not empty'),
        ('{"provider": "acme", "models": [{"model_id": "m"}]}', "has the provider 'acme'"),
    ],
    ids=["empty", "torn", "nan", "deep", "long", "beyond decimals", "list", "object", "no models", "another vendor"],
)
def test_a_file_that_does_not_parse_is_named(tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "openai.json"
    path.write_text(content)
    with pytest.raises(ValueError, match="openai") as raised:
        json_files.read(tmp_path)
    assert str(raised.value).startswith(str(path))
    assert said in str(raised.value)


def test_a_directory_without_files_is_a_mistake(tmp_path: Path) -> None:
    for folder, said in ((tmp_path / "none", "no directory"), (tmp_path, "no file of a provider")):
        with pytest.raises(ValueError, match=said):
            json_files.read(folder)


async def test_without_a_database_the_files_are_only_checked(tmp_path: Path) -> None:
    write(tmp_path, "acme", ENTRY)
    assert await LLMDatabase().load_models(tmp_path) == LoadReport((), 0, 0, 0)
