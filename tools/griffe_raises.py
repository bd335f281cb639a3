"""Griffe extension that splits `:raises A, B: text`, which Sphinx reads and griffe does not, into one per class."""

from __future__ import annotations

import re
from typing import Any

import griffe

_SEVERAL = re.compile(
    r"^(?P<indent>[ \t]*):raises (?P<names>\w+(?:, \w+)+):(?P<text>.*(?:\n(?![ \t]*:).+)*)", re.MULTILINE
)


class SplitRaises(griffe.Extension):
    """Rewrites the docstrings of all objects before they are parsed."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite the docstring of one object."""
        if obj.docstring is not None:
            obj.docstring.value = _SEVERAL.sub(_split, obj.docstring.value)


def _split(found: re.Match[str]) -> str:
    indent, names, text = found["indent"], found["names"].split(", "), found["text"]
    return "\n".join(f"{indent}:raises {name}:{text}" for name in names)
