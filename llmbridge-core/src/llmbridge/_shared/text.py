"""Conversion of text to a form that every database can store, and the hash of a prompt."""

from __future__ import annotations

import hashlib
import re

_UNSTORABLE = re.compile("[\0\ud800-\udfff]")


def is_plain(text: str) -> bool:
    """Return whether `text` is ASCII without NUL, which every database stores as it is."""
    return text.isascii() and "\0" not in text


def storable(text: str) -> str:
    """Return `text` with U+FFFD instead of NUL and lone surrogates, which databases cannot store."""
    return text if is_plain(text) else _UNSTORABLE.sub("\ufffd", text)


def hash_prompt(system_prompt: str) -> str:
    """Return the SHA-256 of a system prompt, in hex. The prompt itself is never stored."""
    return hashlib.sha256(system_prompt.encode("utf-8", "surrogatepass")).hexdigest()
