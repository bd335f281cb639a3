"""Redaction of keys and passwords in texts."""

from __future__ import annotations

import re
from collections.abc import Iterable

_SECRETS = re.compile(
    r"""(?ix)
    ( ://[^\s/:"]{0,255}: ) [^\s"]{1,1000} (?=@)
    | ( \bauthorization \\*["']? \s*[=:]\s* (?:\\*["'])? (?:(?:basic|bearer|digest|token|apikey)\s+)? ) [^\s"',]+
    | ( \bbearer\s+ | \bbasic\s+ (?=[\w+/.-]{8}) (?=\S*(?:\d|=|(?-i:[a-z][A-Z]))) ) [^\s"',]+
    | ( (?: (?:api|access|account|encryption|private|secret|shared|signing)[-_ ]?key | (?<![a-z0-9])(?:key|pass|pwd)
          | token (?! \\*["']? \s*[=:]\s* \d{1,9} (?! [\w+/=-] | \.\w ) )
          | secret | passw(?:or)?d | passphrase | credentials?
        ) \\*["']? \s*[=:]\s* (?: \\*b?(?P<quote>["']) )?
      ) (?(quote) (?: (?!(?P=quote)). )* | [^\s"'&]+ )
    | \b(?:sk|pk|rk|gsk|xai)-[\w*.-]{7,}[\w*-] | \b(?:sk|pk|rk)_(?:live|test)_\w{8,} | \bgsk_\w{8,}
    | \bAIza[\w-]{10,} | \bA(?:KI|SI)A[A-Z0-9]{12,} | \bhf_\w{8,} | \bgh[opsur]_\w{8,} | \bgithub_pat_\w{8,}
    | \bglpat-[\w-]{8,} | \bxox[a-z]-[\w-]{8,} | \beyJ[\w-]{4,1000}\.[\w-]{4,}(?:\.[\w-]*)?
    """
)


def redact(message: str, secrets: Iterable[str] = ()) -> str:
    """Return `message` with `***` instead of these secrets and of anything that looks like a key or a password."""
    for secret in secrets:
        message = message.replace(secret, "***")
    return _SECRETS.sub(lambda match: f"{match[match.lastindex] if match.lastindex else ''}***", message)
