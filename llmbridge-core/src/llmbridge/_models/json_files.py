"""Reader of models from a directory of JSON files, one per provider, in the format of llmbridge-py 0.2."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from .._records.canonical import canonical_model
from .._shared.money import exact
from ..errors import RecordRejectedError
from ..schemas import LLMModel

#: llmbridge-py writes this file too; it repeats what is in the others.
_SUMMARY = "summary.json"

#: Fields of an entry -> fields of LLMModel. Other fields, such as use_cases and notes, are ignored.
_FIELDS = {
    "model_id": "model_name",
    **{
        name: name
        for name in (
            "display_name",
            "description",
            "max_context",
            "max_output_tokens",
            "supports_vision",
            "supports_function_calling",
            "supports_json_mode",
            "supports_parallel_tool_calls",
            "dollars_per_million_tokens_input",
            "dollars_per_million_tokens_output",
        )
    },
}
_SIZES = ("max_context", "max_output_tokens")
#: Providers with a format of tool calls of their own; the others use OpenAI's.
_TOOL_CALL_FORMATS = ("anthropic", "google")


def read(directory: str | Path) -> dict[str, list[LLMModel]]:
    """Return the models of each provider that has a file `PROVIDER.json` in `directory`, in the order of the file.

    A file is an object whose `models` is a list of entries with a `model_id` and other fields of a model. Sizes of 0
    are unknown, as in llmbridge-py. Rates are dollars per million tokens, taken exactly as they are written.

    :raises ValueError: the directory or a file in it does not exist, or a file or an entry is invalid; the text names
        it
    """
    folder = Path(directory)
    if not folder.is_dir():
        raise ValueError(f"there is no directory {folder}")
    paths = sorted(path for path in folder.glob("*.json") if path.name != _SUMMARY)
    if not paths:
        raise ValueError(f"{folder} has no file of a provider, such as openai.json")
    return {path.stem: _read_file(path) for path in paths}


def _read_file(path: Path) -> list[LLMModel]:
    try:
        document = json.loads(path.read_bytes(), parse_float=exact, parse_constant=_refuse)
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error
    except OverflowError as error:
        raise ValueError(f"{path}: {error}") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not valid JSON: {error}") from error
    entries = document.get("models") if isinstance(document, dict) else None
    if not isinstance(entries, list) or not entries:
        raise ValueError(f'{path} must be a JSON object whose "models" is a list that is not empty')
    if document.get("provider", path.stem) != path.stem:
        raise ValueError(f"{path} has the provider {document['provider']!r}: name the file after the provider")
    models: dict[str, LLMModel] = {}
    for number, entry in enumerate(entries):
        try:
            model = _model(path.stem, entry)
        except (ValueError, TypeError) as error:
            named = entry.get("model_id") if isinstance(entry, dict) else None
            which = f"models[{number}]{f' ({named})' if named else ''}"
            raise ValueError(f"{path}: {which}: {_describe(error)}") from error
        if model.model_name in models:
            raise ValueError(f"{path}: models[{number}] ({model.model_name}) appears twice")
        models[model.model_name] = model
    return list(models.values())


def _model(provider: str, entry: Any) -> LLMModel:
    if not isinstance(entry, Mapping):
        raise TypeError("it must be a JSON object")
    if not isinstance(entry.get("model_id"), str):
        raise TypeError("it has no model_id")
    fields = {ours: entry[theirs] for theirs, ours in _FIELDS.items() if entry.get(theirs) is not None}
    for size in _SIZES:
        if fields.get(size) == 0:
            del fields[size]
    if fields.get("supports_function_calling"):
        fields["tool_call_format"] = provider if provider in _TOOL_CALL_FORMATS else "openai"
    model = LLMModel.model_validate({"provider": provider, **fields})
    return canonical_model(model, id=0, now=datetime.now(UTC))


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not a valid number")


def _describe(error: Exception) -> str:
    if isinstance(error, ValidationError):
        return "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors(include_input=False))
    return str(error) if isinstance(error, RecordRejectedError | TypeError) else repr(error)
