"""From the words of options to the terms of core: times, fields, filters."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from ..errors import LLMBridgeError
from . import output
from .exit_codes import UserError

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo

    from ..db import LLMDatabase

Values = Sequence[str | None] | None

#: What people call the fields of the books.
ALIASES = {"user": "id_at_origin", "model": "model_name", "vendor": "provider"}

_TITLES = {"id_at_origin": "user", "model_name": "model"}

_BACK = re.compile(r"(\d{1,9})([hdw])")
_HOURS = {"h": 1, "d": 24, "w": 7 * 24}


@contextmanager
def answerable() -> Iterator[None]:
    """What core says of a wrong question is the mistake of who asked."""
    try:
        yield
    except LLMBridgeError:
        raise
    except ValueError as error:
        raise UserError(str(error)) from error


def zone(name: str) -> ZoneInfo:
    """The time zone of that name."""
    from .._usage import periods

    with answerable():
        return periods.zone(name)


def time(option: str, text: str | None, now: datetime) -> datetime | date | None:
    """The time that an option gives: so long before `now`, a date, or a time with or without an offset; None for
    `all`."""
    if text is None or text == "all":
        return None
    try:
        if back := _BACK.fullmatch(text):
            return now - int(back[1]) * timedelta(hours=_HOURS[back[2]])
        if re.fullmatch(r"\d{4}-\d\d-\d\d", text):
            return date.fromisoformat(text)
        return datetime.fromisoformat(text)
    except (ValueError, OverflowError) as error:
        raise UserError(
            f"{option} {text!r} is no time; write 12h, 30d or 4w, 2026-01-31, 2026-01-31T12:00:00+01:00, or all"
        ) from error


def is_back(text: str | None) -> bool:
    """Whether an option gives a time by how long ago it was."""
    return text is not None and _BACK.fullmatch(text) is not None


def instant(at: datetime | date | None, tz: ZoneInfo) -> datetime | None:
    """A time in UTC; a date is its first instant in `tz`, a time without an offset is one of `tz`."""
    from .._usage import periods

    if at is None:
        return None
    try:
        if isinstance(at, datetime) and at.utcoffset() is None:
            return at.replace(tzinfo=tz).astimezone(UTC)
        with answerable():
            return periods.to_utc(at, tz)
    except OverflowError as error:
        raise UserError(f"{at.isoformat()} is out of range") from error


def fields(words: Iterable[str]) -> tuple[str, ...]:
    """The names in `words`, each of which may have several between commas, in core's spelling; `none` is none."""
    from .._usage.periods import UNITS
    from ..storage.types import GROUP_FIELDS, TAG_PREFIX

    names = [name.strip() for word in words for name in word.split(",")]
    found = tuple(ALIASES.get(name, name) for name in names if name not in ("", "none"))
    for name in found:
        if name not in (*GROUP_FIELDS, *UNITS) and not (name.startswith(TAG_PREFIX) and len(name) > len(TAG_PREFIX)):
            known = ", ".join((*map(title, GROUP_FIELDS), f"{TAG_PREFIX}NAME", *UNITS))
            raise UserError(f"--by {name!r} is no field; known: {known}")
        if found.count(name) > 1:
            raise UserError(f"--by names {title(name)} twice")
    tagged = [name for name in found if name.startswith(TAG_PREFIX)]
    if len(tagged) > 1:
        raise UserError(f"--by takes one tag, not {', '.join(tagged)}")
    return found


def periods_within(groups: Sequence[str], start: datetime | None) -> None:
    """Refuse to group by several periods, or by one when there is no first of it."""
    from .._usage.periods import UNITS

    units = [name for name in groups if name in UNITS]
    if len(units) > 1:
        raise UserError(f"--by takes one period, not {', '.join(units)}")
    if units and start is None:
        raise UserError(f"--by {units[0]} needs a --since other than all")


def title(field: str) -> str:
    """What people call a field of the books."""
    return _TITLES.get(field, field)


def accepted(values: Sequence[str] | None) -> tuple[str | None, ...] | None:
    """A filter of these values; an empty one stands for calls without one, no values for no filter."""
    return tuple(value or None for value in values) if values else None


def tags(pairs: Sequence[str] | None) -> dict[str, tuple[str | None, ...]] | None:
    """Filters by tags from texts `NAME=VALUE`; several values of one name are all accepted."""
    found: dict[str, tuple[str | None, ...]] = {}
    for name, value in map(_pair, pairs or ()):
        found[name] = (*found.get(name, ()), value or None)
    if len(found) > 1:
        raise UserError(f"--tag takes several values only of one name, not {', '.join(found)}")
    return found or None


def metadata(pairs: Sequence[str] | None) -> dict[str, str] | None:
    """The metadata of a call from texts `NAME=VALUE`."""
    found: dict[str, str] = {}
    for name, value in map(_pair, pairs or ()):
        if name in found:
            raise UserError(f"--tag {name!r} is given twice; a call has one value for it")
        found[name] = value
    return found or None


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise UserError(f"--tag {text!r} is no tag; write NAME=VALUE, such as team=search")
    return name, value


async def split(db: LLMDatabase, filters: Mapping[str, Any]) -> dict[str, Any]:
    """The filters `provider` and `model_name` where models were named with their vendor, as tables show them; empty
    where none was.

    A name may have a colon of its own (`llama3.2:latest`): what stands before it is a vendor only if a plugin, a
    model or a call has one of that name, and `provider` names no other. Says so where nobody has a vendor of
    `provider`.
    """
    provider: Values = filters.get("provider")
    models: Sequence[str | None] = filters.get("model_name") or ()
    prefixes = {model.partition(":")[0] for model in models if model is not None and ":" in model}
    names = await known(db) if prefixes or provider else set()
    if provider is not None:
        for name in provider:
            if name is not None and name not in names:
                tell_unknown(name, names)
        prefixes &= {*provider} if len(provider) == 1 else set()
    vendors = prefixes & names
    if not vendors:
        return {}
    named = [model is not None and model.partition(":")[0] in vendors for model in models]
    if len(vendors) > 1 or (provider is None and not all(named)):
        raise UserError("--model takes several names only of one vendor: ask once for each vendor")
    bare = tuple(
        model.partition(":")[2] if model and has_vendor else model
        for model, has_vendor in zip(models, named, strict=True)
    )
    return {"provider": tuple(vendors), "model_name": bare}


async def known(db: LLMDatabase) -> set[str]:
    """The vendors of plugins, of models and of calls on the books."""
    from ..plugins import provider_names

    of_models = {model.provider for model in await db.list_models(active_only=False)}
    return provider_names() | of_models | {row.key["provider"] for row in await db.usage(group_by="provider")}


def tell_unknown(vendor: str, names: Collection[str]) -> None:
    """Say that the vendor is none of those `names`, and which one may be meant."""
    close = get_close_matches(vendor.lower(), names, n=1)
    hint = f"; did you mean {close[0]}?" if close else ""
    output.note(output.clean(f"no plugin, model or call has the vendor {vendor!r} yet{hint}"))
