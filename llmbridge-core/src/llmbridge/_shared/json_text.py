"""Compact JSON text, with numbers written as Python writes them."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

from pydantic_core import PydanticSerializationError, to_json

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def encode_json(value: Any) -> str:
    """Return the JSON text of a value, without spaces; characters beyond ASCII are not escaped."""
    if type(value) is dict and all(type(key) is type(item) is str for key, item in value.items()):
        with suppress(PydanticSerializationError):  # raised for a lone surrogate
            # The same text, several times as fast. Only for texts: pydantic writes numbers differently.
            return to_json(value).decode()
    return _encode(value)
