"""Text form of a cursor, which continues a list of calls after a page."""

from __future__ import annotations

import base64
import binascii
from datetime import UTC, datetime, timedelta
from uuid import UUID

from ..storage.types import Cursor

_FORMAT = "c1"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def encode(cursor: Cursor) -> str:
    """Return the text of a cursor: 34 letters, digits, `-` and `_`, beginning with a letter."""
    called_at, call_id = cursor
    micros = (called_at - _EPOCH) // _MICROSECOND
    packed = micros.to_bytes(8, "big", signed=True) + call_id.bytes
    return _FORMAT + base64.urlsafe_b64encode(packed).decode("ascii")


def decode(text: str) -> Cursor:
    """Return the cursor of a text that `encode` returned.

    :raises ValueError: the text is invalid
    """
    body = text.removeprefix(_FORMAT)
    try:
        packed = base64.b64decode(body, altchars=b"-_", validate=True)
        if len(packed) != 24 or body == text:
            raise ValueError("wrong length or format")
        called_at = _EPOCH + int.from_bytes(packed[:8], "big", signed=True) * _MICROSECOND
    except (binascii.Error, ValueError, OverflowError) as error:
        raise ValueError("invalid cursor: pass `next` of the previous page") from error
    return called_at, UUID(bytes=packed[8:])
