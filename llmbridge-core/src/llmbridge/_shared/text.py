"""Text that every database can store."""

from __future__ import annotations

import hashlib
import re

_UNSTORABLE = re.compile("[\0\ud800-\udfff]")


def is_plain(text: str) -> bool:
    """Return whether `text` is ASCII without NUL, which every database stores as it is."""
    return text.isascii() and "\0" not in text


def storable(text: str) -> str:
    """`text` with U+FFFD for what no database holds: NUL and lone surrogates."""
    return text if is_plain(text) else _UNSTORABLE.sub("\ufffd", text)


def hash_prompt(system_prompt: str) -> str:
    """SHA-256 of a system prompt, in hex. The prompt itself is never kept."""
    return hashlib.sha256(system_prompt.encode("utf-8", "surrogatepass")).hexdigest()
