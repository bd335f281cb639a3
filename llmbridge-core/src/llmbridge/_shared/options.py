"""Options of plugins: conversion of texts and keywords to checked, typed values."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from typing import Any

from .spelling import hint

_TRUE = frozenset({"true", "1", "yes", "on"})
_FALSE = frozenset({"false", "0", "no", "off"})
_EXPECTED = {
    bool: "true or false",
    int: "a whole number",
    float: "a finite number",
    str: "a text",
}


def check_options(
    plugin: str,
    known: Mapping[str, type],
    query: Mapping[str, str],
    keywords: Mapping[str, Any],
    *,
    everywhere: Mapping[str, type] | None = None,
    parameters: Collection[str] = (),
) -> dict[str, Any]:
    """Return the options of `plugin` that the caller set, converted to their types.

    :param plugin: its name, for error texts
    :param known: the options of the plugin, with their types
    :param query: options of a URL, as text
    :param keywords: options passed by keyword; they override `query`, and None counts as not set
    :param everywhere: options that every plugin accepts; they are checked, but not returned unless `known` has them
    :param parameters: names of the caller's own parameters, one of which a misspelt option may mean
    :raises ValueError: an option is unknown or of the wrong type. The text never shows a value: it may be a secret.
    """
    accepted = {**(everywhere or {}), **known}
    given = {name: value for name, value in keywords.items() if value is not None}
    for name in (*query, *given):
        if name not in accepted:
            names = ", ".join(sorted(accepted)) or "none"
            close = hint(name, [*accepted, *parameters])
            raise ValueError(f"{plugin} has no option {name!r}; known: {names}{close}")
    values = {name: _converted(name, text, accepted[name]) for name, text in query.items()}
    values |= {name: _checked(name, value, accepted[name]) for name, value in given.items()}
    return {name: value for name, value in values.items() if name in known}


def _converted(name: str, text: str, wanted: type) -> Any:
    if wanted is str:
        return text
    if wanted is bool and text.lower() in _TRUE | _FALSE:
        return text.lower() in _TRUE
    if wanted is int and re.fullmatch(r"[+-]?[0-9]{1,18}", text):
        return int(text)
    if wanted is float and re.fullmatch(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]+)?", text, re.IGNORECASE):
        number = float(text)
        if math.isfinite(number):
            return number
    if wanted not in _EXPECTED:
        raise ValueError(f"the option {name!r} takes an object: give it by keyword, not in the URL")
    raise _wrong(name, wanted)


def _checked(name: str, value: Any, wanted: type) -> Any:
    if wanted is float and isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    if wanted is float or not isinstance(value, wanted) or (wanted is int and isinstance(value, bool)):
        raise ValueError(f"{_wrong(name, wanted)}, not {type(value).__name__}")
    return value


def _wrong(name: str, wanted: type) -> ValueError:
    return ValueError(f"the option {name!r} takes {_EXPECTED.get(wanted, wanted.__name__)}")
