"""Bundled catalog of models, in `catalog.json` beside this module.

Each entry names the provider's page on which it can be checked (`source`), the day on which it was last known to be
true (`date`), the day on which the model is retired (`retires`, null: none is known) with the source of that
(`retires_source`), and where its rates come from (`rates_source`, `rates_date`). A null is unknown; for a capability it
is read as False. `tools/catalog.py` in the repository updates the file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import cache
from importlib.resources import files

from ..schemas import LLMModel

#: Version of the catalog: year, month, number within the month.
VERSION = "2026.11.0"

#: Age from which an entry is too old to recommend its model.
MAX_AGE = timedelta(days=365)

_PREFIX = "catalog "


@dataclass(frozen=True, slots=True)
class Origin:
    """Where an entry of the catalog can be checked, and the day on which it was last known to be true (`confirmed`).

    `retires` is the day from which the model can no longer be called (None: no such day is known), and `retires_source`
    tells where that is from.
    """

    source: str
    confirmed: date
    retires: date | None = None
    retires_source: str | None = None

    def is_confirmed(self) -> bool:
        """Return whether somebody has confirmed the entry within the last year."""
        return today() - self.confirmed <= MAX_AGE


def origin(provider: str, model_name: str) -> Origin | None:
    """Return the origin of the catalog's entry for a model; None if the catalog does not have the model."""
    return _load().origins.get((provider, model_name))


def models() -> list[LLMModel]:
    """Return copies of the models of the catalog, ordered by provider and name. Those that are retired have the time
    of it."""
    day = today()
    return [model.model_copy(update=_state(model, day)) for model in _load().models]


def today() -> date:
    """Return the current day in UTC, which decides what is retired and what is too old."""
    return datetime.now(UTC).date()


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


def _state(model: LLMModel, day: date) -> dict[str, datetime]:
    retires = _load().origins[model.provider, model.model_name].retires
    if retires is None or retires > day:
        return {}
    return {"inactive_from": datetime.combine(retires, time(), UTC)}


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
            (entry["provider"], entry["model_name"]): Origin(
                entry["source"],
                date.fromisoformat(entry["date"]),
                date.fromisoformat(entry["retires"]) if entry["retires"] else None,
                entry["retires_source"],
            )
            for entry in entries
        },
    )
