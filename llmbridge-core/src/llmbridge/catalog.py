"""The bundled catalog of models: what is known of each, with its source, in `catalog.json` beside this module.

Each entry names the vendor's page (`source`) and the day up to which it is known to be true (`date`), and where
its rates come from (`rates_source`, `rates_date`). A null is not known; for a capability that reads as False.
"""

from __future__ import annotations

import hashlib
import json
from functools import cache
from importlib.resources import files

from .schemas import LLMModel

#: Version of the catalog: year, month, number within the month.
VERSION = "2026.11.0"

_PREFIX = "catalog "


def models() -> list[LLMModel]:
    """The models of the catalog, ordered by provider and name. They are the caller's own copies."""
    return [model.model_copy() for model in _load()]


def model_id(provider: str, model_name: str) -> int:
    """The id of a model: the first 63 bits of SHA-256 over provider, NUL and name in UTF-8."""
    digest = hashlib.sha256(f"{provider}\0{model_name}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def is_older(source: str) -> bool:
    """Whether a stored model's `source` names an older catalog than this one. What a user entered is never older."""
    version = source.removeprefix(_PREFIX)
    if version == source:
        return False
    try:
        return _parts(version) < _parts(VERSION)
    except ValueError:
        return False


def _parts(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


@cache
def _load() -> tuple[LLMModel, ...]:
    entries = json.loads(files(__package__).joinpath("catalog.json").read_text("utf-8"))
    return tuple(
        LLMModel.model_validate(
            {name: value for name, value in entry.items() if value is not None}
            | {"id": model_id(entry["provider"], entry["model_name"]), "source": f"{_PREFIX}{VERSION}"}
        )
        for entry in entries
    )
