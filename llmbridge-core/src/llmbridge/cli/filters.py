"""Reads the options that choose calls: times, fields, filters, `PROVIDER:NAME`."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any

from ..errors import LLMBridgeError
from . import output
from .exit_codes import UserError

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo

    from ..db import LLMDatabase

Values = Sequence[str | None] | None

_TITLES = {"id_at_origin": "user", "model_name": "model"}


@contextmanager
def invalid_arguments() -> Iterator[None]:
    """Report a ValueError of core as a mistake in the arguments."""
    try:
        yield
    except LLMBridgeError:
        raise
    except ValueError as error:
        raise UserError(str(error)) from error


def zone(name: str) -> ZoneInfo:
    """Return the IANA time zone of that name."""
    from ..reports import time_zone

    with invalid_arguments():
        return time_zone(name)


def instant(option: str, text: str | None, tz: ZoneInfo, now: datetime) -> datetime | None:
    """Return the time in an option, in UTC; None if it is not given, or `all`."""
    from ..reports import to_utc

    if text is None or text == "all":
        return None
    try:
        return to_utc(text, tz, now)
    except ValueError as error:
        raise UserError(f"{option} {error}, or all") from error


def fields(words: Iterable[str]) -> tuple[str, ...]:
    """Return the field names in `words`, which may have several between commas, as core spells them; `none` is none."""
    from ..reports import ALIASES, PERIODS, spelling_hint
    from ..storage.types import GROUP_FIELDS, TAG_PREFIX

    names = [name.strip() for word in words for name in word.split(",")]
    found = tuple(ALIASES.get(name, name) for name in names if name not in ("", "none"))
    for name in found:
        if name not in (*GROUP_FIELDS, *PERIODS) and not (name.startswith(TAG_PREFIX) and len(name) > len(TAG_PREFIX)):
            known = (*map(title, GROUP_FIELDS), f"{TAG_PREFIX}NAME", *PERIODS)
            raise UserError(f"--by {name!r} is not a field; known: {', '.join(known)}{spelling_hint(name, known)}")
        if found.count(name) > 1:
            raise UserError(f"--by names {title(name)} twice")
    tagged = [name for name in found if name.startswith(TAG_PREFIX)]
    if len(tagged) > 1:
        raise UserError(f"--by takes one tag, not {', '.join(tagged)}")
    return found


def check_periods(groups: Sequence[str], start: datetime | None) -> None:
    """Refuse to group by several periods, or by a period without a start."""
    from ..reports import PERIODS

    units = [name for name in groups if name in PERIODS]
    if len(units) > 1:
        raise UserError(f"--by takes one period, not {', '.join(units)}")
    if units and start is None:
        raise UserError(f"--by {units[0]} needs a --since other than all")


def title(field: str) -> str:
    """Return the name of a field in tables and options."""
    return _TITLES.get(field, field)


def accepted(values: Sequence[str] | None) -> tuple[str | None, ...] | None:
    """Return a filter of these values; an empty one means calls without a value, no values mean no filter."""
    return tuple(value or None for value in values) if values else None


def tags(pairs: Sequence[str] | None) -> dict[str, tuple[str | None, ...]] | None:
    """Return filters by tags from texts `NAME=VALUE`; several values of one name are all accepted."""
    found: dict[str, tuple[str | None, ...]] = {}
    for name, value in map(_pair, pairs or ()):
        found[name] = (*found.get(name, ()), value or None)
    if len(found) > 1:
        raise UserError(f"--tag takes several values only of one name, not {', '.join(found)}")
    return found or None


def metadata(pairs: Sequence[str] | None) -> dict[str, str] | None:
    """Return the metadata of a call from texts `NAME=VALUE`."""
    found: dict[str, str] = {}
    for name, value in map(_pair, pairs or ()):
        if name in found:
            raise UserError(f"--tag {name!r} is given twice; a call has one value for it")
        found[name] = value
    return found or None


async def split_models(db: LLMDatabase, filters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the filters `provider` and `model_name` if models were named with their provider, as tables show them;
    empty if none was.

    A name may have a colon of its own (`llama3.2:latest`): the text before it is a provider only if a plugin, a model
    or a call has a provider of that name, and `provider` names no other. Prints a note if a name in `provider` is
    unknown.
    """
    given: Values = filters.get("provider")
    models: Sequence[str | None] = filters.get("model_name") or ()
    prefixes = {model.partition(":")[0] for model in models if model is not None and ":" in model}
    names = await known_providers(db) if prefixes or given else set()
    if given is not None:
        for name in given:
            if name is not None and name not in names:
                note_unknown_provider(name, names)
        prefixes &= {*given} if len(given) == 1 else set()
    providers = prefixes & names
    if not providers:
        return {}
    named = [model is not None and model.partition(":")[0] in providers for model in models]
    if len(providers) > 1 or (given is None and not all(named)):
        raise UserError("--model takes several names only of one provider: ask once for each provider")
    bare = tuple(
        model.partition(":")[2] if model and has_provider else model
        for model, has_provider in zip(models, named, strict=True)
    )
    return {"provider": tuple(providers), "model_name": bare}


async def known_providers(db: LLMDatabase) -> set[str]:
    """Return the providers of plugins, of models and of recorded calls."""
    from ..plugins import provider_names

    of_models = {model.provider for model in await db.list_models(active_only=False)}
    return provider_names() | of_models | {row.key["provider"] for row in await db.usage(group_by="provider")}


def note_unknown_provider(provider: str, names: Collection[str]) -> None:
    """Print that the provider is none of `names`, and which one may be meant."""
    from ..reports import spelling_hint

    hint = spelling_hint(provider, names)
    output.note(output.clean(f"no plugin, model or call has the provider {provider!r} yet{hint}"))


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise UserError(f"--tag {text!r} is not a tag; write NAME=VALUE, such as team=search")
    return name, value
