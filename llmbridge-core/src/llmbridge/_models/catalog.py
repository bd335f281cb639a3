"""Bundled catalog of models, in `catalog.json` beside this module.

Each entry names the provider's page on which it can be checked (`source`), the day on which it was last known to be
true (`date`), and where its rates come from (`rates_source`, `rates_date`). A null is unknown; for a capability it is
read as False.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from functools import cache
from importlib.resources import files

from ..schemas import LLMModel

#: Version of the catalog: year, month, number within the month.
VERSION = "2026.11.0"

_PREFIX = "catalog "


@dataclass(frozen=True, slots=True)
class Origin:
    """Where an entry of the catalog can be checked, and the day on which it was last known to be true."""

    source: str
    date: date


def origin(provider: str, model_name: str) -> Origin | None:
    """Return the origin of the catalog's entry for a model; None if the catalog does not have the model."""
    return _load().origins.get((provider, model_name))


def models() -> list[LLMModel]:
    """Return copies of the models of the catalog, ordered by provider and name."""
    return [model.model_copy() for model in _load().models]


def model_id(provider: str, model_name: str) -> int:
    """Return the id of a model: the first 63 bits of SHA-256 over provider, NUL and name in UTF-8."""
    digest = hashlib.sha256(f"{provider}\0{model_name}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def is_older(source: str) -> bool:
    """Return whether a stored model's `source` is an older catalog than this one. A user's model is never older."""
    version = source.removeprefix(_PREFIX)
    if version == source:
        return False
    try:
        return _parts(version) < _parts(VERSION)
    except ValueError:
        return False


def _parts(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


@dataclass(frozen=True, slots=True)
class _Catalog:
    models: tuple[LLMModel, ...]
    origins: Mapping[tuple[str, str], Origin]


@cache
def _load() -> _Catalog:
    entries = json.loads(files(__package__).joinpath("catalog.json").read_text("utf-8"))
    return _Catalog(
        tuple(
            LLMModel.model_validate(
                {name: value for name, value in entry.items() if value is not None}
                | {"id": model_id(entry["provider"], entry["model_name"]), "source": f"{_PREFIX}{VERSION}"}
            )
            for entry in entries
        ),
        {
            (entry["provider"], entry["model_name"]): Origin(entry["source"], date.fromisoformat(entry["date"]))
            for entry in entries
        },
    )
